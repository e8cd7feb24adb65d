//! Embeddings into files that others read: JSON lines, NumPy's `.npy`, safetensors.

use std::io::{BufWriter, Seek, SeekFrom, Stdout, Write};
use std::path::{Path, PathBuf};

use bert_cli::input::kind::{FileKind, Format};
use bert_cli::program::STDOUT;
use bert_model::file::{StagedFile, replace_file};
use bert_model::pretrained::save::HostTensor;
use bert_model::pretrained::save_weights;
use bert_model::{Error, Result};
use serde_json::json;

/// Bytes of the `.npy` header, which is padded with spaces so that it can be rewritten when the shape is known.
const NPY_HEADER: usize = 128;

/// Where embeddings go.
pub enum Sink {
    /// One JSON object a text, on standard output.
    Stdout(BufWriter<Stdout>),
    /// One JSON object a text.
    Lines { file: StagedFile, path: PathBuf },
    /// A matrix `[texts, width]` of little-endian `f32`.
    Npy { file: StagedFile, path: PathBuf, rows: usize, width: usize },
    /// One tensor `embeddings`, or one for each text if every token has a vector.
    Safetensors { path: PathBuf, texts: Vec<Vec<Vec<f32>>> },
}

impl Sink {
    /// JSON lines on stdout, or a file by its extension.
    ///
    /// # Errors
    /// If the file cannot be made or its extension is not known.
    pub fn open(path: Option<&Path>, every_token: bool) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stdout(BufWriter::new(std::io::stdout())));
        };
        let FileKind { format, compression: None } = FileKind::of(path) else {
            return Err(FileKind::error(path, ".jsonl, .npy or .safetensors, not compressed"));
        };
        match format {
            Some(Format::JsonLines) => Ok(Self::Lines { file: StagedFile::create(path)?, path: path.into() }),
            Some(Format::Npy) if every_token => Err(Error::Setting(
                "--pooling none gives texts of different lengths, which .npy cannot hold; use .jsonl or .safetensors"
                    .into(),
            )),
            Some(Format::Npy) => {
                let mut file = StagedFile::create(path)?;
                file.write_all(&[0; NPY_HEADER]).map_err(Error::io(path, "write"))?;
                Ok(Self::Npy { file, path: path.into(), rows: 0, width: 0 })
            }
            Some(Format::Safetensors) => Ok(Self::Safetensors { path: path.into(), texts: Vec::new() }),
            _ => Err(FileKind::error(path, ".jsonl, .npy or .safetensors")),
        }
    }

    /// Takes the vectors of one text.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn add(&mut self, text: &str, tokens: &[String], vectors: Vec<Vec<f32>>, every_token: bool) -> Result<()> {
        let line = |vectors: Vec<Vec<f32>>| match every_token {
            true => json!({"text": text, "tokens": tokens, "embedding": vectors}),
            false => json!({"text": text, "embedding": vectors.first()}),
        };
        match self {
            Self::Stdout(writer) => writeln!(writer, "{}", line(vectors)).map_err(Error::io(STDOUT, "write")),
            Self::Lines { file, path } => writeln!(file, "{}", line(vectors)).map_err(Error::io(&*path, "write")),
            Self::Npy { file, path, rows, width } => {
                for vector in vectors {
                    (*rows, *width) = (*rows + 1, vector.len());
                    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                    file.write_all(&bytes).map_err(Error::io(&*path, "write"))?;
                }
                Ok(())
            }
            Self::Safetensors { texts, .. } => {
                texts.push(vectors);
                Ok(())
            }
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self, every_token: bool) -> Result<()> {
        match self {
            Self::Stdout(mut writer) => writer.flush().map_err(Error::io(STDOUT, "write")),
            Self::Lines { file, .. } => file.finish(),
            Self::Npy { mut file, path, rows, width } => {
                let header = npy_header(rows, width);
                let mut write = || {
                    file.seek(SeekFrom::Start(0))?;
                    file.write_all(&header)
                };
                write().map_err(Error::io(path, "write"))?;
                file.finish()
            }
            Self::Safetensors { path, texts } => {
                let tensor = |vectors: Vec<Vec<f32>>| {
                    let shape = vec![vectors.len(), vectors.first().map_or(0, Vec::len)];
                    HostTensor { shape, values: vectors.concat() }
                };
                if every_token {
                    let named =
                        texts.into_iter().enumerate().map(|(index, vectors)| (index.to_string(), tensor(vectors)));
                    return save_weights(path, &named.collect());
                }
                let rows = texts.into_iter().flatten().collect();
                save_weights(path, &[("embeddings".to_string(), tensor(rows))].into())
            }
        }
    }
}

/// NumPy's format 1.0: magic, version, length of the header, and a Python dictionary.
fn npy_header(rows: usize, width: usize) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((NPY_HEADER - 10) as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header.resize(NPY_HEADER - 1, b' ');
    header.push(b'\n');
    header
}

/// Writes lines of text to a file, whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_lines(path: &Path, lines: &[String]) -> Result<()> {
    replace_file(path, (lines.join("\n") + "\n").as_bytes())
}
