//! Tests of single files, shards, and their errors.

use safetensors::tensor::TensorView;
use tempfile::TempDir;

use super::*;

/// Writes tensors of two numbers each.
fn write(folder: &TempDir, file: &str, tensors: &[(&str, [f32; 2])]) -> PathBuf {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, _), bytes)| (*name, TensorView::new(Dtype::F32, vec![1, 2], bytes).unwrap()));
    let path = folder.path().join(file);
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

#[test]
fn tensors_are_found_by_their_normalized_names() {
    let folder = TempDir::new().unwrap();
    let tensors = [("bert.pooler.dense.weight", [1.0, 2.0]), ("classifier.weight", [3.0, 4.0])];
    let path = write(&folder, "model.safetensors", &tensors);
    let weights = Weights::open(folder.path()).unwrap();
    let names: Vec<String> = weights.names().map(str::to_string).collect();
    assert_eq!(names.len(), 2);
    for (name, values) in tensors {
        assert_eq!(weights.shape(name), Some(&[1, 2][..]), "{name}");
        assert_eq!(weights.read(name, &[1, 2]).unwrap().unwrap(), values, "{name}");
    }
    assert_eq!(weights.read("bert.pooler.dense.bias", &[1]).unwrap(), None);
    assert!(weights.without(&["classifier"]).names().all(|name| !name.contains("classifier")));
    let verbatim = Weights::verbatim(&path).unwrap();
    assert_eq!(verbatim.names().collect::<Vec<_>>(), ["bert.pooler.dense.weight", "classifier.weight"]);
}

#[test]
fn what_is_wrong_with_a_tensor_is_told_with_its_name() {
    let folder = TempDir::new().unwrap();
    write(&folder, "model.safetensors", &[("a", [1.0, 2.0]), ("b", [1.0, f32::NAN])]);
    let weights = Weights::open(folder.path()).unwrap();
    for (name, shape, expected) in [
        ("a", [2, 1], "found shape [1, 2], expected [2, 1]"),
        ("b", [1, 2], "found NaN at element 1, expected finite numbers"),
    ] {
        let message = weights.read(name, &shape).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("model.safetensors"), "{message}");
    }
}

#[test]
fn shards_lie_beside_their_index_and_hold_what_it_says() {
    let folder = TempDir::new().unwrap();
    write(&folder, "1.safetensors", &[("a", [1.0, 2.0])]);
    write(&folder, "2.safetensors", &[("b", [3.0, 4.0])]);
    let open = |index: &str| {
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        Weights::open(folder.path()).map_err(|error| error.to_string())
    };
    let weights = open(r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#).unwrap();
    assert_eq!(weights.read("b", &[1, 2]).unwrap().unwrap(), [3.0, 4.0]);
    for (index, expected) in [
        (r#"{"weight_map": {"a": "../1.safetensors"}}"#, "the shard name"),
        (r#"{"weight_map": {"a": "1.bin"}}"#, "the shard name"),
        (r#"{"weight_map": {"c": "1.safetensors"}}"#, "no such tensor"),
        ("{}", "an index of weight files"),
    ] {
        let message = open(index).unwrap_err();
        assert!(message.contains(expected), "{index}: {message}");
    }
}

#[test]
fn every_kind_of_number_becomes_f32() {
    assert_eq!(Number::F32.to_f32(&1.5_f32.to_le_bytes()), [1.5]);
    assert_eq!(Number::F64.to_f32(&1.5_f64.to_le_bytes()), [1.5]);
    assert_eq!(Number::F16.to_f32(&f16::from_f32(1.5).to_le_bytes()), [1.5]);
    assert_eq!(Number::Bf16.to_f32(&bf16::from_f32(1.5).to_le_bytes()), [1.5]);
}

#[test]
fn a_folder_without_weights_is_named() {
    let folder = TempDir::new().unwrap();
    let message = Weights::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("found no weights, expected model.safetensors or pytorch_model.bin"), "{message}");
    assert!(Weights::open(folder.path().join("nowhere")).unwrap_err().to_string().contains("cannot read"));
}
