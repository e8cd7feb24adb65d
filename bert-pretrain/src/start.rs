//! The weights before the first step: new ones, or those of a model directory.

use bert_model::{BertConfig, BertForPreTraining, Error, Pretrained, Result, Tokenizer, load};
use bert_train::permutation::mix;
use burn::tensor::Device;

use crate::examples::NspMode;
use crate::settings::PretrainSettings;

/// Keeps this stream of random numbers apart from the run's others.
const WEIGHTS: u64 = 14;

/// The model to begin with, with the configuration that fits the tokenizer.
///
/// # Errors
/// If a weight file is not as it should be, or model, tokenizer and sequence length do not fit.
pub fn initial_model(
    settings: &PretrainSettings,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<(BertForPreTraining, BertConfig)> {
    let seed = mix(&[settings.seed, WEIGHTS]);
    let (model, config) = match &settings.init {
        Some(directory) => {
            let loaded = load::<BertForPreTraining>(directory, seed, device)?;
            if let Some(warning) = loaded.warning() {
                eprintln!("warning: {}: {warning}", directory.display());
            }
            (Some(loaded.model), loaded.config)
        }
        None => {
            let (config, follows_tokenizer) = settings.model_config()?;
            let vocab_size = tokenizer.vocabulary().len();
            let learned_smaller = settings.tokenizer.is_none() && vocab_size < config.vocab_size;
            let fits = if follows_tokenizer || learned_smaller { config.with_vocab_size(vocab_size) } else { config };
            (None, BertConfig { pad_token_id: Some(tokenizer.special().pad as usize), ..fits })
        }
    };
    tokenizer.check_fits(&config)?;
    if settings.data.nsp_mode != NspMode::Off {
        config.check_pairs()?;
    }
    if settings.longest() > config.max_position_embeddings {
        return Err(Error::Mismatch {
            left: format!("a sequence length of {}", settings.longest()),
            right: format!("a model of {} positions", config.max_position_embeddings),
            advice: "lower --max-seq-len, or take a configuration with more max_position_embeddings".into(),
        });
    }
    let model = model.unwrap_or_else(|| BertForPreTraining::init_seeded(&config, seed, device));
    Ok((model, config))
}
