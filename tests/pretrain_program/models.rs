//! Models that lack what a command requires.

use std::fs;

use crate::pretraining::{corpus, short};
use crate::program::{fail, succeed};

#[test]
fn a_head_that_was_never_trained_is_refused_with_advice() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 2, "--no-nsp"), at);
    let message = fail("next-sentence --model run --first a --second b", at, 1);
    assert!(message.contains("no trained head") && message.contains("bert-pretrain train --init"), "{message}");
    // The checkpoint is reduced to the encoder.
    let weights = bert_model::pretrained::weights::Weights::verbatim(&at.join("run/model.safetensors")).unwrap();
    let encoder = weights.names().filter(|name| name.starts_with("bert.")).map(|name| {
        let shape = weights.shape(name).unwrap().to_vec();
        let values = weights.read(name, &shape).unwrap().unwrap();
        (name.to_string(), bert_model::pretrained::save::HostTensor { shape, values })
    });
    let encoder = encoder.collect();
    bert_model::pretrained::save_weights(at.join("run/model.safetensors"), &encoder).unwrap();
    for line in ["fill-mask --model run 'a [MASK]'", "evaluate --model run --corpus corpus.txt --max-seq-len 32"] {
        let message = fail(line, at, 1);
        assert!(
            message.contains("cls.predictions.") && message.contains("bert-pretrain train --init"),
            "{line}: {message}"
        );
    }
}

#[test]
fn a_vocabulary_without_a_mask_token_is_refused() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nlives\n").unwrap();
    let message = fail(&short("run", 2, "--tokenizer vocab.txt"), at, 1);
    assert!(message.contains("vocab.txt: found no [MASK] token"), "{message}");
}
