//! Resolves names on the Hugging Face Hub, and shows the progress of downloads.

use std::path::{Path, PathBuf};

use bert_model::Result;

/// Returns the directory of a model: `path` itself if it exists, otherwise the model's directory in the Hub's cache,
/// after downloading any missing files. Shows the progress on stderr unless `quiet`.
///
/// # Errors
/// As [`bert_model::hub::model_directory`].
pub fn model_directory(path: &Path, quiet: bool) -> Result<PathBuf> {
    directory(path, Need::Model, quiet)
}

/// Like [`model_directory`], but for a tokenizer alone, which may also be a file.
///
/// # Errors
/// As [`model_directory`].
pub fn tokenizer_directory(path: &Path, quiet: bool) -> Result<PathBuf> {
    directory(path, Need::Tokenizer, quiet)
}

#[derive(Clone, Copy)]
enum Need {
    Model,
    Tokenizer,
}

#[cfg(feature = "hub")]
fn directory(path: &Path, need: Need, quiet: bool) -> Result<PathBuf> {
    use bert_model::hub::{Hub, HubName};
    let Some(name) = HubName::of_path(path)? else { return Ok(path.into()) };
    let hub = Hub::from_env()?;
    let hub = if quiet { hub } else { bar::shown(hub, &name) };
    match need {
        Need::Model => hub.model(&name),
        Need::Tokenizer => hub.tokenizer(&name),
    }
}

#[cfg(not(feature = "hub"))]
fn directory(path: &Path, need: Need, _quiet: bool) -> Result<PathBuf> {
    use bert_model::{Error, hub};
    let found = match need {
        Need::Model => hub::model_directory(path),
        Need::Tokenizer => hub::tokenizer_directory(path),
    };
    found.map_err(|error| match error {
        Error::Hub { name, problem: problem @ hub::HubProblem::NotBuilt, found, .. } => {
            let expected =
                "a directory; loading from the Hugging Face Hub requires a build with `--features hub`".into();
            Error::Hub { name, problem, found, expected }
        }
        other => other,
    })
}

#[cfg(feature = "hub")]
mod bar {
    use std::io::IsTerminal;
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use bert_model::hub::{Download, Hub, HubName};
    use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

    /// Time between two progress lines when stderr is not a terminal.
    const LINE_EVERY: Duration = Duration::from_secs(10);

    /// Shows downloads as a progress bar per file on a terminal, otherwise as occasional lines.
    pub fn shown(hub: Hub, name: &HubName) -> Hub {
        let (name, bar) = (name.to_string(), Mutex::new(None::<ProgressBar>));
        let (is_terminal, line) = (std::io::stderr().is_terminal(), Mutex::new(Instant::now()));
        hub.on_progress(move |download| {
            let Download { file, bytes, total, is_done, .. } = download;
            let (mut bar, mut line) = (
                bar.lock().unwrap_or_else(PoisonError::into_inner),
                line.lock().unwrap_or_else(PoisonError::into_inner),
            );
            if is_done {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                eprintln!("fetched {name}: {file}, {}", HumanBytes(bytes));
            } else if is_terminal {
                let bar = bar.get_or_insert_with(|| new_bar(file, total));
                bar.set_position(bytes);
            } else if line.elapsed() >= LINE_EVERY {
                let total = total.map_or_else(String::new, |total| format!(" of {}", HumanBytes(total)));
                eprintln!("fetching {name}: {file}, {}{total}", HumanBytes(bytes));
            } else {
                return;
            }
            *line = Instant::now();
        })
    }

    fn new_bar(file: &str, total: Option<u64>) -> ProgressBar {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let template = "fetching {prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.with_style(style).with_prefix(file.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_or_cannot_be_a_name_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path(), Path::new("./nowhere"), Path::new("a/b/c"), Path::new("/nowhere/model")] {
            assert_eq!(model_directory(path, true).unwrap(), path);
            assert_eq!(tokenizer_directory(path, true).unwrap(), path);
        }
        assert_eq!(tokenizer_directory(Path::new("vocab.txt"), true).unwrap(), Path::new("vocab.txt"));
    }
}
