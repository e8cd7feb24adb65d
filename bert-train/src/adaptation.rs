//! Which parameters of a checkpoint learn: all of them, those above a layer, or low-rank adapters beside the encoder's
//! matrices (LoRA, Hu et al. 2021), which are merged into them before the model is saved.

use bert_model::pretrained::names::{hugging_face_name, is_adapter};
use burn::module::{Lora, Module, ModuleMapper, Param, ParamGroup};
use burn::prelude::*;
use serde::Serialize;

/// What learns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Adaptation {
    /// Everything.
    #[default]
    Full,
    /// Everything but the embeddings and this many of the lowest layers.
    FrozenLayers(usize),
    /// The heads and the pooler alone: BERT as a source of features (paper, section 5.3).
    FrozenEncoder,
    /// The heads, the pooler, and beside each matrix `W` of the encoder an adapter: `W + 2·A·B`, A `[in, rank]`, B
    /// `[rank, out]` and 0 at first.
    Lora {
        /// Columns of A.
        rank: usize,
    },
}

/// LoRA's α / r.
const SCALE: f64 = 2.0;

impl Adaptation {
    /// Sets up the adapters, if there are any, with numbers drawn from `seed`; only what should learn is left to.
    pub fn prepare<M: Module>(self, model: M, seed: u64, device: &Device) -> M {
        self.freeze(self.attach(model, seed, device))
    }

    /// The adapters alone; they change nothing until they have learned.
    pub fn attach<M: Module>(self, model: M, seed: u64, device: &Device) -> M {
        let Self::Lora { rank } = self else { return model };
        device.seed(seed);
        let matrices = ParamGroup::from_predicates(vec!["encoder.layers", ".weight"]);
        model.apply_lora(Lora::new(rank, SCALE * rank as f64).set_param_group(matrices))
    }

    /// Marks what learns and what stays.
    pub fn freeze<M: Module>(self, model: M) -> M {
        model.map(&mut Freezer { adaptation: self, path: Vec::new() })
    }

    /// Whether the parameter of this Hugging Face name learns.
    fn is_trainable(self, name: &str) -> bool {
        let layer = name.split_once("encoder.layer.").and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
        match (self, layer) {
            (Self::Full, _) => true,
            (_, None) => !name.contains("embeddings."),
            (Self::FrozenLayers(count), Some(layer)) => layer >= count,
            (Self::FrozenEncoder, Some::<usize>(_)) => false,
            (Self::Lora { .. }, Some(_)) => is_adapter(name),
        }
    }
}

struct Freezer {
    adaptation: Adaptation,
    path: Vec<String>,
}

impl ModuleMapper for Freezer {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(self.adaptation.is_trainable(&hugging_face_name(&self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bert_model::ops::tape::GradientPart;
    use bert_model::pretrained::state_dict;
    use bert_model::text::tokenizer::{Normalization, SPECIAL_TOKENS};
    use bert_model::{BertConfig, BertForSequenceClassification, BertInput, BertModel, Pretrained, Tokenizer, save};

    fn names_that_learn(adaptation: Adaptation) -> Vec<&'static str> {
        let names = [
            "bert.embeddings.word_embeddings.weight",
            "bert.encoder.layer.0.output.dense.weight",
            "bert.encoder.layer.1.output.LayerNorm.bias",
            "bert.encoder.layer.10.attention.self.query.weight.lora.a",
            "bert.pooler.dense.weight",
            "classifier.bias",
        ];
        names.into_iter().filter(|name| adaptation.is_trainable(name)).collect()
    }

    #[test]
    fn what_learns() {
        assert_eq!(names_that_learn(Adaptation::Full).len(), 6);
        assert_eq!(names_that_learn(Adaptation::FrozenLayers(0)).len(), 5);
        assert_eq!(names_that_learn(Adaptation::FrozenLayers(1))[0], "bert.encoder.layer.1.output.LayerNorm.bias");
        assert_eq!(names_that_learn(Adaptation::FrozenEncoder), ["bert.pooler.dense.weight", "classifier.bias"]);
        assert_eq!(names_that_learn(Adaptation::Lora { rank: 2 }).len(), 3);
    }

    #[test]
    fn fresh_adapters_change_nothing_and_have_gradients_where_the_frozen_matrices_have_none() {
        let device = Device::flex();
        let config = BertConfig::named("tiny").unwrap().with_vocab_size(50);
        let model = BertForSequenceClassification::init_seeded(&config, 1, &device);
        let input = || BertInput::new(Tensor::from_data([[2, 7, 42, 3]], &device));
        let before = model.forward(input()).into_data();
        let adapted = Adaptation::Lora { rank: 4 }.prepare(model.clone(), 5, &device);
        adapted.forward(input()).into_data().assert_eq(&before, true);

        let training = adapted.clone().train();
        let device = device.autodiff();
        let loss = training.forward(BertInput::new(Tensor::from_data([[2, 7, 42, 3]], &device))).powi_scalar(2).sum();
        let gradients = loss.backward();
        let mut sum = crate::GradientSum::default();
        sum.add(&training, GradientPart::Gradients(gradients));
        let stem = "bert.encoder.layer.1.attention.self.value.weight";
        assert!(sum.remove(stem).is_none(), "the frozen matrix learns");
        assert!(sum.remove(&format!("{stem}.lora.b")).is_some(), "the adapter does not learn");
        assert!(sum.remove("classifier.weight").is_some(), "the head does not learn");
        assert!(sum.remove("bert.embeddings.word_embeddings.weight").is_none());

        let names = |model: BertForSequenceClassification| state_dict(&model).into_keys().collect::<Vec<_>>();
        assert_eq!(names(adapted.materialize()), names(model));
    }

    #[test]
    fn adapters_are_not_saved_beside_their_matrices() {
        let device = Device::flex();
        let config = BertConfig::named("tiny").unwrap().with_vocab_size(5);
        let tokenizer =
            Tokenizer::from_vocabulary(&SPECIAL_TOKENS.map(String::from), Normalization::new(true)).unwrap();
        let adapted = Adaptation::Lora { rank: 2 }.prepare(BertModel::init_seeded(&config, 1, &device), 1, &device);
        let directory = tempfile::tempdir().unwrap();
        let save = |model: &BertModel| save(directory.path(), model, &config, &tokenizer);
        let error = save(&adapted).unwrap_err().to_string();
        assert!(error.contains(".lora.a`: found a low-rank adapter"), "{error}");
        save(&adapted.materialize()).unwrap();
    }
}
