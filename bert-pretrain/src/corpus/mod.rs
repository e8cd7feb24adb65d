//! Reads a corpus of any size as a stream of documents, with one in memory at a time.
//!
//! The next-sentence task draws consecutive sentences from a document. In a text file, a document is a run of lines up
//! to an empty one or the end of the file; in `.jsonl`, each line is a document, with its text under the key `text`.
//! `files` finds the files, [`bert_cli::lines`] reads their lines, `documents` groups them, `records` reads those of
//! `.jsonl` and `.parquet`, `wrapped` recognizes and joins hard-wrapped lines, and `sentences` splits text into
//! sentences.

mod documents;
mod files;
mod records;
mod sentences;
mod wrapped;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use bert_model::{Error, Result};

pub use documents::Document;
pub use files::CorpusFile;
pub use sentences::{SentenceMode, split_sentences};

/// Whether a line separates documents.
fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

/// The files of a corpus.
#[derive(Debug, Clone)]
pub struct Corpus {
    files: Vec<CorpusFile>,
}

impl Corpus {
    /// Finds the files that the arguments name: files, directories (recursively), glob patterns.
    ///
    /// # Errors
    /// If an argument matches nothing, is not a regular file or directory, or cannot be read.
    pub fn open(arguments: &[impl AsRef<Path>]) -> Result<Self> {
        Ok(Self { files: files::find(arguments)? })
    }

    /// The corpus without the files of another one. Also returns how many these are.
    ///
    /// # Errors
    /// If no file is left.
    pub fn without(mut self, other: &Self) -> Result<(Self, usize)> {
        let others: HashSet<PathBuf> = other.files.iter().map(CorpusFile::real_path).collect();
        let before = self.files.len();
        self.files.retain(|file| !others.contains(&file.real_path()));
        match (self.files.is_empty(), other.files.first()) {
            (true, Some(file)) => {
                Err(Error::file(&file.path, "the only text, for training and for evaluation", "another one for either"))
            }
            _ => {
                let left_out = before - self.files.len();
                Ok((self, left_out))
            }
        }
    }

    /// The corpus without a vocabulary that lies among its texts: the file `path`, or `vocab.txt` in this directory.
    #[must_use]
    pub fn without_vocabulary(mut self, path: &Path) -> Self {
        let own = [path.to_path_buf(), path.join("vocab.txt")].map(|path| std::fs::canonicalize(path).ok());
        self.files.retain(|file| !own.contains(&Some(file.real_path())));
        self
    }

    /// Which files are hard-wrapped, and what that implies; `None` if none is.
    pub fn wrapped_note(&self) -> Option<String> {
        let mut wrapped = self.files.iter().filter(|file| file.is_wrapped);
        let first = wrapped.next()?;
        let others = match wrapped.count() {
            0 => String::new(),
            count => format!(" and {count} other file(s)"),
        };
        Some(format!(
            "{}{others}: lines end within sentences (hard-wrapped text) and are joined up to an empty line; each file \
             is one document. --sentences unicode treats each line as a paragraph",
            first.path.display()
        ))
    }

    /// Decides for each file whether its lines are joined into paragraphs before they are split into sentences. For
    /// [`SentenceMode::Auto`], reads the beginning of each file. By default, no lines are joined.
    #[must_use]
    pub fn with_sentences(mut self, mode: SentenceMode) -> Self {
        for file in &mut self.files {
            file.is_wrapped = match mode {
                SentenceMode::Auto => documents::is_wrapped(&file.path),
                SentenceMode::Wrapped => true,
                SentenceMode::Line | SentenceMode::Unicode => false,
            };
        }
        self
    }

    /// The files, in reading order.
    pub fn files(&self) -> &[CorpusFile] {
        &self.files
    }

    /// Reads all documents from the start, in a fixed order, and stops after the first error.
    pub fn documents(&self) -> impl Iterator<Item = Result<Document>> + Send + use<> {
        documents::Documents::new(self.files.clone())
    }

    /// Refuses a corpus without documents.
    ///
    /// # Errors
    /// If `found` is 0, naming the (first) file.
    pub fn require_documents(&self, found: u64) -> Result<()> {
        match self.files.as_slice() {
            _ if found > 0 => Ok(()),
            [file] => Err(Error::file(&file.path, "no text", "at least one line of text")),
            [first, others @ ..] => {
                let found = format!("no text, and none in {} other corpus file(s)", others.len());
                Err(Error::file(&first.path, found, "at least one line of text"))
            }
            [] => Err(Error::Setting("the corpus has no files: pass some with --corpus".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_is_read_in_the_order_of_its_files_and_again_the_same() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("b.txt"), "two\n").unwrap();
        std::fs::write(directory.path().join("a.jsonl"), "{\"text\": \"one\"}\n").unwrap();
        let corpus = Corpus::open(&[directory.path()]).unwrap();
        let read = || corpus.documents().map(|document| document.unwrap()).collect::<Vec<_>>();
        let documents = read();
        assert_eq!(documents.iter().map(|document| document.lines[0].as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(documents[1].file, 1);
        assert_eq!(corpus.files()[1].bytes, 4);
        assert_eq!(read(), documents);
    }

    #[test]
    fn a_corpus_without_text_has_no_documents_and_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let name = |name: &str| directory.path().join(name);
        std::fs::write(name("a.txt"), " \n\t\r\n").unwrap();
        std::fs::write(name("b.txt"), "").unwrap();
        let both = Corpus::open(&[name("a.txt"), name("b.txt")]).unwrap();
        assert_eq!(both.documents().count(), 0);
        let message = both.require_documents(0).unwrap_err().to_string();
        assert!(message.contains("a.txt: found no text, and none in 1 other corpus file"), "{message}");
        let one = Corpus::open(&[name("b.txt")]).unwrap();
        assert!(one.require_documents(0).unwrap_err().to_string().contains("b.txt: found no text, expected"));
        assert!(one.require_documents(1).is_ok());
    }

    #[test]
    fn no_argument_gives_no_files() {
        let corpus = Corpus::open(&[] as &[&str]).unwrap();
        assert!(corpus.files().is_empty() && corpus.require_documents(0).is_err());
    }

    #[test]
    fn a_hard_wrapped_file_is_recognized_unless_the_mode_is_given() {
        let directory = tempfile::tempdir().unwrap();
        let paragraph = "It is a truth universally acknowledged, that a single man in\npossession of a good fortune, must be in \
            want of a wife. However\nlittle known the feelings or views of such a man may be on his\nfirst entering a \
            neighbourhood, this truth is so well fixed in\nthe minds of the surrounding families, that he is considered.\n\n";
        std::fs::write(directory.path().join("book.txt"), paragraph.repeat(5)).unwrap();
        let line = serde_json::json!({ "text": paragraph.repeat(5) }).to_string();
        std::fs::write(directory.path().join("books.jsonl"), line).unwrap();
        std::fs::write(
            directory.path().join("lines.txt"),
            "It rained all day. They stayed at home.\nIt was good.\n".repeat(20),
        )
        .unwrap();
        let wrapped = |mode| {
            let corpus = Corpus::open(&[directory.path()]).unwrap().with_sentences(mode);
            corpus.files().iter().map(|file| file.is_wrapped).collect::<Vec<_>>()
        };
        assert_eq!(wrapped(SentenceMode::Auto), [true, true, false]);
        assert_eq!(wrapped(SentenceMode::Unicode), [false; 3]);
        assert_eq!(wrapped(SentenceMode::Wrapped), [true; 3]);
        let corpus = Corpus::open(&[directory.path()]).unwrap().with_sentences(SentenceMode::Auto);
        assert_eq!(corpus.documents().map(|document| document.unwrap().lines.len()).collect::<Vec<_>>(), [5, 5, 40]);
    }

    #[test]
    fn what_is_held_out_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["a.txt", "b.txt"] {
            std::fs::write(path(name), "A line.\n").unwrap();
        }
        let (all, held_out) = (Corpus::open(&[directory.path()]).unwrap(), Corpus::open(&[path("./b.txt")]).unwrap());
        let (left, left_out) = all.without(&held_out).unwrap();
        assert_eq!((left.files().len(), left.files()[0].path.clone(), left_out), (1, path("a.txt"), 1));
        let message = held_out.clone().without(&held_out).unwrap_err().to_string();
        assert!(message.contains("b.txt: found the only text, for training and for evaluation"), "{message}");
    }
}
