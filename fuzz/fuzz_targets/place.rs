//! A temporary folder, in which each target puts the file that it attacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The folder of this process; `setup` is called once, with the folder.
pub fn folder(setup: impl FnOnce(&Path)) -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let made = || {
        let folder = TempDir::new().expect("a temporary folder");
        setup(folder.path());
        folder
    };
    FOLDER.get_or_init(made).path()
}

/// Golden files of the project, by their path under `tests/golden`.
#[allow(dead_code)]
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// Copies the files of a golden model directory.
#[allow(dead_code)]
pub fn copy_golden(name: &str, into: &Path) {
    for entry in fs::read_dir(golden(name)).expect("the golden files") {
        let path = entry.expect("an entry").path();
        if let Some(file) = path.file_name().filter(|_| path.is_file()) {
            fs::copy(&path, into.join(file)).expect("a copy");
        }
    }
}

/// Loads a golden model of which one file has been replaced.
#[allow(dead_code)]
pub fn attack_model(golden: &str, file: &str, bytes: &[u8]) {
    let folder = folder(|folder| copy_golden(golden, folder));
    fs::write(folder.join(file), bytes).expect("written");
    let device = bert_model::device::select("flex").expect("flex").device;
    check(folder, bert_model::load_partial::<bert_model::BertForPreTraining>(folder, 0, &device));
}

/// An error must name a file of the folder.
pub fn check<T>(folder: &Path, result: bert_model::Result<T>) {
    if let Err(error) = result {
        let message = error.to_string();
        assert!(message.contains(&*folder.to_string_lossy()), "no file named: {message}");
    }
}
