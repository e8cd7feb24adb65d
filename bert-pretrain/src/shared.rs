//! How the ranks of a run get its data: the first one prepares it in the run directory; the others read the same files
//! if they see them, and otherwise receive copies in a temporary directory.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bert_model::{BertConfig, Error, Result, Tokenizer};
use bert_train::{Communicator, Patience};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::prepare::{PreparedData, held_out_examples};
use crate::settings::PretrainSettings;
use crate::split::Split;
use crate::store::Store;

/// Size of the pieces in which files are copied.
const PIECE_BYTES: usize = 16 << 20;

/// What the first rank tells the others about a prepared run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Announcement {
    tokenizer: String,
    /// The tokenized corpus.
    store: StoreFile,
    /// The tokenized evaluation corpus.
    eval_store: Option<StoreFile>,
    split: Split,
    unigram_loss: Option<f64>,
    fingerprint: String,
    /// The completed settings of the run.
    pub settings: PretrainSettings,
    /// The configuration of the model.
    pub config: BertConfig,
    /// The number of steps.
    pub steps: u64,
    /// The settings and data that a resumed run must share.
    pub numbers: Value,
}

/// A file of a tokenized corpus.
#[derive(Debug, Serialize, Deserialize)]
struct StoreFile {
    path: PathBuf,
    bytes: u64,
    /// Hash of the beginning of the file, which contains the hash of the corpus.
    start_sha256: String,
}

impl Announcement {
    /// Describes a run that the first rank has prepared.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn new(
        settings: PretrainSettings,
        data: &PreparedData,
        config: &BertConfig,
        steps: u64,
        numbers: &Value,
    ) -> Result<Self> {
        Ok(Self {
            tokenizer: data.tokenizer.to_json()?,
            store: StoreFile::describe(data.store.path())?,
            eval_store: data.eval_store.as_ref().map(|store| StoreFile::describe(store.path())).transpose()?,
            split: data.split,
            unigram_loss: data.unigram_loss,
            fingerprint: data.fingerprint.clone(),
            settings,
            config: config.clone(),
            steps,
            numbers: numbers.clone(),
        })
    }
}

/// Gives every rank the data that the first one has prepared. The others use `directory` for files that they do not
/// see.
///
/// # Errors
/// If a file cannot be read or written, or the connection fails.
pub fn share_data(
    communicator: &dyn Communicator,
    data: Option<PreparedData>,
    announcement: &Announcement,
    directory: &Path,
) -> Result<PreparedData> {
    let files = [Some(&announcement.store), announcement.eval_store.as_ref()].into_iter().flatten();
    let paths = files.map(|file| file.share(communicator, directory)).collect::<Result<Vec<_>>>()?;
    if let Some(data) = data {
        return Ok(data);
    }
    let tokenizer = Tokenizer::from_bytes(announcement.tokenizer.as_bytes())?;
    let mut stores = paths.iter().map(|path| Store::open_any(path));
    let missing = || Error::file(directory, "no tokenized corpus", "that of the first rank");
    let store = stores.next().ok_or_else(missing)??;
    let eval_store = stores.next().transpose()?;
    let split = announcement.split;
    let held_out = held_out_examples(&announcement.settings, &tokenizer, &store, eval_store.as_ref(), split)?;
    Ok(PreparedData {
        tokenizer,
        store,
        eval_store,
        split,
        held_out,
        unigram_loss: announcement.unigram_loss,
        facts: Value::Null,
        fingerprint: announcement.fingerprint.clone(),
    })
}

impl StoreFile {
    fn describe(path: &Path) -> Result<Self> {
        // Ranks may have another current directory.
        let path = std::path::absolute(path).map_err(Error::io(path, "find"))?;
        let mut start = Vec::new();
        let read = File::open(&path).and_then(|file| {
            file.take(4096).read_to_end(&mut start)?;
            std::fs::metadata(&path)
        });
        let bytes = read.map_err(Error::io(&path, "read"))?.len();
        let start_sha256 = Sha256::digest(&start).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path, bytes, start_sha256 })
    }

    /// Whether this rank sees the file.
    fn is_here(&self) -> bool {
        Self::describe(&self.path)
            .is_ok_and(|own| (own.bytes, own.start_sha256) == (self.bytes, self.start_sha256.clone()))
    }

    /// The path of the file on this rank, to which the first one sends it if necessary.
    fn share(&self, communicator: &dyn Communicator, directory: &Path) -> Result<PathBuf> {
        if communicator.size() == 1 {
            return Ok(self.path.clone());
        }
        let is_here = communicator.is_first() || self.is_here();
        let all = communicator.gather(&[u8::from(is_here)], Patience::Unlimited)?;
        let receivers: Vec<usize> = (0..all.len()).filter(|&rank| all[rank] == [0]).collect();
        if receivers.is_empty() || is_here && !communicator.is_first() {
            return Ok(self.path.clone());
        }
        let name = self.path.file_name().unwrap_or_default();
        let (path, is_sent) = match communicator.is_first() {
            true => (self.path.clone(), true),
            false => (directory.join(name), false),
        };
        let file = if is_sent { File::open(&path) } else { File::create(&path) };
        let mut file = file.map_err(Error::io(&path, "open"))?;
        let mut left = self.bytes;
        let mut piece = vec![0; PIECE_BYTES];
        while left > 0 {
            let piece = &mut piece[..left.min(PIECE_BYTES as u64) as usize];
            left -= piece.len() as u64;
            if is_sent {
                file.read_exact(piece).map_err(Error::io(&path, "read"))?;
                let send: Vec<(usize, &[u8])> = receivers.iter().map(|&rank| (rank, &piece[..])).collect();
                communicator.exchange(&send, Vec::new(), Patience::Limited)?;
            } else {
                communicator.exchange(&[], vec![(0, &mut piece[..])], Patience::Limited)?;
                file.write_all(piece).map_err(Error::io(&path, "write"))?;
            }
        }
        Ok(path)
    }
}
