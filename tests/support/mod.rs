//! Golden files, devices and comparisons, for several tests.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bert_model::device;
use burn::tensor::Device;
use safetensors::{Dtype, SafeTensors};

/// A path under `tests/golden`.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// A path in the development data beside the checkout; `None`, with a printed line, where there is none.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if !path.exists() {
        println!("skipped: {} is not on this machine", path.display());
    }
    path.exists().then_some(path)
}

/// Every backend of this build and machine: flex, ndarray (at index 1), wgpu if there is an adapter, which may be a
/// software one, and cuda, where `NVIDIA_TF32_OVERRIDE=0` makes the products of cuBLAS as exact as elsewhere.
pub fn devices() -> Vec<(&'static str, Device)> {
    let mut devices = vec![];
    for name in ["flex", "ndarray", "wgpu", "cuda"] {
        match device::select(name) {
            Ok(found) => devices.push((name, found.device)),
            Err(error) => println!("skipped: {error}"),
        }
    }
    devices
}

/// The bound of comparing `what`, given that of other backends: on CUDA the products of attention maps, which are
/// burn's own, round to tf32.
pub fn bound_on(backend: &str, what: &str, bound: f32) -> f32 {
    if backend == "cuda" && what.starts_with("attention") { bound.max(2e-3) } else { bound }
}

/// A tensor of a golden file; one of `floats` and `integers` is empty.
#[derive(Debug, Clone)]
pub struct Golden {
    pub shape: Vec<usize>,
    pub floats: Vec<f32>,
    pub integers: Vec<i64>,
}

impl Golden {
    pub fn as_i32(&self) -> Vec<i32> {
        self.integers.iter().map(|&value| value as i32).collect()
    }

    pub fn dims<const D: usize>(&self) -> [usize; D] {
        self.shape[..].try_into().unwrap()
    }
}

/// All tensors of a golden file.
pub fn read_golden(path: &Path) -> BTreeMap<String, Golden> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView)| {
        let (mut floats, mut integers) = (Vec::new(), Vec::new());
        match view.dtype() {
            Dtype::F32 => floats = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I64 => integers = view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            dtype => panic!("{name}: {dtype:?}"),
        }
        (name, Golden { shape: view.shape().to_vec(), floats, integers })
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// Asserts that all numbers are finite and differ by at most `bound`; returns the largest difference.
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], bound: f32) -> f32 {
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= bound, "{what}: differs by {worst}, more than {bound}");
    assert!(found.iter().all(|value| value.is_finite()), "{what}: not finite");
    worst
}
