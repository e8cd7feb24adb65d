//! The temporary folder of a fuzz target, and what the targets share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The temporary folder of this process. The first call creates it and calls `setup` with it.
pub fn folder(setup: impl FnOnce(&Path)) -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let create = || {
        let folder = TempDir::new().expect("a temporary folder");
        setup(folder.path());
        folder
    };
    FOLDER.get_or_init(create).path()
}

/// A path under `tests/golden`.
#[allow(dead_code)]
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// Copies the files of a golden model directory into a folder.
#[allow(dead_code)]
pub fn copy_golden(name: &str, into: &Path) {
    for entry in fs::read_dir(golden(name)).expect("the golden files") {
        let path = entry.expect("an entry").path();
        if let Some(file) = path.file_name().filter(|_| path.is_file()) {
            fs::copy(&path, into.join(file)).expect("a copy");
        }
    }
}

/// Loads a golden model with one of its files replaced by `bytes`.
#[allow(dead_code)]
pub fn attack_model(golden: &str, file: &str, bytes: &[u8]) {
    let folder = folder(|folder| copy_golden(golden, folder));
    fs::write(folder.join(file), bytes).expect("written");
    let device = bert_model::device::select("flex").expect("flex").device;
    check(folder, bert_model::load_partial::<bert_model::BertForPreTraining>(folder, 0, &device));
}

/// Asserts that an error names a file in the folder.
pub fn check<T>(folder: &Path, result: bert_model::Result<T>) {
    if let Err(error) = result {
        let message = error.to_string();
        assert!(message.contains(&*folder.to_string_lossy()), "no file named: {message}");
    }
}
