//! Tests with sentence-transformers directories: vectors equal those of the library, and errors name what is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::pipeline::{Builder, EmbeddingProcessor, PairScorer, TextEmbedder, Windows};
use crate::text::Tokenizer;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sentence-transformers").join(path)
}

fn goldens() -> Value {
    serde_json::from_str(&fs::read_to_string(golden("golden.json")).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A directory with the files of a golden model and the given JSON files.
fn lay_out(model: &str, files: &Value) -> TempDir {
    let directory = TempDir::new().unwrap();
    for file in fs::read_dir(golden(model)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
    }
    for (path, content) in files.as_object().unwrap() {
        write(directory.path(), path, content);
    }
    directory
}

/// Writes a JSON file, keeping other keys that the file already has.
fn write(directory: &Path, path: &str, content: &Value) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut content = content.clone();
    if let (Some(content), Ok(old)) = (content.as_object_mut(), fs::read_to_string(&path)) {
        let old: Value = serde_json::from_str(&old).unwrap();
        for (key, value) in old.as_object().unwrap() {
            content.entry(key.clone()).or_insert(value.clone());
        }
    }
    fs::write(path, content.to_string()).unwrap();
}

/// The directory of a test case.
fn case(case: &Value) -> TempDir {
    let directory = lay_out("encoder", &case["files"]);
    if let Some(name) = case["dense"].as_str() {
        let target = directory.path().join("2_Dense/model.safetensors");
        fs::copy(golden(&format!("dense-{name}.safetensors")), target).unwrap();
    }
    directory
}

fn builder() -> Builder<EmbeddingProcessor> {
    TextEmbedder::builder().device(Device::flex())
}

fn assert_close(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!((found.len(), found[0].len()), (expected.len(), expected[0].len()), "{what}");
    let differences = found.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0.0, f32::max);
    assert!(worst < 1e-5, "{what}: differs by {worst}");
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let golden = goldens();
    let texts = strings(&golden["texts"]);
    for expected in golden["cases"].as_array().unwrap() {
        let name = expected["name"].as_str().unwrap();
        let directory = case(expected);
        let encode = &expected["encode"];
        let builder = match (encode["prompt_name"].as_str(), encode["prompt"].as_str()) {
            (Some(name), _) => builder().prompt(name),
            (None, Some(text)) => builder().prompt_text(text),
            (None, None) => builder(),
        };
        let vectors: Vec<Vec<f32>> = serde_json::from_value(expected["vectors"].clone()).unwrap();
        let embedder = builder.open(directory.path()).unwrap();
        assert_close(name, &embedder.embed(&texts).unwrap(), &vectors);
        // Reading what was written gives the same settings.
        let copy = TempDir::new().unwrap();
        let tokenizer = Tokenizer::load(directory.path()).unwrap();
        save(copy.path(), embedder.description(), embedder.model(), embedder.config(), &tokenizer).unwrap();
        let again = SentenceTransformer::read(copy.path()).unwrap().unwrap();
        assert_eq!(&again, embedder.description(), "{name}");
    }
}

#[test]
fn a_builder_overrides_the_directory() {
    let golden = goldens();
    let named =
        |name: &str| golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap().clone();
    let (texts, vectors) = (strings(&golden["texts"]), |name: &str| {
        serde_json::from_value::<Vec<Vec<f32>>>(named(name)["vectors"].clone()).unwrap()
    });
    let mean = vectors("one kind: mean_tokens");
    let normalized = case(&named("normalized"));
    let embed = |builder: Builder<EmbeddingProcessor>, directory: &TempDir| {
        builder.open(directory.path()).unwrap().embed(&texts).unwrap()
    };
    assert_close("normalize", &embed(builder().normalize(false), &normalized), &mean);
    let cls = case(&named("one kind: cls_token"));
    assert_close("pooling", &embed(builder().pooling(Pooling::Mean), &cls), &mean);
    assert_close("length", &embed(builder().max_length(40), &case(&named("short"))), &mean);
    let usual = case(&named("the usual prompt"));
    assert_close("prompt", &embed(builder().prompt_text(""), &usual), &mean);
    let embedder = builder().open(usual.path()).unwrap();
    assert_close("prompt of a call", &embedder.embed_with_prompt(&texts, "").unwrap(), &mean);
    assert_eq!((embedder.similarity(), embedder.description().prompts.query()), (Similarity::Dot, "query: "));
    let error = builder().prompt("question").open(usual.path()).unwrap_err().to_string();
    assert!(error.contains("found no prompt `question`, expected one of passage, query"), "{error}");
    let dense = case(&named("dense"));
    let error = builder().layers("-2,-1".parse().unwrap()).open(dense.path()).unwrap_err().to_string();
    assert!(error.contains("the Dense module's 16 inputs does not fit vectors with 32 dimensions"), "{error}");
}

/// The vector of a text of two windows is the mean of theirs as separate texts, normalized if the directory says so.
#[test]
fn long_texts_are_embedded_in_windows() {
    let directory = lay_out("encoder", &json!({}));
    let open = |windows| builder().max_length(6).windows(windows).open(directory.path()).unwrap();
    let (first, second) = ("the cat dog river", "bank runs");
    let texts = [format!("{first} {second}"), first.to_string(), second.to_string()];
    let vectors = open(Windows::Mean).embed(&texts).unwrap();
    let mean: Vec<f32> = vectors[1].iter().zip(&vectors[2]).map(|(a, b)| (a + b) / 2.0).collect();
    assert_close("mean", &vectors[..1], &[mean]);
    let vectors = open(Windows::Max).embed(&texts).unwrap();
    let max: Vec<f32> = vectors[1].iter().zip(&vectors[2]).map(|(a, b)| a.max(*b)).collect();
    assert_close("max", &vectors[..1], &[max]);
    assert_eq!(open(Windows::Max).truncated_count(), 0);
    // The same, with a prompt in front of each window.
    let open = |windows: Option<Windows>| {
        let builder = builder().max_length(6).prompt_text("the ");
        windows.into_iter().fold(builder, |builder, windows| builder.windows(windows)).open(directory.path()).unwrap()
    };
    let whole = open(Some(Windows::Mean)).embed(&["cat dog river bank runs"]).unwrap();
    let parts = open(None).embed(&["cat dog river", "bank runs"]).unwrap();
    let mean: Vec<f32> = parts[0].iter().zip(&parts[1]).map(|(a, b)| (a + b) / 2.0).collect();
    assert_close("prompt", &whole, &[mean]);
}

#[test]
fn scores_of_cross_encoders_are_those_of_sentence_transformers() {
    let golden = goldens();
    let pairs: Vec<(String, String)> = serde_json::from_value(golden["pairs"].clone()).unwrap();
    for expected in golden["cross_encoder"].as_array().unwrap() {
        let directory = lay_out("cross-encoder", &expected["files"]);
        let scorer = PairScorer::builder().device(Device::flex()).open(directory.path()).unwrap();
        let scores: Vec<f32> = serde_json::from_value(expected["scores"].clone()).unwrap();
        assert_close(expected["name"].as_str().unwrap(), &[scorer.score(&pairs).unwrap()], &[scores]);
    }
}

/// Old directories have the encoder in a folder, and the weights of dense layers in `pytorch_model.bin`.
#[test]
fn an_encoder_in_a_folder_is_found() {
    let golden = goldens();
    let mut first = golden["cases"][2].clone();
    first["files"]["modules.json"][0]["path"] = "0_Transformer".into();
    let directory = case(&first);
    let at = directory.path();
    fs::create_dir(at.join("0_Transformer")).unwrap();
    for file in ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"] {
        fs::rename(at.join(file), at.join("0_Transformer").join(file)).unwrap();
    }
    let vectors: Vec<Vec<f32>> = serde_json::from_value(first["vectors"].clone()).unwrap();
    assert_close("folder", &builder().open(at).unwrap().embed(&strings(&golden["texts"])).unwrap(), &vectors);
}

/// Options of the tokenizer, and of its calls, take precedence over `max_seq_length`, as in the library.
#[test]
fn the_length_may_be_among_the_options_of_the_tokenizer() {
    let module =
        |path: &str, class: &str| json!({"path": path, "type": format!("sentence_transformers.models.{class}")});
    let of_tokenizer = json!({"model_max_length": 8});
    for (options, expected) in [
        (json!({"max_seq_length": 16}), 16),
        (json!({"max_seq_length": 16, "tokenizer_args": of_tokenizer}), 8),
        (json!({"max_seq_length": 16, "processor_kwargs": of_tokenizer}), 8),
        (json!({"processor_kwargs": of_tokenizer, "processing_kwargs": {"text": {"max_length": 4}}}), 4),
        (json!({"max_seq_length": 16, "processing_kwargs": {"common": {"max_length": 4}}}), 4),
    ] {
        let files = json!({
            "modules.json": [module("", "Transformer"), module("1_Pooling", "Pooling")],
            "1_Pooling/config.json": {"pooling_mode_mean_tokens": true},
            "sentence_bert_config.json": options,
        });
        let found = SentenceTransformer::read(lay_out("encoder", &files).path()).unwrap().unwrap();
        assert_eq!(found.max_length, Some(expected), "{options}");
    }
}

#[test]
fn what_cannot_be_obeyed_is_named() {
    let module =
        |place: usize, path: &str, class: &str| json!({"idx": place, "name": "x", "path": path, "type": class});
    let (transformer, pooling) = (
        module(0, "", "sentence_transformers.models.Transformer"),
        module(1, "1_Pooling", "sentence_transformers.models.Pooling"),
    );
    let mean = || json!({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": true});
    let dense =
        || json!({"in_features": 16, "out_features": 6, "activation_function": "torch.nn.modules.activation.Tanh"});
    let with = |third: Value| json!([transformer, pooling, third]);
    for (path, content, expected) in [
        (
            "modules.json",
            with(module(2, "2_LSTM", "sentence_transformers.models.LSTM")),
            "the module \"sentence_transformers.models.LSTM\" at position 2",
        ),
        (
            "modules.json",
            with(module(2, "2_X", "custom_st.Transformer")),
            "the module \"custom_st.Transformer\" at position 2",
        ),
        (
            "modules.json",
            json!([transformer]),
            "no module at position 1, expected sentence-transformers' Transformer, then Pooling",
        ),
        (
            "modules.json",
            json!([pooling, transformer]),
            "the module \"sentence_transformers.models.Pooling\" at position 0",
        ),
        (
            "modules.json",
            with(module(2, "../elsewhere", "sentence_transformers.models.Dense")),
            "`path` is \"../elsewhere\"",
        ),
        ("modules.json", json!({"a": 1}), "modules.json:1: found"),
        (
            "1_Pooling/config.json",
            json!({"pooling_mode": "median"}),
            "`pooling_mode` is \"median\", expected one or more of cls, max, mean",
        ),
        ("1_Pooling/config.json", json!({"pooling_mode_median_tokens": true}), "`pooling_mode_median_tokens` is true"),
        ("sentence_bert_config.json", json!({"transformer_task": "fill-mask"}), "`transformer_task` is \"fill-mask\""),
        (
            "2_Dense/config.json",
            json!({"in_features": 16, "out_features": 6, "activation_function": "mine.Steep"}),
            "`activation_function` is \"mine.Steep\", expected a class of torch.nn",
        ),
        (
            "2_Dense/config.json",
            json!({"in_features": 16, "out_features": 7}),
            "tensor `linear.weight`: found shape [6, 16], expected [7, 16]",
        ),
        (
            "2_Dense/config.json",
            json!({"in_features": 16, "out_features": 6, "module_input_name": "token_embeddings"}),
            "`module_input_name` is \"token_embeddings\"",
        ),
        (
            "config_sentence_transformers.json",
            json!({"default_prompt_name": "x", "prompts": {"a": "b"}}),
            "`default_prompt_name` is \"x\", expected one of the prompts: a",
        ),
        (
            "config_sentence_transformers.json",
            json!({"similarity_fn_name": "maxsim"}),
            "`similarity_fn_name` is \"maxsim\"",
        ),
        ("config_sentence_transformers.json", json!({"truncate_dim": 0}), "`truncate_dim` is 0, expected at least 1"),
    ] {
        let directory = lay_out("encoder", &json!({"1_Pooling/config.json": mean(), "2_Dense/config.json": dense()}));
        let layer = with(module(2, "2_Dense", "sentence_transformers.models.Dense"));
        fs::write(directory.path().join("modules.json"), layer.to_string()).unwrap();
        fs::copy(golden("dense-narrow.safetensors"), directory.path().join("2_Dense/model.safetensors")).unwrap();
        fs::create_dir_all(directory.path().join(path).parent().unwrap()).unwrap();
        fs::write(directory.path().join(path), content.to_string()).unwrap();
        let error = builder().open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{path}: {error}\ndoes not contain\n{expected}");
    }
}
