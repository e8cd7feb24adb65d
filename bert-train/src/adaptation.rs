//! Selects the parameters to train: all, those above a given layer, or low-rank adapters of the encoder's weight
//! matrices (LoRA, Hu et al. 2021), which are merged into the weights before the model is saved.

use bert_model::pretrained::names::is_adapter;
use burn::module::{Lora, Module, Param, ParamGroup};
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::parameters::{Change, ParameterPath, change_parameters};

/// Which parameters are trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adaptation {
    /// All parameters.
    #[default]
    Full,
    /// All parameters except the embeddings and this many of the lowest layers.
    FrozenLayers(usize),
    /// Only the heads and the pooler: BERT as a feature extractor (Devlin et al. 2018, §5.3).
    FrozenEncoder,
    /// The heads, the pooler and, for each weight matrix `W` of the encoder, a low-rank adapter: `W + 2·A·B` with A
    /// `[in, rank]` and B `[rank, out]`, B initially zero.
    Lora {
        /// Rank r: the number of columns of A.
        rank: usize,
    },
}

/// LoRA's scale, α / r.
const SCALE: f64 = 2.0;

impl Adaptation {
    /// Adds the adapters, if any, initialized from `seed`, and freezes all parameters that are not
    /// to be trained.
    pub fn prepare<M: Module>(self, model: M, seed: u64, device: &Device) -> M {
        self.freeze(self.attach(model, seed, device))
    }

    /// Adds the adapters, if any. They do not change the model's outputs until they have been trained.
    pub fn attach<M: Module>(self, model: M, seed: u64, device: &Device) -> M {
        let Self::Lora { rank } = self else { return model };
        device.seed(seed);
        let matrices = ParamGroup::from_predicates(vec!["encoder.layers", ".weight"]);
        model.apply_lora(Lora::new(rank, SCALE * rank as f64).set_param_group(matrices))
    }

    /// Marks each parameter as trainable or frozen.
    pub fn freeze<M: Module>(self, model: M) -> M {
        change_parameters(model, &mut Freezer { adaptation: self })
    }

    /// Whether the parameter with this Hugging Face name is trained.
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
}

impl Change for Freezer {
    fn change<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.set_require_grad(self.adaptation.is_trainable(&path.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bert_model::ops::tape::GradientPart;
    use bert_model::pretrained::state_dict;
    use bert_model::text::tokenizer::{Normalization, SPECIAL_TOKENS};
    use bert_model::{BertConfig, BertForSequenceClassification, BertInput, BertModel, Pretrained, Tokenizer, save};

    fn trainable_names(adaptation: Adaptation) -> Vec<&'static str> {
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
    fn trainable_parameters() {
        assert_eq!(trainable_names(Adaptation::Full).len(), 6);
        assert_eq!(trainable_names(Adaptation::FrozenLayers(0)).len(), 5);
        assert_eq!(trainable_names(Adaptation::FrozenLayers(1))[0], "bert.encoder.layer.1.output.LayerNorm.bias");
        assert_eq!(trainable_names(Adaptation::FrozenEncoder), ["bert.pooler.dense.weight", "classifier.bias"]);
        assert_eq!(trainable_names(Adaptation::Lora { rank: 2 }).len(), 3);
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
        sum.add(crate::GradientSum::of(&training, GradientPart::Gradients(gradients)));
        let stem = "bert.encoder.layer.1.attention.self.value.weight";
        assert!(sum.remove(stem).is_none(), "the frozen matrix is trained");
        assert!(sum.remove(&format!("{stem}.lora.b")).is_some(), "the adapter is not trained");
        assert!(sum.remove("classifier.weight").is_some(), "the head is not trained");
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
