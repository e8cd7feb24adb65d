//! The initial weights of a run: random, or those of a model directory.

use bert_model::ops::dropout::Dropout;
use bert_model::pretrained::weights::Weights;
use bert_model::{BertConfig, BertForPreTraining, Error, Pretrained, Result, Tokenizer, load_partial};
use bert_train::permutation::mix;
use bert_train::run_directory::check_has_model;
use burn::tensor::Device;

use crate::examples::NspMode;
use crate::settings::PretrainSettings;

/// Tag that keeps this random stream independent of the run's others.
const WEIGHTS: u64 = 14;

/// Checks that a model can read the two sentences of next-sentence prediction.
///
/// # Errors
/// If the model has only one token type.
pub fn check_pairs(config: &BertConfig) -> Result<()> {
    config.check_pairs().map_err(|error| match error {
        Error::Mismatch { left, right, .. } => {
            let advice = "use single texts (--no-nsp), or a model with two token types".into();
            Error::Mismatch { left, right, advice }
        }
        other => other,
    })
}

/// Checks, before anything is written, that model, sequence length and tokenizer, unless it is still to be learned,
/// match.
///
/// # Errors
/// As [`model_config`].
pub fn check_model(settings: &PretrainSettings, tokenizer: Option<&Tokenizer>) -> Result<()> {
    match tokenizer {
        Some(tokenizer) => drop(model_config(settings, tokenizer)?),
        None => {
            let (config, follows_tokenizer) = settings.model_config()?;
            if let Some(size) = settings.vocab_size.filter(|&size| !follows_tokenizer && size > config.vocab_size) {
                return Err(Error::Mismatch {
                    left: format!("--vocab-size {size}"),
                    right: format!("{}, with room for {} WordPieces", settings.config, config.vocab_size),
                    advice: "change one of the two".into(),
                });
            }
            check_lengths(settings, &config)?;
        }
    }
    if let Some(directory) = &settings.init {
        Weights::open(directory)?;
    }
    Ok(())
}

/// The configuration of the model that a run trains, adapted to the tokenizer.
///
/// # Errors
/// If a configuration is malformed, or model, tokenizer and sequence length do not match.
pub fn model_config(settings: &PretrainSettings, tokenizer: &Tokenizer) -> Result<BertConfig> {
    let config = match &settings.init {
        Some(directory) => {
            check_has_model(directory)?;
            BertConfig::from_file(directory.join("config.json"))?
        }
        None => {
            let (config, follows_tokenizer) = settings.model_config()?;
            let vocab_size = tokenizer.vocabulary().len();
            let learned_smaller = settings.tokenizer.is_none() && vocab_size < config.vocab_size;
            let fits = if follows_tokenizer || learned_smaller { config.with_vocab_size(vocab_size) } else { config };
            BertConfig { pad_token_id: Some(tokenizer.special().pad as usize), ..fits }
        }
    };
    tokenizer.check_fits(&config)?;
    check_lengths(settings, &config)?;
    if settings.data.nsp_mode != NspMode::Off && !tokenizer.has_types() {
        return Err(Error::Mismatch {
            left: "next-sentence prediction".into(),
            right: "a tokenizer without token types (`model_input_names` in tokenizer_config.json)".into(),
            advice: "pass --no-nsp".into(),
        });
    }
    Ok(config)
}

/// A warning if a run continues a model with a tokenizer whose WordPieces are not those that the model knows.
pub fn foreign_tokenizer(settings: &PretrainSettings, tokenizer: &Tokenizer) -> Option<String> {
    let (init, given) = (settings.init.as_ref()?, settings.tokenizer.as_ref()?);
    let (known, pieces) = (Tokenizer::load(init).ok()?.vocabulary(), tokenizer.vocabulary());
    let differ = pieces.iter().enumerate().filter(|&(id, piece)| known.get(id) != Some(piece)).count();
    (differ > 0).then(|| {
        format!(
            "{}: {differ} of {} WordPieces have another number in {}, whose embeddings belong to other WordPieces",
            given.display(),
            pieces.len(),
            init.display()
        )
    })
}

/// Checks that a model can read pairs, if there are any, and the longest sequences of a run.
fn check_lengths(settings: &PretrainSettings, config: &BertConfig) -> Result<()> {
    if settings.data.nsp_mode != NspMode::Off {
        check_pairs(config)?;
    }
    if settings.longest() > config.max_position_embeddings {
        return Err(Error::Mismatch {
            left: format!("a sequence length of {}", settings.longest()),
            right: format!("a model with {} positions", config.max_position_embeddings),
            advice: "lower --max-seq-len (in phase 2, --phase2-seq-len), or use a configuration with a larger \
                     max_position_embeddings"
                .into(),
        });
    }
    Ok(())
}

/// Creates the initial model of a run, and its configuration. Training with `dropout` does not change the
/// configuration, which keeps its own for fine-tuning.
///
/// # Errors
/// As [`model_config`], or if a weight file is malformed.
pub fn initial_model(
    settings: &PretrainSettings,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<(BertForPreTraining, BertConfig)> {
    let seed = mix(&[settings.seed, WEIGHTS]);
    let config = model_config(settings, tokenizer)?;
    let (mut model, config) = match &settings.init {
        Some(directory) => {
            let loaded = load_partial::<BertForPreTraining>(directory, seed, device)?;
            if let Some(warning) = loaded.warning() {
                eprintln!("warning: {}: {warning}", directory.display());
            }
            (loaded.model, loaded.config)
        }
        None => (BertForPreTraining::init_seeded(&config, seed, device), config),
    };
    if let Some(probability) = settings.dropout {
        set_dropout(&mut model, probability);
    }
    Ok((model, config))
}

/// Sets all dropout probabilities of a model.
pub(crate) fn set_dropout(model: &mut BertForPreTraining, probability: f64) {
    let dropout = Dropout::new(probability);
    model.bert.embeddings.dropout = dropout.clone();
    for layer in &mut model.bert.encoder.layers {
        layer.attention.dropout = dropout.clone();
        layer.dropout = dropout.clone();
    }
}
