//! Validation of a configuration.

use serde_json::Value;

use super::BertConfig;
use crate::error::{Error, Result};

impl BertConfig {
    /// Checks that this configuration describes a BERT encoder; errors name `origin` as the source.
    ///
    /// # Errors
    /// If a key has an invalid value; the error names the first such key and what was expected.
    pub fn validate(&self, origin: &str) -> Result<()> {
        let check = |good: bool, key: &str, found: String, expected: &str| {
            if good { Ok(()) } else { Err(Error::config(origin, key, found, expected)) }
        };
        check(self.model_type == "bert", "model_type", format!("\"{}\"", self.model_type), "\"bert\"")?;
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            // This bound ensures that the product of two sizes, in bytes, fits in an i64, whatever a file claims.
            check((1..=1 << 26).contains(&value), key, value.to_string(), "a whole number from 1 to 67108864")?;
        }
        let layers = self.num_hidden_layers;
        check(layers <= 10_000, "num_hidden_layers", layers.to_string(), "a whole number up to 10000")?;
        let labels = self.num_labels();
        check((1..=1_000_000).contains(&labels), "num_labels", labels.to_string(), "a whole number from 1 to 1000000")?;
        let heads = self.num_attention_heads;
        check(
            self.hidden_size.is_multiple_of(heads),
            "num_attention_heads",
            heads.to_string(),
            &format!("a divisor of hidden_size = {}", self.hidden_size),
        )?;
        for (key, value) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.head_dropout()),
        ] {
            check((0.0..1.0).contains(&value), key, value.to_string(), "a probability, at least 0 and below 1")?;
        }
        let deviation = self.initializer_range;
        check((0.0..=1e3).contains(&deviation), "initializer_range", deviation.to_string(), "a standard deviation")?;
        let epsilon = self.layer_norm_eps;
        check(epsilon > 0.0 && epsilon < 1.0, "layer_norm_eps", epsilon.to_string(), "a small positive number")?;
        if let Some(pad) = self.pad_token_id {
            check(pad < self.vocab_size, "pad_token_id", pad.to_string(), "an id of the vocabulary")?;
        }
        if let Some(kind) = self.other.get("position_embedding_type").filter(|kind| !kind.is_null()) {
            check(kind == "absolute", "position_embedding_type", kind.to_string(), "\"absolute\"")?;
        }
        for key in ["is_decoder", "add_cross_attention"] {
            let value = self.other.get(key).unwrap_or(&Value::Null);
            check(value != true, key, "true".into(), "false: only encoders are supported")?;
        }
        Ok(())
    }

    /// Checks that the model has a token type for the second text of a pair.
    ///
    /// # Errors
    /// If there is only one token type.
    pub fn check_pairs(&self) -> Result<()> {
        match self.type_vocab_size {
            2.. => Ok(()),
            types => Err(Error::Mismatch {
                left: "pairs of texts".into(),
                right: format!("a model with {types} token type (`type_vocab_size` in config.json)"),
                advice: "use single texts, or a model with two token types".into(),
            }),
        }
    }
}
