//! Hugging Face's names of the parameters, and which of them it stores transposed.
//!
//! The modules of this crate have the paper's names; only this file maps them to Hugging Face's.

/// Our names and Hugging Face's, between the dots of a path that begins and ends with one.
const RENAMES: [(&str, &str); 21] = [
    (".embeddings.word.", ".embeddings.word_embeddings."),
    (".embeddings.position.", ".embeddings.position_embeddings."),
    (".embeddings.token_type.", ".embeddings.token_type_embeddings."),
    (".embeddings.norm.", ".embeddings.LayerNorm."),
    (".encoder.layers.", ".encoder.layer."),
    (".attention.query.", ".attention.self.query."),
    (".attention.key.", ".attention.self.key."),
    (".attention.value.", ".attention.self.value."),
    (".attention.output.", ".attention.output.dense."),
    (".attention_norm.", ".attention.output.LayerNorm."),
    (".feed_forward.intermediate.", ".intermediate.dense."),
    (".feed_forward.output.", ".output.dense."),
    (".feed_forward_norm.", ".output.LayerNorm."),
    (".mlm.transform.", ".cls.predictions.transform.dense."),
    (".mlm.norm.", ".cls.predictions.transform.LayerNorm."),
    (".mlm.decoder.", ".cls.predictions.decoder.weight."),
    (".mlm.bias.", ".cls.predictions.bias."),
    (".nsp.", ".cls.seq_relationship."),
    (".classifier.dense.", ".classifier."),
    (".gamma.", ".weight."),
    (".beta.", ".bias."),
];

/// The Hugging Face name of the parameter at `path` (module names, outermost first).
pub fn hugging_face_name(path: &[String]) -> String {
    let mut name = format!(".{}.", path.join("."));
    for (ours, theirs) in RENAMES {
        if name.contains(ours) {
            name = name.replacen(ours, theirs, 1);
        }
    }
    name.trim_matches('.').to_string()
}

/// Whether the parameter is the matrix of a linear layer, which PyTorch keeps as `[output, input]` and burn as
/// `[input, output]`. Embedding tables and the MLM decoder are `[V, H]` in both.
pub fn is_transposed(name: &str) -> bool {
    name.ends_with(".weight")
        && !name.contains("embeddings.")
        && !name.contains("LayerNorm")
        && !name.contains("decoder")
}

/// Whether weight decay applies: to everything but biases and LayerNorm (google-research/bert, `optimization.py`).
pub fn is_decayed(name: &str) -> bool {
    !name.ends_with("bias") && !name.contains("LayerNorm")
}

/// Whether the parameter is the matrix of a linear layer within an encoder layer.
pub fn is_inner_matrix(name: &str) -> bool {
    name.contains("encoder.layer.") && is_transposed(name) && !is_adapter(name)
}

/// Whether the parameter belongs to a low-rank adapter of a matrix.
pub fn is_adapter(name: &str) -> bool {
    name.contains(".lora.")
}

/// Whether a checkpoint may lack the parameter, which is then freshly initialized: heads and the pooler.
pub fn is_head(name: &str) -> bool {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    !name.starts_with("embeddings.") && !name.starts_with("encoder.")
}

/// Whether the tensor belongs to neither BERT's encoder nor to one of its heads.
pub fn is_foreign(name: &str) -> bool {
    let name = normalized(name);
    let (heads, classifiers) = (["pooler.", "cls.", "qa_outputs."], ["classifier.weight", "classifier.bias"]);
    is_head(&name) && !heads.iter().any(|head| name.starts_with(head)) && !classifiers.contains(&&*name)
}

/// The name under which a checkpoint's tensor is looked up: without the prefix that data-parallel training adds,
/// without the `bert.` that a bare `BertModel` lacks, and with the current LayerNorm names.
pub fn normalized(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    let name = name.strip_prefix("bert.").unwrap_or(name);
    let name = match name.strip_suffix("LayerNorm.gamma") {
        Some(stem) => format!("{stem}LayerNorm.weight"),
        None => name.to_string(),
    };
    match name.strip_suffix("LayerNorm.beta") {
        Some(stem) => format!("{stem}LayerNorm.bias"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str) -> String {
        hugging_face_name(&path.split('.').map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_hugging_faces() {
        assert_eq!(name("bert.embeddings.word.weight"), "bert.embeddings.word_embeddings.weight");
        assert_eq!(
            name("bert.encoder.layers.3.attention.query.bias"),
            "bert.encoder.layer.3.attention.self.query.bias"
        );
        assert_eq!(name("encoder.layers.0.attention.output.weight"), "encoder.layer.0.attention.output.dense.weight");
        assert_eq!(name("encoder.layers.0.attention_norm.gamma"), "encoder.layer.0.attention.output.LayerNorm.weight");
        assert_eq!(name("encoder.layers.0.feed_forward.output.weight"), "encoder.layer.0.output.dense.weight");
        assert_eq!(name("encoder.layers.0.feed_forward_norm.beta"), "encoder.layer.0.output.LayerNorm.bias");
        assert_eq!(name("mlm.decoder"), "cls.predictions.decoder.weight");
        assert_eq!(name("nsp.weight"), "cls.seq_relationship.weight");
        assert_eq!(name("classifier.dense.bias"), "classifier.bias");
    }

    #[test]
    fn inner_matrices_are_those_of_the_encoders_layers() {
        let inner = ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"];
        assert!(inner.iter().all(|name| is_inner_matrix(&format!("bert.encoder.layer.3.{name}.weight"))));
        for name in [
            "bert.encoder.layer.3.attention.self.query.bias",
            "bert.encoder.layer.3.output.LayerNorm.weight",
            "bert.encoder.layer.3.attention.self.query.weight.lora.a",
            "bert.embeddings.word_embeddings.weight",
            "bert.pooler.dense.weight",
            "cls.predictions.transform.dense.weight",
        ] {
            assert!(!is_inner_matrix(name), "{name}");
        }
    }

    /// Reported bug: the transitions of a CRF were ignored in silence.
    #[test]
    fn parts_that_bert_does_not_have_are_foreign() {
        for name in
            ["crf.transitions", "bert.lstm.weight_ih_l0", "classifier.out_proj.weight", "embeddings_project.weight"]
        {
            assert!(is_foreign(name), "{name}");
        }
        for name in ["module.bert.pooler.dense.bias", "cls.predictions.bias", "classifier.weight", "qa_outputs.bias"] {
            assert!(!is_foreign(name), "{name}");
        }
        assert!(
            !is_foreign("bert.embeddings.position_ids") && !is_foreign("bert.encoder.layer.9.intermediate.dense.bias")
        );
    }

    #[test]
    fn old_and_prefixed_names_are_understood() {
        assert_eq!(normalized("bert.embeddings.LayerNorm.gamma"), "embeddings.LayerNorm.weight");
        assert_eq!(normalized("module.bert.pooler.dense.bias"), "pooler.dense.bias");
        assert_eq!(normalized("cls.predictions.transform.LayerNorm.beta"), "cls.predictions.transform.LayerNorm.bias");
    }
}
