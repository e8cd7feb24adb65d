//! The tokenized corpus, on disk: any document can be read by its number, and memory stays small however large the
//! corpus is.
//!
//! One file: a header, the documents behind each other (number of sentences, their lengths, their WordPiece ids, all
//! little-endian `u32`), and the offset of each document. It is written once for a run, beside its final name first, and
//! read again by a resumed run if the corpus, the tokenizer and the way of splitting are the same.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bert_model::{Error, Result, Tokenizer};
use bert_train::permutation::Permutation;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::corpus::{self, Corpus};
use crate::corpus::{SentenceMode, split_sentences};
use crate::examples::{self, NspMode, OtherDocuments};

/// Documents that are tokenized together.
const BATCH_BYTES: usize = 8 << 20;
/// Google's number of tries to hit another document.
const TRIES: usize = 10;

/// What a corpus turned out to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusStats {
    /// Documents with at least one token.
    pub documents: u64,
    /// Sentences in them.
    pub sentences: u64,
    /// WordPieces in them.
    pub tokens: u64,
    /// Of these, `[UNK]`.
    pub unknown: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    fingerprint: String,
    #[serde(rename = "facts")]
    stats: CorpusStats,
    offsets_at: u64,
}

/// Bytes that the header may take.
const HEADER_BYTES: u64 = 4096;

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    stats: CorpusStats,
    offsets_at: u64,
}

impl Store {
    /// Tokenizes `corpus` into the file at `path`, unless the file already holds just that.
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
        Self::open(path, fingerprint).ok_or_else(|| Error::file(path, "an unreadable file", "the store just written"))
    }

    /// The store at `path`, if it is whole and holds what `fingerprint` stands for.
    fn open(path: &Path, fingerprint: &str) -> Option<Self> {
        let mut header = Vec::new();
        File::open(path).ok()?.take(HEADER_BYTES).read_to_end(&mut header).ok()?;
        let text = std::str::from_utf8(&header).ok()?;
        let header: Header = serde_json::from_str(text.trim_end_matches('\0')).ok()?;
        let is_same = header.fingerprint == fingerprint;
        is_same.then(|| Self { path: path.into(), stats: header.stats, offsets_at: header.offsets_at })
    }

    /// What the corpus turned out to be.
    pub fn stats(&self) -> CorpusStats {
        self.stats
    }

    /// A reader of its own, for one thread.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn reader(&self) -> Result<StoreReader> {
        let file = File::open(&self.path).map_err(Error::io(&self.path, "open"))?;
        Ok(StoreReader { file, path: self.path.clone(), offsets_at: self.offsets_at })
    }
}

/// Writes documents one after the other.
struct StoreWriter<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    /// Offsets wait in a file of their own: there may be too many for memory.
    offsets: BufWriter<File>,
    position: u64,
    stats: CorpusStats,
    unknown: u32,
}

impl<'a> StoreWriter<'a> {
    fn create(path: &'a Path, unknown: u32) -> Result<Self> {
        let mut file = BufWriter::new(File::create(path).map_err(Error::io(path, "write"))?);
        file.write_all(&[0; HEADER_BYTES as usize]).map_err(Error::io(path, "write"))?;
        let offsets = tempfile::tempfile().map_err(Error::io(path, "make a temporary file for"))?;
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

/// Reads documents by their number.
#[derive(Debug)]
pub struct StoreReader {
    file: File,
    path: PathBuf,
    offsets_at: u64,
}

impl StoreReader {
    /// The document with number `index`, counted from 0.
    ///
    /// # Errors
    /// If the file cannot be read or has been tampered with.
    pub fn document(&self, index: u64) -> Result<examples::Document> {
        let damaged =
            || Error::file(&self.path, "a damaged document", "a store of tokenized documents; remove the file");
        let bounds = self.read(self.offsets_at + 8 * index, 16)?;
        let bound = |at: usize| bounds[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| damaged());
        let (start, end) = (bound(0)?, bound(8)?);
        if start > end || end > self.offsets_at {
            return Err(damaged());
        }
        let bytes = self.read(start, (end - start) as usize)?;
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
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

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Error::io(&self.path, "read"))?;
        Ok(bytes)
    }
}

/// Which documents are trained on and which are held out; a document is never both.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    documents: u64,
    held_out: u64,
    order: Permutation,
}

impl Split {
    /// Holds out `share` of the documents, at least one if there are two and the share is not 0.
    pub fn new(documents: u64, share: f64, seed: u64) -> Self {
        let held_out = if share > 0.0 { ((documents as f64 * share).round() as u64).max(1) } else { 0 };
        let held_out = held_out.min(documents.saturating_sub(1));
        Self { documents, held_out, order: Permutation::new(documents, seed) }
    }

    /// Number of documents of a part.
    pub fn len(&self, part: Subset) -> u64 {
        match part {
            Subset::Training => self.documents - self.held_out,
            Subset::HeldOut => self.held_out,
        }
    }

    /// The number in the store of document `index` of a part.
    pub fn document(&self, part: Subset, index: u64) -> u64 {
        match part {
            Subset::Training => self.order.apply(self.held_out + index),
            Subset::HeldOut => self.order.apply(index),
        }
    }
}

/// One of the two parts of a [`Split`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subset {
    /// What the model learns from.
    Training,
    /// What it is judged by.
    HeldOut,
}

/// Random documents of one part of a store, for the second segment of a pair.
#[derive(Debug)]
pub struct RandomDocuments<'a> {
    /// Where the documents are.
    pub reader: &'a StoreReader,
    /// The split.
    pub split: Split,
    /// The part that is drawn from.
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
            // Ten misses in a row: the neighbor, unless there is none.
            if count < 2 {
                return Ok(None);
            }
            index = (not + 1) % count;
        }
        self.reader.document(self.split.document(self.part, index)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_split_are_disjoint_and_complete() {
        let split = Split::new(500, 0.1, 7);
        let part = |part| (0..split.len(part)).map(move |index| split.document(part, index)).collect::<Vec<_>>();
        let (training, held_out) = (part(Subset::Training), part(Subset::HeldOut));
        assert_eq!((training.len(), held_out.len()), (450, 50));
        let mut all = [training, held_out].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..500));
    }

    #[test]
    fn a_little_corpus_keeps_something_on_both_sides() {
        let lens = |documents, share| {
            let split = Split::new(documents, share, 1);
            (split.len(Subset::Training), split.len(Subset::HeldOut))
        };
        assert_eq!(lens(1, 0.02), (1, 0));
        assert_eq!(lens(2, 0.02), (1, 1));
        assert_eq!(lens(10, 0.0), (10, 0));
    }
}
