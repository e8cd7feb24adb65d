//! Names of models on the Hub, as users write them.

use std::fmt;
use std::path::Path;

use super::HubProblem;
use crate::error::{Error, Result};

/// Maximum length of each part of a repository's name, as on the Hub.
const MAX_PART: usize = 96;

/// Extensions of files in model directories. `vocab.txt` is treated as a path, although a repository could have that
/// name.
const FILE_EXTENSIONS: [&str; 6] = ["bin", "csv", "json", "jsonl", "safetensors", "txt"];

/// A model on the Hub at a revision: a branch, a tag, or a commit.
///
/// ```
/// use bert_model::hub::HubName;
///
/// let name = HubName::parse("sentence-transformers/all-MiniLM-L6-v2@v2")?.unwrap();
/// assert_eq!((name.repository(), name.revision()), ("sentence-transformers/all-MiniLM-L6-v2", "v2"));
/// assert_eq!(HubName::parse("bert-base-uncased")?.unwrap().revision(), "main");
/// assert_eq!(HubName::parse("path/to/model")?, None);
/// # Ok::<(), bert_model::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    repository: String,
    revision: String,
}

impl HubName {
    /// Parses `owner/name` or `name`, optionally followed by `@revision`. Returns `None` if the text cannot be a Hub
    /// name.
    ///
    /// # Errors
    /// If the revision after the `@` is not a valid branch, tag, or commit name.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, revision),
            None => (text, "main"),
        };
        if !is_repository(repository) {
            return Ok(None);
        }
        let name = Self { repository: repository.into(), revision: revision.into() };
        if !is_revision(revision) {
            let found = format!("the revision {revision:?}");
            return Err(name.error(HubProblem::Name, found, "a branch, a tag or a commit hash"));
        }
        Ok(Some(name))
    }

    /// Interprets a path as a Hub name, unless the path exists or has the extension of a model file.
    ///
    /// # Errors
    /// As [`HubName::parse`].
    pub fn of_path(path: &Path) -> Result<Option<Self>> {
        let is_file = path.extension().is_some_and(|found| FILE_EXTENSIONS.iter().any(|extension| found == *extension));
        match path.to_str() {
            Some(text) if !is_file && !path.exists() => Self::parse(text),
            _ => Ok(None),
        }
    }

    /// The repository: `owner/name`, or just `name` for repositories without an owner.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The revision: a branch, a tag, or a commit hash.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The commit, if the revision is a full commit hash, whose files can never change.
    pub fn commit(&self) -> Option<&str> {
        Some(&*self.revision).filter(|revision| is_commit(revision))
    }

    /// Creates an error about this model.
    pub(super) fn error(&self, problem: HubProblem, found: impl Into<String>, expected: impl Into<String>) -> Error {
        Error::Hub { name: self.to_string(), problem, found: found.into(), expected: expected.into() }
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.revision {
            "main" => f.write_str(&self.repository),
            revision => write!(f, "{}@{revision}", self.repository),
        }
    }
}

/// Whether a text is a repository name by the rules of `huggingface_hub`: one or two parts of letters, digits, `_`,
/// `-`, and `.`, neither of the last two at the start or end, no `--`, no `..`, and no final `.git`.
fn is_repository(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.len() <= MAX_PART
            && bytes.first().is_some_and(|&byte| is_word(byte))
            && bytes.last().is_some_and(|&byte| is_word(byte))
            && bytes.iter().all(|&byte| is_word(byte) || byte == b'-' || byte == b'.')
    };
    text.split('/').count() <= 2
        && text.split('/').all(is_part)
        && !text.contains("--")
        && !text.contains("..")
        && !text.ends_with(".git")
}

/// Whether a text is a valid git reference that cannot lead outside its directory.
fn is_revision(text: &str) -> bool {
    let is_bad = |character: char| character.is_control() || " ~^:?*[\\".contains(character);
    !text.is_empty()
        && text.len() <= 255
        && !text.contains(is_bad)
        && !text.contains("..")
        && !text.contains("@{")
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
        && !text.ends_with('.')
}

/// Whether a text is a full commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for (text, repository, revision) in [
            ("bert-base-uncased", "bert-base-uncased", "main"),
            ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "main"),
            ("a/b.c_d@refs/pr/1", "a/b.c_d", "refs/pr/1"),
            ("1/2@v1.0", "1/2", "v1.0"),
        ] {
            let name = HubName::parse(text).unwrap().unwrap();
            assert_eq!((name.repository(), name.revision()), (repository, revision), "{text}");
            assert_eq!(name.to_string(), text);
        }
        let long = "x".repeat(97);
        for path in ["", ".", "..", "../x", "/a/b", "./a", "a/b/c", "a//b", "a/", "/a", "~/a", "a\\b", "C:\\a"] {
            assert_eq!(HubName::parse(path).unwrap(), None, "{path}");
        }
        for path in ["a--b", "a..b", "-a/b", "a/b-", ".a", "a.", "a.git", "a/b.git", "ü/b", "a b", "@main", &long] {
            assert_eq!(HubName::parse(path).unwrap(), None, "{path}");
        }
    }

    #[test]
    fn a_revision_cannot_lead_out_of_the_cache() {
        for revision in
            ["", "../x", "a/../b", "/etc", "a/", "a//b", ".", ".hidden", "a b", "a\\b", "a:b", "x.lock", "~"]
        {
            let error = HubName::parse(&format!("owner/name@{revision}")).unwrap_err();
            assert!(matches!(error, Error::Hub { problem: HubProblem::Name, .. }), "{error}");
            assert!(error.to_string().contains("expected a branch, a tag or a commit hash"), "{error}");
        }
    }

    #[test]
    fn a_whole_commit_hash_is_a_commit() {
        let commit = |revision: &str| HubName::parse(&format!("a@{revision}")).unwrap().unwrap().commit().is_some();
        assert!(commit(&"0a".repeat(20)));
        assert!(!commit(&"0A".repeat(20)) && !commit("0a0a0a0") && !commit("main"));
    }

    #[test]
    fn what_exists_or_looks_like_a_file_is_a_path() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path(), Path::new("src"), Path::new("vocab.txt"), Path::new("models/tokenizer.json")] {
            assert_eq!(HubName::of_path(path).unwrap(), None, "{}", path.display());
        }
        assert!(HubName::of_path(Path::new("owner/name")).unwrap().is_some());
    }
}
