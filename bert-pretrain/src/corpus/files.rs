//! Expands the arguments of `--corpus` (files, directories, glob patterns) into a list of files.
//!
//! The list is reproducible: arguments stay in order, files within a directory are sorted by the bytes of their paths,
//! and a file named twice counts once, so that no document is used for both training and evaluation.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use bert_cli::input::kind::{FileKind, Format};
use bert_cli::input::source::Input;
use bert_model::{Error, Result};
use bert_train::run_directory::is_run_directory;
use glob::MatchOptions;

/// A file of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Size on disk in bytes (compressed size, if compressed).
    pub bytes: u64,
    /// Whether the file's lines are joined into paragraphs; see
    /// [`SentenceMode::Wrapped`](super::SentenceMode::Wrapped).
    pub is_wrapped: bool,
}

impl CorpusFile {
    /// The path without links and detours, the same for all names of a file.
    pub fn real_path(&self) -> PathBuf {
        fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone())
    }
}

/// Finds all files that the arguments name, in a reproducible order.
///
/// # Errors
/// If an argument matches nothing, is not a regular file or directory, or cannot be read.
pub fn find(arguments: &[impl AsRef<Path>]) -> Result<Vec<CorpusFile>> {
    let mut files = Vec::new();
    for argument in arguments {
        expand(argument.as_ref(), &mut files)?;
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.real_path()));
    Ok(files)
}

/// Expands one argument. An existing path is taken literally, even if it looks like a pattern.
fn expand(argument: &Path, files: &mut Vec<CorpusFile>) -> Result<()> {
    match fs::metadata(argument) {
        Ok(metadata) => add_path(argument, &metadata, files),
        Err(error) => match argument.to_str() {
            Some(pattern) if error.kind() == ErrorKind::NotFound && pattern.contains(['*', '?', '[']) => {
                add_matches(pattern, files)
            }
            _ => Err(Error::io(argument, "read")(error)),
        },
    }
}

/// Expands a pattern as a shell would, but leaves out run directories, in which the run itself may be.
fn add_matches(pattern: &str, files: &mut Vec<CorpusFile>) -> Result<()> {
    let as_in_a_shell =
        MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let matches = glob::glob_with(pattern, as_in_a_shell).map_err(|error| {
        Error::file(pattern, format!("an invalid pattern: {error}"), "a pattern such as `texts/*.txt`")
    })?;
    let mut paths = Vec::new();
    for found in matches {
        paths.push(found.map_err(|error| Error::io(error.path().to_path_buf(), "read")(error.into()))?);
    }
    let is_pattern = |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let fixed = Path::new(pattern).components().take_while(|part| !is_pattern(part)).count();
    let is_found = |path: &&Path| path.components().count() > fixed;
    paths.retain(|path| !path.ancestors().take_while(is_found).any(is_run_directory));
    let (other, mut paths): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| is_other_format(path));
    if paths.is_empty() {
        other.iter().try_for_each(|path| add_path(path, &metadata(path)?, files))?;
        return Err(Error::file(pattern, "a pattern that matches nothing", "one that matches a file or a directory"));
    }
    sort_by_bytes(&mut paths);
    paths.iter().try_for_each(|path| add_path(path, &metadata(path)?, files))
}

fn add_path(path: &Path, metadata: &Metadata, files: &mut Vec<CorpusFile>) -> Result<()> {
    if metadata.is_dir() {
        return add_directory(path, files);
    }
    if is_other_format(path) {
        return Err(Input::new(path).error("text (`.txt` or any unknown extension), `.jsonl` or `.parquet`"));
    }
    if !metadata.is_file() {
        // The size of such a file is unknown, and a second epoch would find it empty.
        return Err(Error::file(path, "a pipe, socket or device", "a regular file or a directory"));
    }
    files.push(CorpusFile { path: path.to_path_buf(), bytes: metadata.len(), is_wrapped: false });
    Ok(())
}

fn add_directory(directory: &Path, files: &mut Vec<CorpusFile>) -> Result<()> {
    let mut paths = Vec::new();
    collect(directory, &mut paths)?;
    if paths.is_empty() {
        let expected = "at least one .txt or .jsonl file, which may also end in .gz or .zst, or one .parquet file";
        return Err(Error::file(directory, "a directory without corpus files", expected));
    }
    sort_by_bytes(&mut paths);
    paths.iter().try_for_each(|path| add_path(path, &metadata(path)?, files))
}

/// Collects the corpus files in and below a directory, but not those of run directories below it, whose logs and
/// vocabularies are no text, and no hidden ones, such as the copies that editors keep. Follows symbolic links to files,
/// but not to directories, which could form a cycle.
fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::io(directory, "read"))? {
        let entry = entry.map_err(Error::io(directory, "read"))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().map_err(Error::io(&path, "read"))?.is_dir() {
            if !is_run_directory(&path) {
                collect(&path, paths)?;
            }
        } else if is_corpus(&path) && !metadata(&path)?.is_dir() {
            paths.push(path);
        }
    }
    Ok(())
}

/// Whether a file has a format, judging by its name, that is not read as a corpus: a table or a single JSON value.
fn is_other_format(path: &Path) -> bool {
    FileKind::of(path).format.is_some() && !is_corpus(path) && !path.is_dir()
}

/// Whether a file in a directory belongs to the corpus, judging by its name; a file named explicitly may also have an
/// unknown extension.
fn is_corpus(path: &Path) -> bool {
    matches!(FileKind::of(path).format, Some(Format::Text | Format::JsonLines | Format::Parquet))
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::metadata(path).map_err(Error::io(path, "read"))
}

fn sort_by_bytes(paths: &mut [PathBuf]) {
    paths.sort_unstable_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A directory with these files, each containing its own name.
    fn directory(names: &[&str]) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        directory
    }

    /// The names that an argument below the directory expands to.
    fn found(directory: &TempDir, argument: &str) -> Vec<String> {
        let relative = |file: CorpusFile| file.path.strip_prefix(directory.path()).unwrap().display().to_string();
        find(&[directory.path().join(argument)]).unwrap().into_iter().map(relative).collect()
    }

    fn refusal(path: &Path) -> String {
        find(&[path]).unwrap_err().to_string()
    }

    /// Regression test: copies that an editor keeps were trained on, and tables were read as lines of text.
    #[test]
    fn hidden_files_and_files_of_other_formats_are_no_texts() {
        let texts = directory(&["a.txt", ".b.txt", ".old/c.txt", "d.csv", "e.json", "f.tsv.gz", "g.log"]);
        assert_eq!(found(&texts, ""), ["a.txt"]);
        assert_eq!(found(&texts, "*"), ["a.txt", "g.log"]);
        assert_eq!(found(&texts, ".b.txt"), [".b.txt"], "a file that is named");
        assert!(refusal(&texts.path().join("*.csv")).contains("d.csv: found the extension `csv`"));
        for (name, expected) in [("d.csv", "the extension `csv`"), ("e.json", "jq"), ("f.tsv.gz", "`tsv.gz`")] {
            assert!(refusal(&texts.path().join(name)).contains(expected), "{name}");
        }
    }

    #[test]
    fn a_directory_gives_its_corpus_files_by_the_bytes_of_their_paths() {
        let texts =
            directory(&["b.txt", "a/z.jsonl.gz", "a.txt.zst", "a/b/c.TXT", "notes.md", "B.jsonl", "x.gz", "c.parquet"]);
        let expected = ["B.jsonl", "a.txt.zst", "a/b/c.TXT", "a/z.jsonl.gz", "b.txt", "c.parquet"];
        assert_eq!(found(&texts, ""), expected);
    }

    #[test]
    fn what_a_run_below_the_directory_has_written_is_no_text() {
        let texts = directory(&["a.txt", "run/run.json", "run/vocab.txt", "begun/.lock", "begun/metrics.jsonl"]);
        assert_eq!(found(&texts, ""), ["a.txt"]);
        for pattern in ["*", "**/*.txt", "**/*"] {
            assert_eq!(found(&texts, pattern), ["a.txt"], "{pattern}");
        }
        assert_eq!(found(&texts, "run/*.txt"), ["run/vocab.txt"], "unless it is named");
        assert_eq!(found(&texts, "run/vocab.txt"), ["run/vocab.txt"], "unless it is named");
    }

    #[test]
    fn a_directory_without_any_is_refused() {
        let texts = directory(&["notes.md"]);
        let message = refusal(texts.path());
        assert!(message.contains("a directory without corpus files") && message.contains(".jsonl file"), "{message}");
    }

    #[test]
    fn a_pattern_gives_what_a_shell_would() {
        let texts = directory(&["2.txt", "1.txt", "10.txt", ".hidden.txt", "d/3.txt", "note.md"]);
        assert_eq!(found(&texts, "*.txt"), ["1.txt", "10.txt", "2.txt"]);
        assert_eq!(found(&texts, "?.txt"), ["1.txt", "2.txt"]);
        assert_eq!(found(&texts, "[d]*"), ["d/3.txt"]);
        assert_eq!(found(&texts, "no*"), ["note.md"]);
    }

    #[test]
    fn a_name_that_exists_is_no_pattern() {
        let texts = directory(&["[1].txt", "1.txt"]);
        assert_eq!(found(&texts, "[1].txt"), ["[1].txt"]);
    }

    #[test]
    fn what_matches_nothing_is_named() {
        let texts = directory(&[]);
        assert!(refusal(&texts.path().join("*.txt")).contains("*.txt: found a pattern that matches nothing"));
        assert!(refusal(&texts.path().join("a.txt")).ends_with("a.txt: cannot read: No such file or directory"));
        assert!(refusal(&texts.path().join("a[.txt")).contains("an invalid pattern"));
    }

    #[test]
    fn a_file_named_twice_counts_once() {
        let texts = directory(&["a.txt", "b.txt"]);
        let names = [texts.path().join("b.txt"), texts.path().to_path_buf(), texts.path().join("./a.txt")];
        let files = find(&names).unwrap();
        assert_eq!(files.iter().map(|file| file.path.file_name().unwrap()).collect::<Vec<_>>(), ["b.txt", "a.txt"]);
        assert_eq!(files[0].bytes, 5);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_refused() {
        assert!(refusal(Path::new("/dev/null")).contains("found a pipe, socket or device"));
    }

    #[cfg(unix)]
    #[test]
    fn links_to_files_are_followed_and_circles_are_not() {
        let texts = directory(&["a.md"]);
        std::os::unix::fs::symlink(texts.path(), texts.path().join("circle.txt")).unwrap();
        std::os::unix::fs::symlink("a.md", texts.path().join("linked.txt")).unwrap();
        assert_eq!(found(&texts, ""), ["linked.txt"]);
    }
}
