//! Tests of every pipeline on the golden models: answers equal the model's outputs for the same tokens, in the order of
//! the requests, whatever else is in the batch.

use std::fs;
use std::path::PathBuf;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};

use super::tags::TagScheme;
use super::*;
use crate::error::Error;
use crate::model::{BertForMaskedLM, BertForNextSentencePrediction, BertForSequenceClassification};
use crate::pretrained::load_weights;
use crate::text::tokenizer::Normalization;
use crate::text::{Tokenizer, collate};

/// Texts of several lengths, made of words in the vocabulary.
const TEXTS: [&str; 4] = ["word7", "word9 word8 word7 word30 word31", "", "word12 word13"];

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/models/gelu-odd").join(path)
}

/// A tokenizer with the words `word5`, `word6`, …
fn tokenizer() -> Tokenizer {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
    let pieces: Vec<String> = special.into_iter().chain((5..67).map(|id| format!("word{id}"))).collect();
    Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap()
}

/// The `config.json`, weights and `tokenizer.json` of a golden head.
fn parts(head: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let read = |file: String| fs::read(golden("heads").join(file)).unwrap();
    let config = read(format!("{head}.config.json"));
    (config, read(format!("{head}.safetensors")), tokenizer().to_json().unwrap().into_bytes())
}

fn pipeline<P: FromCheckpoint>(builder: Builder<P>, head: &str) -> Pipeline<P> {
    let (config, weights, tokenizer) = parts(head);
    builder.device(Device::flex()).from_bytes(&config, weights, &tokenizer).unwrap()
}

fn sequence(text: &str, pair: Option<&str>) -> Sequence {
    Sequence::from(&tokenizer().encode(text, pair).unwrap())
}

fn close(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn embeddings_are_the_means_of_hidden_states_whatever_stands_beside_them() {
    let embedder = pipeline(TextEmbedder::builder(), "BertForMaskedLM");
    let vectors = embedder.embed(&TEXTS).unwrap();
    for (text, vector) in TEXTS.iter().zip(&vectors) {
        let hidden = embedder.model().bert.encode(collate(&[&sequence(text, None)], 0, &Device::flex()));
        let mean: Vec<f32> = hidden.mean_dim(1).into_data().iter::<f32>().collect();
        assert!(close(vector, &mean), "{text:?}");
    }
    let tokens = embedder.embed_tokens(&TEXTS).unwrap();
    let mixed = TEXTS.iter().flat_map(|text| [EmbeddingRequest::text(text), EmbeddingRequest::tokens(text)]);
    let mixed = embedder.run(&mixed.collect::<Vec<_>>()).unwrap();
    for ((pair, vector), tokens) in mixed.chunks(2).zip(&vectors).zip(&tokens) {
        assert!(close(&pair[0].vectors.concat(), vector) && pair[0].tokens.is_empty());
        assert!(close(&pair[1].vectors.concat(), &tokens.vectors.concat()) && pair[1].tokens == tokens.tokens);
    }
    assert_eq!(tokens[0].tokens, ["[CLS]", "word7", "[SEP]"]);
    assert_eq!(tokens[1].vectors.len(), 7);
    let none: [&str; 0] = [];
    assert!(embedder.embed(&none).unwrap().is_empty());

    let layers = Layers::new([-1, 0]);
    let wide = pipeline(TextEmbedder::builder().layers(layers).normalize(true), "BertForMaskedLM");
    let vectors = wide.embed(&TEXTS).unwrap();
    assert_eq!(vectors[0].len(), 48);
    assert!(vectors.iter().all(|vector| (vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5));
    for pooling in [Pooling::Cls, Pooling::Max] {
        assert_eq!(
            pipeline(TextEmbedder::builder().pooling(pooling), "BertForMaskedLM").embed(&["word5"]).unwrap().len(),
            1
        );
    }
}

#[test]
fn a_pooler_that_is_not_there_is_named() {
    let (config, weights, tokenizer) = parts("BertForMaskedLM");
    let builder = TextEmbedder::builder().pooling(Pooling::Pooler).device(Device::flex());
    let error = builder.from_bytes(&config, weights, &tokenizer).unwrap_err();
    assert!(error.to_string().contains("no tensor `pooler.dense.weight`"), "{error}");
    let pooler = pipeline(TextEmbedder::builder().pooling(Pooling::Pooler), "BertForSequenceClassification");
    assert_eq!(pooler.embed(&["word5"]).unwrap()[0].len(), 24);
}

#[test]
fn classes_are_softmax_of_the_scores() {
    let classifier = pipeline(TextClassifier::builder(), "BertForSequenceClassification");
    let found = classifier.classify(&TEXTS).unwrap();
    let (_, weights, _) = parts("BertForSequenceClassification");
    let weights = Weights::from_bytes(weights).unwrap();
    let loaded = load_weights(&weights, classifier.config().clone(), &Device::flex()).unwrap();
    let model: BertForSequenceClassification = loaded.model;
    for (text, found) in TEXTS.iter().zip(&found) {
        let logits = model.forward(collate(&[&sequence(text, None)], 0, &Device::flex()));
        let expected: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
        assert!(close(&found.scores, &expected), "{text:?}");
        let best = argmax(&expected);
        assert_eq!(found.label, classifier.labels()[best]);
        assert!((found.score - expected[best]).abs() < 1e-5);
    }
    let pairs = classifier.classify_pairs(&[("word5", "word6"), ("word6", "word5")]).unwrap();
    assert_ne!(pairs[0].scores, pairs[1].scores);
}

#[test]
fn labels_by_themselves_and_values() {
    let several = pipeline(TextClassifier::builder(), "BertForSequenceClassification-multi_label");
    let found = several.classify(&TEXTS).unwrap();
    assert!(found.iter().all(|answer| answer.scores.iter().all(|score| (0.0..=1.0).contains(score))));
    assert!(found.iter().any(|answer| (answer.scores.iter().sum::<f32>() - 1.0).abs() > 1e-3));
    let value = pipeline(TextClassifier::builder(), "BertForSequenceClassification-regression");
    let found = value.classify(&["word5"]).unwrap();
    assert_eq!((found[0].scores.len(), found[0].scores[0]), (1, found[0].score));
}

#[test]
fn what_is_too_long_is_cut_or_refused() {
    let classifier = pipeline(TextClassifier::builder().max_length(6), "BertForSequenceClassification");
    let long = classifier.classify(&["word5 word6 word7 word8 word9 word10"]).unwrap();
    assert_eq!(long, classifier.classify(&["word5 word6 word7 word8"]).unwrap());
    assert_eq!(classifier.truncated_count(), 1);
    let filler = pipeline(MaskFiller::builder().max_length(6), "BertForMaskedLM");
    let error = filler.fill("word5 word6 word7 word8 word9 [MASK]", 1).unwrap_err();
    assert!(matches!(error, Error::TooLong { tokens: 8, limit: 6 }), "{error}");
    let (config, weights, tokenizer) = parts("BertForMaskedLM");
    let builder = MaskFiller::builder().device(Device::flex()).max_length(100_000);
    let error = builder.from_bytes(&config, weights, &tokenizer).unwrap_err().to_string();
    assert!(error.contains("a maximum length of 100000 tokens does not fit a model with 19 positions"), "{error}");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let (config, weights, tokenizer) = parts("BertForMaskedLM");
    let spoiled = |bytes: &[u8]| bytes.iter().map(|&byte| if byte == b'm' { 0xff } else { byte }).collect::<Vec<u8>>();
    for (config, tokenizer) in [(spoiled(&config), tokenizer.clone()), (config.clone(), spoiled(&tokenizer))] {
        let error = MaskFiller::from_bytes(&config, weights.clone(), &tokenizer).unwrap_err().to_string();
        assert!(error.contains("expected UTF-8"), "{error}");
    }
}

#[test]
fn every_word_has_a_tag_and_entities_stand_where_they_are() {
    let builder = TokenClassifier::builder().scheme(TagScheme::Plain).max_length(8);
    let tagger = pipeline(builder, "BertForTokenClassification");
    let long = "word5 word6  word7 ".repeat(9);
    let found = tagger.tag(&["word5, word6", &long, ""]).unwrap();
    assert_eq!(found[0].words.iter().collect::<Vec<_>>(), ["word5", ",", "word6"]);
    assert_eq!((found[1].tags.len(), found[1].scores.len(), found[2].tags.len()), (27, 27, 0));
    let letters: Vec<char> = long.chars().collect();
    for entity in &found[1].entities {
        assert_eq!(entity.text, letters[entity.start..entity.end].iter().collect::<String>());
    }
    let words = vec!["word5".to_string(), "word6".to_string()];
    assert_eq!(tagger.tag_words(&[words]).unwrap()[0].tags, tagger.tag(&["word5 word6"]).unwrap()[0].tags);
}

#[test]
fn answers_stand_in_the_text_and_windows_read_all_of_it() {
    let answerer =
        pipeline(QuestionAnswerer::builder().max_length(12).stride(3).candidates(4), "BertForQuestionAnswering");
    let text = (5..60).map(|id| format!("wörd word{id} ")).collect::<String>();
    let found = answerer.answer(&[("word5 word6", text.as_str()), ("word7", "word8"), ("word7", "")]).unwrap();
    let letters: Vec<char> = text.chars().collect();
    assert_eq!(found[0].text, letters[found[0].start..found[0].end].iter().collect::<String>());
    assert_eq!(found[0].candidates.len(), 4);
    assert_eq!((found[0].candidates[0].start, found[0].candidates[0].score), (found[0].start, found[0].score));
    assert_eq!((found[1].text.as_str(), found[2].text.as_str()), ("word8", ""));
    let builder = QuestionAnswerer::builder().no_answer_threshold(f64::NEG_INFINITY);
    let cautious = pipeline(builder, "BertForQuestionAnswering");
    assert_eq!(cautious.answer(&[("word7", "word8")]).unwrap()[0].text, "");
}

#[test]
fn masks_are_filled_as_the_model_says() {
    let filler = pipeline(MaskFiller::builder(), "BertForMaskedLM");
    let texts = ["word5 [MASK] word6 [MASK]", "[MASK]"];
    let filled = filler.fill_all(&texts, 3).unwrap();
    assert_eq!(filled[0].masks.iter().map(|mask| mask.position).collect::<Vec<_>>(), [2, 4]);
    let (_, weights, _) = parts("BertForMaskedLM");
    let weights = Weights::from_bytes(weights).unwrap();
    let model: BertForMaskedLM = load_weights(&weights, filler.config().clone(), &Device::flex()).unwrap().model;
    let input = collate(&[&sequence(texts[0], None)], 0, &Device::flex());
    let logits = model.forward(input, Tensor::<1, Int>::from_data([2, 4], &Device::flex()));
    let probabilities: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
    for (mask, row) in filled[0].masks.iter().zip(probabilities.chunks(67)) {
        assert_eq!(mask.predictions.len(), 3);
        assert_eq!(mask.predictions[0].id as usize, argmax(row));
        assert!((mask.predictions[0].probability - f64::from(row[argmax(row)])).abs() < 1e-5);
    }
    assert!(filler.fill("word5", 3).unwrap_err().to_string().contains("found no [MASK]"));
}

#[test]
fn pairs_are_scored_by_either_head() {
    let pairs = [("word5", "word6"), ("word6 word7 word8", "word5"), ("", "word9")];
    let open = |head: &str| {
        let (config, weights, tokenizer) = parts(head);
        PairScorer::builder().device(Device::flex()).from_bytes(&config, weights, &tokenizer)
    };
    let scorer = open("BertForNextSentencePrediction").unwrap();
    let scores = scorer.score(&pairs).unwrap();
    let (_, weights, _) = parts("BertForNextSentencePrediction");
    let weights = Weights::from_bytes(weights).unwrap();
    let loaded = load_weights(&weights, scorer.config().clone(), &Device::flex()).unwrap();
    let model: BertForNextSentencePrediction = loaded.model;
    for ((first, second), score) in pairs.iter().zip(&scores) {
        let logits = model.forward(collate(&[&sequence(first, Some(second))], 0, &Device::flex()));
        let expected: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
        assert!((score - expected[0]).abs() < 1e-5);
    }
    let classifier = pipeline(TextClassifier::builder(), "BertForSequenceClassification-regression");
    let logits: Vec<f32> = classifier.classify_pairs(&pairs).unwrap().iter().map(|answer| answer.score).collect();
    let sigmoid: Vec<f32> = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    assert!(close(&open("BertForSequenceClassification-regression").unwrap().score(&pairs).unwrap(), &sigmoid));
    let (config, weights, tokenizer) = parts("BertForSequenceClassification-regression");
    let with = |key: &str| String::from_utf8(config.clone()).unwrap().replacen('{', &format!("{{{key},"), 1);
    let score = |key: &str| PairScorer::from_bytes(with(key).as_bytes(), weights.clone(), &tokenizer);
    for key in [
        r#""sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}"#,
        r#""sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity""#,
    ] {
        assert!(close(&score(key).unwrap().score(&pairs).unwrap(), &logits), "{key}");
    }
    let error = score(r#""sentence_transformers": {"activation_fn": "mine.Steep"}"#).unwrap_err().to_string();
    assert!(
        error.contains("`sentence_transformers.activation_fn` is \"mine.Steep\", expected a class of torch.nn"),
        "{error}"
    );
    let error = open("BertForSequenceClassification").unwrap_err().to_string();
    assert!(error.contains("found a classifier with 3 labels, expected a next-sentence head"), "{error}");
}

#[test]
fn choices_are_probabilities_of_any_number_of_texts() {
    let chooser = pipeline(MultipleChoice::builder(), "BertForMultipleChoice");
    let questions = [("word5", vec!["word6", "word7 word8"]), ("word9 word10", vec!["word6", "word6", "word6"])];
    let found = chooser.choose(&questions).unwrap();
    assert_eq!((found[0].probabilities.len(), found[1].probabilities.len()), (2, 3));
    for choice in &found {
        assert!((choice.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(choice.index, argmax(&choice.probabilities));
    }
    let nothing: [(&str, Vec<&str>); 1] = [("word5", vec![])];
    assert!(chooser.choose(&nothing).unwrap_err().to_string().contains("found no choice"));
}

#[test]
fn a_directory_says_how_its_head_is_used_and_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let (config, weights, tokenizer) = parts("BertForQuestionAnswering");
    for (file, bytes) in [("config.json", &config), ("model.safetensors", &weights), ("tokenizer.json", &tokenizer)] {
        fs::write(directory.path().join(file), bytes).unwrap();
    }
    let open = || QuestionAnswerer::builder().device(Device::flex()).open(directory.path());
    assert_eq!(open().unwrap().processor().no_answer_threshold(), None);
    let usage = r#"{"task": "question-answering", "max_seq_len": 16, "doc_stride": 4, "no_answer_threshold": 1.5}"#;
    fs::write(directory.path().join("finetune.json"), usage).unwrap();
    assert_eq!(open().unwrap().processor().no_answer_threshold(), Some(1.5));
    let open = || TextClassifier::builder().device(Device::flex()).open(directory.path()).unwrap_err();
    let error = open().to_string();
    assert!(error.contains("`architectures` is BertForQuestionAnswering, expected BertForSequence"), "{error}");
    let config =
        String::from_utf8(config).unwrap().replace("BertForQuestionAnswering", "BertForSequenceClassification");
    fs::write(directory.path().join("config.json"), config).unwrap();
    let Error::MissingTensors { tensors, .. } = open() else { panic!("loaded") };
    assert!(tensors.iter().any(|name| name == "classifier.weight"), "{tensors:?}");
    assert!(std::error::Error::source(&TextEmbedder::open("./nowhere").unwrap_err()).is_some());
}

/// The answers of a pipeline in single precision and in another one, as floats.
fn in_both<P: FromCheckpoint>(
    precision: Precision,
    head: &str,
    answer: impl Fn(&Pipeline<P>) -> Vec<f32>,
) -> [Vec<f32>; 2] {
    let pipelines =
        [Precision::F32, precision].map(|precision| pipeline(Builder::default().precision(precision), head));
    pipelines.each_ref().map(answer)
}

#[test]
fn every_pipeline_computes_in_every_precision() {
    let text = "word7 word5 word9 word13 word40";
    for precision in [Precision::Bf16, Precision::Int8] {
        let answers = [
            in_both(precision, "BertForMaskedLM", |embedder: &TextEmbedder| embedder.embed(&[text]).unwrap().concat()),
            in_both(precision, "BertForSequenceClassification", |classifier: &TextClassifier| {
                classifier.classify(&[text]).unwrap()[0].scores.clone()
            }),
            in_both(precision, "BertForTokenClassification", |tagger: &TokenClassifier| {
                tagger.tag(&[text]).unwrap()[0].scores.clone()
            }),
            in_both(precision, "BertForQuestionAnswering", |answerer: &QuestionAnswerer| {
                vec![answerer.answer(&[("word6", text)]).unwrap()[0].score as f32]
            }),
            in_both(precision, "BertForMultipleChoice", |chooser: &MultipleChoice| {
                chooser.choose(&[(text, vec!["word5", "word6"])]).unwrap()[0].probabilities.clone()
            }),
            in_both(precision, "BertForMaskedLM", |filler: &MaskFiller| {
                let filled = filler.fill_all(&["word7 [MASK] word5"], 67).unwrap();
                let mut predictions = filled[0].masks[0].predictions.clone();
                predictions.sort_by_key(|prediction| prediction.id);
                predictions.iter().map(|prediction| prediction.probability as f32).collect()
            }),
        ];
        for (number, [single, rounded]) in answers.iter().enumerate() {
            assert_eq!(single.len(), rounded.len());
            let worst = single.iter().zip(rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(0.0 < worst && worst < 0.5, "{precision}, pipeline {number}: {single:?} and {rounded:?}");
        }
        let (config, weights, tokenizer) = parts("BertForNextSentencePrediction");
        let scores = [Precision::F32, precision].map(|precision| {
            let builder = PairScorer::builder().device(Device::flex()).precision(precision);
            builder.from_bytes(&config, weights.clone(), &tokenizer).unwrap().score(&[("word5", text)]).unwrap()[0]
        });
        assert!(scores[0] != scores[1] && (scores[0] - scores[1]).abs() < 0.1, "{precision}: {scores:?}");
    }
}

#[test]
#[allow(deprecated)]
fn ndarray_computes_in_single_precision_only() {
    let (config, weights, tokenizer) = parts("BertForMaskedLM");
    for (precision, expected) in
        [(Precision::Int8, Some("int8")), (Precision::Bf16, Some("bf16")), (Precision::F32, None)]
    {
        let builder = TextEmbedder::builder().device(Device::ndarray()).precision(precision);
        let error = builder.from_bytes(&config, weights.clone(), &tokenizer).err().map(|error| error.to_string());
        let expected = expected.map(|name| {
            format!("precision: found {name}, which this device does not compute in, expected f32 or the device flex")
        });
        assert_eq!(error, expected);
    }
}

#[test]
fn a_packed_model_has_no_other_weights_and_is_saved_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let embedder = pipeline(TextEmbedder::builder(), "BertForMaskedLM");
    let mut model = embedder.model().bert.clone();
    model.encoder.pack(Precision::F32);
    let layer = &model.encoder.layers[0];
    assert_eq!((layer.attention.query.weight.dims(), layer.feed_forward.output.weight.dims()), ([0, 0], [0, 0]));
    crate::save(directory.path(), &model, embedder.config(), embedder.processor().tokenizer()).unwrap();
    let (_, weights, _) = parts("BertForMaskedLM");
    let (written, original) = (Weights::open(directory.path()).unwrap(), Weights::from_bytes(weights).unwrap());
    let of_layers: Vec<&str> = written.names().filter(|name| name.starts_with("encoder.layer.")).collect();
    assert!(of_layers.len() >= 32);
    for name in of_layers {
        let shape = written.shape(name).unwrap();
        assert_eq!(written.read(name, shape).unwrap(), original.read(name, shape).unwrap(), "{name}");
    }
}
