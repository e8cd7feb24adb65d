//! Reads the tensors of a checkpoint by name, from `model.safetensors` or `pytorch_model.bin`, either of which may be
//! sharded.
//!
//! Headers are read and checked first, and tensors are read one at a time on request: a file's claims about itself are
//! compared with its length before any memory is allocated for them. Safetensors files are memory-mapped, so a tensor
//! is converted to `f32` straight from the page cache.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
#[cfg(feature = "pickle")]
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::names;
use super::storage::Storage;
use crate::error::{Error, Result};
use crate::file::{check_content, read_json};

/// Maximum size of a header, in bytes; Hugging Face's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of one checkpoint, under their [normalized](names::normalized) names.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    /// Maps a requested name to a key of `entries`.
    key: fn(&str) -> String,
    entries: BTreeMap<String, Entry>,
}

/// The location of one tensor.
#[derive(Debug)]
enum Entry {
    Safetensors {
        file: Arc<Storage>,
        /// Offset in the file, in bytes.
        start: usize,
        end: usize,
        dtype: Dtype,
        shape: Vec<usize>,
    },
    #[cfg(feature = "pickle")]
    Pickle { file: Arc<Path>, tensor: Box<pytorch_reader::Tensor> },
}

/// The storage format of a number.
#[derive(Clone, Copy)]
enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

impl Weights {
    /// Opens the weights of a model directory.
    ///
    /// # Errors
    /// If there are none, or a file is truncated, malformed or inconsistent.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let candidate = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
        if let Some(path) = candidate("model.safetensors") {
            return Self::safetensors(&path);
        }
        if let Some(path) = candidate("model.safetensors.index.json") {
            return Self::sharded(&path, ".safetensors");
        }
        if let Some(path) = candidate("pytorch_model.bin") {
            let mut weights = Self::empty(&path, names::normalized);
            weights.add_pickle(&path)?;
            return Ok(weights);
        }
        if let Some(path) = candidate("pytorch_model.bin.index.json") {
            return Self::sharded(&path, ".bin");
        }
        std::fs::read_dir(directory).map_err(Error::io(directory, "read the model directory"))?;
        let expected = "model.safetensors or pytorch_model.bin, whole or in shards with an .index.json";
        Err(Error::file(directory, "no weights", expected))
    }

    /// Opens a safetensors file.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn safetensors(path: &Path) -> Result<Self> {
        Self::one_file(path, names::normalized)
    }

    /// Opens a safetensors file with arbitrary contents, whose tensor names are not normalized.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn verbatim(path: &Path) -> Result<Self> {
        Self::one_file(path, str::to_string)
    }

    /// Reads the contents of a safetensors file; owned bytes and `'static` ones (`include_bytes!`) are not copied.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let path = Path::new("model.safetensors");
        let mut weights = Self::empty(path, names::normalized);
        weights.add_safetensors(Storage::from_bytes(path, bytes.into()))?;
        Ok(weights)
    }

    fn one_file(path: &Path, key: fn(&str) -> String) -> Result<Self> {
        let mut weights = Self::empty(path, key);
        weights.add_safetensors(Storage::map(path)?)?;
        Ok(weights)
    }

    fn empty(path: &Path, key: fn(&str) -> String) -> Self {
        Self { path: path.into(), key, entries: BTreeMap::new() }
    }

    /// Opens the shards that an index names; their names must end in `extension`.
    fn sharded(index: &Path, extension: &str) -> Result<Self> {
        let shards = shards(index)?;
        let mut weights = Self::empty(index, names::normalized);
        for name in BTreeSet::from_iter(shards.values()) {
            // A shard must be in the same directory as its index; other paths are rejected.
            if name.contains(['/', '\\']) || !name.ends_with(extension) {
                let expected = format!("a {extension} file in the same directory");
                return Err(Error::file(index, format!("the shard name {name:?}"), expected));
            }
            let shard = index.with_file_name(name);
            match extension {
                ".bin" => weights.add_pickle(&shard)?,
                _ => weights.add_safetensors(Storage::map(&shard)?)?,
            }
        }
        for (tensor, shard) in &shards {
            if !weights.entries.contains_key(&names::normalized(tensor)) {
                return Err(Error::tensor(
                    index.with_file_name(shard),
                    tensor,
                    "no such tensor",
                    "the tensor that the index lists",
                ));
            }
        }
        Ok(weights)
    }

    fn add_safetensors(&mut self, file: Storage) -> Result<()> {
        let file = Arc::new(file);
        let (path, contents) = (file.path(), file.bytes());
        let not_whole = |found: String| Error::file(path, found, "a complete safetensors file");
        check_content(path, contents)?;
        let length = contents.len() as u64;
        let (start, rest) = contents.split_first_chunk().ok_or_else(|| not_whole(format!("{length} bytes")))?;
        let header_length = u64::from_le_bytes(*start);
        if header_length > MAX_HEADER_BYTES || header_length > rest.len() as u64 {
            return Err(not_whole(format!("a header of {header_length} bytes in a file of {length}")));
        }
        let header = &rest[..header_length as usize];
        let metadata: Metadata = serde_json::from_slice(header).map_err(|error| not_whole(error.to_string()))?;

        let data = header_length + 8;
        let (found, expected) = (length - data, metadata.data_len() as u64);
        if found != expected {
            return Err(not_whole(format!("{found} bytes of data where the header describes {expected}")));
        }
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry::Safetensors {
                file: Arc::clone(&file),
                start: data as usize + start,
                end: data as usize + end,
                dtype: info.dtype,
                shape: info.shape.clone(),
            };
            self.insert(path, &name, entry)?;
        }
        Ok(())
    }

    /// Adds a tensor. Two names of the same parameter (`bert.x` and `x`) are an error, since it would be ambiguous.
    fn insert(&mut self, path: &Path, name: &str, entry: Entry) -> Result<()> {
        match self.entries.insert((self.key)(name), entry) {
            None => Ok(()),
            Some(_) => Err(Error::tensor(path, name, "a second tensor for this parameter", "one")),
        }
    }

    #[cfg(feature = "pickle")]
    fn add_pickle(&mut self, path: &Path) -> Result<()> {
        let mut beginning = [0; 64];
        let mut file = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
        let length = file.read(&mut beginning).map_err(Error::io(path, "read"))?;
        check_content(path, &beginning[..length])?;
        let bad = |found: String| Error::file(path, found, "a state dict written by torch.save");
        let reader = pytorch_reader::PytorchReader::new(path).map_err(|error| bad(error.to_string()))?;
        let (file, before) = (Arc::from(path), self.entries.len());
        for (name, tensor) in reader.into_tensors() {
            self.insert(path, &name, Entry::Pickle { file: Arc::clone(&file), tensor: Box::new(tensor) })?;
        }
        if self.entries.len() == before { Err(bad("no tensor".into())) } else { Ok(()) }
    }

    #[cfg(not(feature = "pickle"))]
    fn add_pickle(&mut self, path: &Path) -> Result<()> {
        let found = "a pickle, which this build cannot read";
        Err(Error::file(path, found, "model.safetensors, or a build of bert-model with the feature `pickle`"))
    }

    /// Removes the tensors whose names begin with one of `prefixes`, such as the heads of another task.
    pub fn without(mut self, prefixes: &[&str]) -> Self {
        self.entries.retain(|name, _| !prefixes.iter().any(|prefix| name.starts_with(prefix)));
        self
    }

    /// The file or index that the tensors come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, normalized and sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The stored shape of a tensor; `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(&(self.key)(name)).map(Entry::shape)
    }

    /// Reads a tensor as `f32` values in row-major order; `None` if there is no such tensor.
    ///
    /// # Errors
    /// If the shape is not `expected`, the numbers are not floats, or one of them is not finite.
    pub fn read(&self, name: &str, expected: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.entries.get(&(self.key)(name)) else { return Ok(None) };
        let file = entry.file();
        let bad = |found: String, expected: String| Error::tensor(file, name, found, expected);
        if entry.shape() != expected {
            return Err(bad(format!("shape {:?}", entry.shape()), format!("{expected:?} (see config.json)")));
        }
        let number = entry.number().map_err(|dtype| bad(dtype, "F16, BF16, F32 or F64".into()))?;
        let bytes = entry.read().map_err(|error| bad(error, "readable data".into()))?;
        let values = number.to_f32(&bytes);
        entry.release();
        if values.len() != expected.iter().product::<usize>() {
            return Err(bad(format!("{} numbers", values.len()), format!("{expected:?}")));
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(bad(format!("{} at element {at}", values[at]), "finite numbers".into())),
            None => Ok(Some(values)),
        }
    }
}

impl Entry {
    /// The file that contains the tensor.
    fn file(&self) -> &Path {
        match self {
            Self::Safetensors { file, .. } => file.path(),
            #[cfg(feature = "pickle")]
            Self::Pickle { file, .. } => file,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Safetensors { shape, .. } => shape,
            #[cfg(feature = "pickle")]
            Self::Pickle { tensor, .. } => tensor.shape(),
        }
    }

    fn number(&self) -> Result<Number, String> {
        match self {
            Self::Safetensors { dtype: Dtype::F16, .. } => Ok(Number::F16),
            Self::Safetensors { dtype: Dtype::BF16, .. } => Ok(Number::Bf16),
            Self::Safetensors { dtype: Dtype::F32, .. } => Ok(Number::F32),
            Self::Safetensors { dtype: Dtype::F64, .. } => Ok(Number::F64),
            Self::Safetensors { dtype, .. } => Err(format!("numbers of type {dtype:?}")),
            #[cfg(feature = "pickle")]
            Self::Pickle { tensor, .. } => match tensor.dtype() {
                pytorch_reader::DType::F16 => Ok(Number::F16),
                pytorch_reader::DType::BF16 => Ok(Number::Bf16),
                pytorch_reader::DType::F32 => Ok(Number::F32),
                pytorch_reader::DType::F64 => Ok(Number::F64),
                dtype => Err(format!("numbers of type {dtype:?}")),
            },
        }
    }

    /// Releases the memory of the bytes after they have been read.
    fn release(&self) {
        match self {
            Self::Safetensors { file, start, end, .. } => file.release(*start, *end),
            #[cfg(feature = "pickle")]
            Self::Pickle { .. } => {}
        }
    }

    fn read(&self) -> Result<Cow<'_, [u8]>, String> {
        match self {
            Self::Safetensors { file, start, end, .. } => {
                let bytes = file.bytes().get(*start..*end);
                bytes.map(Cow::from).ok_or_else(|| "an offset outside of the file".to_string())
            }
            #[cfg(feature = "pickle")]
            Self::Pickle { tensor, .. } => tensor.read().map(Cow::from).map_err(|error| error.to_string()),
        }
    }
}

impl Number {
    /// Converts little-endian bytes to `f32`.
    fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
        }
        match self {
            Self::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

/// The shard of every tensor, as an index of weight files lists them.
pub(crate) fn shards(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    Ok(read_json::<Index>(index, "an index of weight files")?.weight_map)
}

#[cfg(test)]
mod tests;
