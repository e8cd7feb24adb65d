//! Writes embeddings as JSON lines, NumPy's `.npy`, or safetensors.

use std::io::{BufWriter, Seek, SeekFrom, Stdout, Write};
use std::path::{Path, PathBuf};

use bert_cli::input::keep::KeptRow;
use bert_cli::input::kind::{FileKind, Format};
use bert_cli::program::{STDOUT, create_parent};
use bert_model::file::StagedFile;
use bert_model::pretrained::save::HostTensor;
use bert_model::pretrained::save_weights;
use bert_model::{Error, Result};
use serde_json::json;

/// Length of the `.npy` header in bytes, padded with spaces so that it can be rewritten once the shape is known.
const NPY_HEADER: usize = 128;

/// Writes the vectors of texts, one text at a time.
pub struct Sink {
    target: Target,
    every_token: bool,
}

enum Target {
    /// One JSON object per text, on standard output.
    Stdout(BufWriter<Stdout>),
    /// One JSON object per text, in a file.
    Lines { file: StagedFile, path: PathBuf },
    /// A matrix `[texts, width]` of little-endian `f32`.
    Npy { file: StagedFile, path: PathBuf, rows: usize, width: usize },
    /// A tensor `embeddings`, or one tensor per text if every token has a vector.
    Safetensors { path: PathBuf, texts: Vec<Vec<Vec<f32>>> },
}

impl Sink {
    /// Opens standard output, for JSON lines, or a file whose extension determines its format, creating its directory.
    /// `every_token` says that texts have one vector per token.
    ///
    /// # Errors
    /// If the file cannot be created, its extension is unknown, or its format cannot hold such vectors.
    pub fn open(path: Option<&Path>, every_token: bool) -> Result<Self> {
        let target = match path {
            Some(path) => Target::open(path, every_token)?,
            None => Target::Stdout(BufWriter::new(std::io::stdout())),
        };
        Ok(Self { target, every_token })
    }

    /// Adds the vectors of a text: one, or one per token.
    ///
    /// # Errors
    /// If the vectors cannot be written.
    pub fn add(&mut self, row: &KeptRow, text: &str, tokens: &[String], vectors: Vec<Vec<f32>>) -> Result<()> {
        let every_token = self.every_token;
        let line = |vectors: Vec<Vec<f32>>| match every_token {
            true => json!({"text": text, "tokens": tokens, "embedding": vectors}),
            false => json!({"text": text, "embedding": vectors.first()}),
        };
        match &mut self.target {
            Target::Stdout(writer) => row.write_line(&line(vectors), writer).map_err(Error::io(STDOUT, "write")),
            Target::Lines { file, path } => row.write_line(&line(vectors), file).map_err(Error::io(&*path, "write")),
            Target::Npy { file, path, rows, width } => {
                for vector in vectors {
                    (*rows, *width) = (*rows + 1, vector.len());
                    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                    file.write_all(&bytes).map_err(Error::io(&*path, "write"))?;
                }
                Ok(())
            }
            Target::Safetensors { texts, .. } => {
                texts.push(vectors);
                Ok(())
            }
        }
    }

    /// Flushes standard output, at the end of a batch.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        match &mut self.target {
            Target::Stdout(writer) => writer.flush().map_err(Error::io(STDOUT, "write")),
            _ => Ok(()),
        }
    }

    /// Finishes the file. A matrix without rows has `empty_width` columns.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self, empty_width: usize) -> Result<()> {
        self.flush()?;
        match self.target {
            Target::Stdout(_) => Ok(()),
            Target::Lines { file, .. } => file.finish(),
            Target::Npy { mut file, path, rows, width } => {
                let header = npy_header(rows, if rows == 0 { empty_width } else { width });
                let mut write = || {
                    file.seek(SeekFrom::Start(0))?;
                    file.write_all(&header)
                };
                write().map_err(Error::io(path, "write"))?;
                file.finish()
            }
            Target::Safetensors { path, texts } => {
                let tensor = |vectors: Vec<Vec<f32>>| {
                    let shape = vec![vectors.len(), vectors.first().map_or(empty_width, Vec::len)];
                    HostTensor { shape, values: vectors.concat() }
                };
                if self.every_token {
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

impl Target {
    fn open(path: &Path, every_token: bool) -> Result<Self> {
        const EXPECTED: &str = ".jsonl, .npy or .safetensors";
        let FileKind { format, compression: None } = FileKind::of(path) else {
            return Err(FileKind::error(path, format!("{EXPECTED}, not compressed")));
        };
        match format {
            Some(Format::JsonLines) => {
                create_parent(path)?;
                Ok(Self::Lines { file: StagedFile::create(path)?, path: path.into() })
            }
            Some(Format::Npy) if every_token => Err(Error::Usage(
                "--pooling none gives texts of different lengths, which .npy cannot hold; use .jsonl or .safetensors"
                    .into(),
            )),
            Some(Format::Npy) => {
                create_parent(path)?;
                let mut file = StagedFile::create(path)?;
                file.write_all(&[0; NPY_HEADER]).map_err(Error::io(path, "write"))?;
                Ok(Self::Npy { file, path: path.into(), rows: 0, width: 0 })
            }
            Some(Format::Safetensors) => {
                create_parent(path)?;
                Ok(Self::Safetensors { path: path.into(), texts: Vec::new() })
            }
            _ => Err(FileKind::error(path, EXPECTED)),
        }
    }
}

/// Formats the header of NumPy's format 1.0: magic, version, header length, and a Python dictionary.
fn npy_header(rows: usize, width: usize) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((NPY_HEADER - 10) as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header.resize(NPY_HEADER - 1, b' ');
    header.push(b'\n');
    header
}
