//! The tokenized corpus on disk: random access to documents by number, in memory independent of the size of the corpus.
//!
//! The corpus is a single file: a header, the concatenated documents (number of sentences, their lengths, their
//! WordPiece ids, all little-endian `u32`), and the offset of each document. It is written once per run, under a
//! temporary name first, and reused by a resumed run if corpus, tokenizer and sentence splitting are unchanged.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bert_model::{Error, Result, Tokenizer};
use bert_train::permutation::mix;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::corpus::{self, Corpus};
use crate::corpus::{SentenceMode, split_sentences};
use crate::examples::{self, NspMode, OtherDocuments};
use crate::split::{Split, Subset};

/// Amount of text tokenized at a time, in bytes.
const BATCH_BYTES: usize = 8 << 20;
/// Number of attempts to draw a different document, as in Google's code.
const TRIES: usize = 10;

/// Counts over a tokenized corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusStats {
    /// Number of documents with at least one token.
    pub documents: u64,
    /// Number of sentences.
    pub sentences: u64,
    /// Number of tokens.
    pub tokens: u64,
    /// Number of `[UNK]` tokens.
    pub unknown: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    fingerprint: String,
    #[serde(rename = "facts")]
    stats: CorpusStats,
    offsets_at: u64,
}

/// Size of the header, in bytes, padded with zeros.
const HEADER_BYTES: u64 = 4096;

/// A tokenized corpus file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    stats: CorpusStats,
    offsets_at: u64,
}

impl Store {
    /// Tokenizes `corpus` into the file at `path`, unless that file already matches `fingerprint`.
    ///
    /// # Errors
    /// If the corpus cannot be read or has no text, or the file cannot be written.
    pub fn build(
        path: &Path,
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        mode: SentenceMode,
        fingerprint: &str,
    ) -> Result<Self> {
        if let Some(store) = Self::open(path, fingerprint) {
            return Ok(store);
        }
        let staged = path.with_extension("partial");
        let mut writer = StoreWriter::create(&staged, tokenizer.special().unk)?;
        let mut batch: Vec<corpus::Document> = Vec::new();
        let mut bytes = 0;
        for document in corpus.documents() {
            let document = document?;
            bytes += document.lines.iter().map(String::len).sum::<usize>();
            batch.push(document);
            if bytes >= BATCH_BYTES {
                writer.add_all(&batch, tokenizer, mode)?;
                batch.clear();
                bytes = 0;
            }
        }
        writer.add_all(&batch, tokenizer, mode)?;
        corpus.require_documents(writer.stats.documents)?;
        writer.finish(fingerprint)?;
        fs::rename(&staged, path).map_err(Error::io(path, "write"))?;
        Self::open(path, fingerprint).ok_or_else(|| unreadable(path))
    }

    /// Writes a copy of this store to `path`, unless it already exists. From each document, the copy omits a passage of
    /// about `share` of its sentences, at a random place; the passages follow as further documents.
    ///
    /// # Errors
    /// If this store cannot be read, or the copy cannot be written.
    pub fn with_passages_apart(
        &self,
        path: &Path,
        (share, seed): (f64, u64),
        unknown: u32,
        fingerprint: &str,
    ) -> Result<Self> {
        let fingerprint = format!("{fingerprint} {share} {seed}");
        if let Some(store) = Self::open(path, &fingerprint) {
            return Ok(store);
        }
        let staged = path.with_extension("partial");
        let mut writer = StoreWriter::create(&staged, unknown)?;
        let reader = self.reader()?;
        for takes_passage in [false, true] {
            for index in 0..self.stats.documents {
                let mut document = reader.document(index)?;
                // Never hold out a whole document.
                let count = ((document.len() as f64 * share).round() as usize).min(document.len() - 1);
                let places = (document.len() - count) as u64 + 1;
                let start = (mix(&[seed, index]) % places) as usize;
                let passage: examples::Document = document.drain(start..start + count).collect();
                writer.add(if takes_passage { &passage } else { &document }).map_err(Error::io(&staged, "write"))?;
            }
        }
        writer.finish(&fingerprint)?;
        fs::rename(&staged, path).map_err(Error::io(path, "write"))?;
        Self::open(path, &fingerprint).ok_or_else(|| unreadable(path))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the store at `path`, whatever corpus it is of.
    ///
    /// # Errors
    /// If it is not a complete store.
    pub fn open_any(path: &Path) -> Result<Self> {
        Self::open_if(path, |_| true).ok_or_else(|| Error::file(path, "an unreadable file", "a tokenized corpus"))
    }

    /// Opens the store at `path`; `None` if it is incomplete or does not match `fingerprint`.
    fn open(path: &Path, fingerprint: &str) -> Option<Self> {
        Self::open_if(path, |found| found == fingerprint)
    }

    fn open_if(path: &Path, is_expected: impl Fn(&str) -> bool) -> Option<Self> {
        let mut header = Vec::new();
        File::open(path).ok()?.take(HEADER_BYTES).read_to_end(&mut header).ok()?;
        let text = std::str::from_utf8(&header).ok()?;
        let header: Header = serde_json::from_str(text.trim_end_matches('\0')).ok()?;
        is_expected(&header.fingerprint).then(|| Self {
            path: path.into(),
            stats: header.stats,
            offsets_at: header.offsets_at,
        })
    }

    /// Counts over the corpus.
    pub fn stats(&self) -> CorpusStats {
        self.stats
    }

    /// Opens an independent reader, for use by one thread.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn reader(&self) -> Result<StoreReader> {
        let file = File::open(&self.path).map_err(Error::io(&self.path, "open"))?;
        Ok(StoreReader { file, path: self.path.clone(), offsets_at: self.offsets_at })
    }
}

fn unreadable(path: &Path) -> Error {
    Error::file(path, "an unreadable file", "the store just written")
}

/// Appends documents to a new store.
struct StoreWriter<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    /// Offsets, collected in a temporary file since there may be too many for memory.
    offsets: BufWriter<File>,
    position: u64,
    stats: CorpusStats,
    unknown: u32,
}

impl<'a> StoreWriter<'a> {
    fn create(path: &'a Path, unknown: u32) -> Result<Self> {
        let mut file = BufWriter::new(File::create(path).map_err(Error::io(path, "write"))?);
        file.write_all(&[0; HEADER_BYTES as usize]).map_err(Error::io(path, "write"))?;
        let offsets = tempfile::tempfile().map_err(Error::io(path, "create a temporary file for"))?;
        let offsets = BufWriter::new(offsets);
        Ok(Self { path, file, offsets, position: HEADER_BYTES, stats: CorpusStats::default(), unknown })
    }

    fn add_all(&mut self, batch: &[corpus::Document], tokenizer: &Tokenizer, mode: SentenceMode) -> Result<()> {
        let documents: Result<Vec<_>> = batch.par_iter().map(|document| tokenize(document, tokenizer, mode)).collect();
        for document in documents? {
            self.add(&document).map_err(Error::io(self.path, "write"))?;
        }
        Ok(())
    }

    fn add(&mut self, document: &examples::Document) -> std::io::Result<()> {
        if document.is_empty() {
            return Ok(());
        }
        let lengths = document.iter().map(|sentence| sentence.len() as u32);
        let words = std::iter::once(document.len() as u32).chain(lengths).chain(document.iter().flatten().copied());
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        self.file.write_all(&bytes)?;
        self.offsets.write_all(&self.position.to_le_bytes())?;
        self.position += bytes.len() as u64;
        self.stats.documents += 1;
        self.stats.sentences += document.len() as u64;
        self.stats.tokens += document.iter().map(|sentence| sentence.len() as u64).sum::<u64>();
        self.stats.unknown += document.iter().flatten().filter(|&&id| id == self.unknown).count() as u64;
        Ok(())
    }

    fn finish(mut self, fingerprint: &str) -> Result<()> {
        let header = Header { fingerprint: fingerprint.into(), stats: self.stats, offsets_at: self.position };
        let header = serde_json::to_vec(&header).map_err(|error| Error::Setting(error.to_string()))?;
        let mut write = || {
            self.offsets.write_all(&self.position.to_le_bytes())?;
            self.offsets.flush()?;
            let offsets = self.offsets.get_mut();
            offsets.seek(SeekFrom::Start(0))?;
            std::io::copy(offsets, &mut self.file)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        write().map_err(Error::io(self.path, "write"))
    }
}

fn tokenize(document: &corpus::Document, tokenizer: &Tokenizer, mode: SentenceMode) -> Result<examples::Document> {
    let sentences = document.lines.iter().flat_map(|line| split_sentences(line, mode));
    let pieces: Result<Vec<_>> = sentences.map(|sentence| tokenizer.pieces(sentence)).collect();
    Ok(pieces?.into_iter().filter(|pieces| !pieces.is_empty()).collect())
}

/// Reads documents by number.
#[derive(Debug)]
pub struct StoreReader {
    file: File,
    path: PathBuf,
    offsets_at: u64,
}

impl StoreReader {
    /// Reads the document with number `index`, from 0.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn document(&self, index: u64) -> Result<examples::Document> {
        let (start, end) = self.bounds(index)?;
        let bytes = self.read(start, (end - start) as usize)?;
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let damaged = || self.damaged();
        let (&sentences, rest) = words.split_first().ok_or_else(damaged)?;
        let (lengths, mut tokens) = rest.split_at_checked(sentences as usize).ok_or_else(damaged)?;
        let mut document = Vec::with_capacity(lengths.len());
        for &length in lengths {
            let (sentence, after) = tokens.split_at_checked(length as usize).ok_or_else(damaged)?;
            document.push(sentence.to_vec());
            tokens = after;
        }
        Ok(document)
    }

    /// Returns the number of tokens of a document without reading them.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn tokens(&self, index: u64) -> Result<u64> {
        let (start, end) = self.bounds(index)?;
        let sentences = self.read(start, 4)?.try_into().map(u32::from_le_bytes).map_err(|_| self.damaged())?;
        ((end - start) / 4).checked_sub(1 + u64::from(sentences)).ok_or_else(|| self.damaged())
    }

    /// Where a document starts and ends in the file.
    fn bounds(&self, index: u64) -> Result<(u64, u64)> {
        let bounds = self.read(self.offsets_at + 8 * index, 16)?;
        let bound = |at: usize| bounds[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| self.damaged());
        let (start, end) = (bound(0)?, bound(8)?);
        if start > end || end > self.offsets_at { Err(self.damaged()) } else { Ok((start, end)) }
    }

    fn damaged(&self) -> Error {
        Error::file(&self.path, "a damaged document", "a store of tokenized documents; remove the file")
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Error::io(&self.path, "read"))?;
        Ok(bytes)
    }
}

/// Draws random documents from one subset of a store, for the second segment of a pair.
#[derive(Debug)]
pub struct RandomDocuments<'a> {
    /// Reader of the store.
    pub reader: &'a StoreReader,
    /// The split of its documents.
    pub split: Split,
    /// The subset to draw from.
    pub part: Subset,
}

impl OtherDocuments for RandomDocuments<'_> {
    fn draw(&self, not: u64, mode: NspMode, rng: &mut dyn Rng) -> Result<Option<examples::Document>> {
        let count = self.split.len(self.part);
        let mut index = rng.random_range(0..count.max(1));
        for _ in 1..TRIES {
            if index != not {
                break;
            }
            index = rng.random_range(0..count);
        }
        if index == not && mode == NspMode::Balanced {
            // All tries hit the document itself: take the next one, if there is another.
            if count < 2 {
                return Ok(None);
            }
            index = (not + 1) % count;
        }
        self.reader.document(self.split.document(self.part, index)).map(Some)
    }
}
