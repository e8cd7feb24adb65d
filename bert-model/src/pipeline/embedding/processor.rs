//! The steps from a text to a vector: prompt, tokens or windows of them, hidden states, pooling, dense layers,
//! normalization.

use std::borrow::Cow;

use burn::tensor::{Device, Tensor};

use super::options::Prompt;
use super::{
    Combine, EmbeddingOptions, EmbeddingRequest, PooledTokens, Pooling, RequestPrompt, TextInput, TokenEmbeddings,
    Windows, pooling,
};
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::model::{BertInput, BertModel, SentenceEncoder};
use crate::pipeline::sentence_transformers::{SentenceTransformer, Step};
use crate::pipeline::{Checkpoint, FromCheckpoint, HeadProcessor, Processor};
use crate::pretrained::weights::Weights;
use crate::pretrained::{Loaded, load_weights_partial};
use crate::text::{Sequence, Tokenizer};

/// The [`Processor`] of a [`TextEmbedder`](super::TextEmbedder).
#[derive(Debug, Clone)]
pub struct EmbeddingProcessor {
    tokenizer: Tokenizer,
    /// The same tokenizer without truncation.
    whole: Tokenizer,
    max_length: usize,
    /// Indices of the chosen hidden states, out of `states`.
    layers: Vec<usize>,
    states: usize,
    combine: Combine,
    description: SentenceTransformer,
    /// Whether to normalize vectors to length 1 after all steps.
    normalize: bool,
    windows: Option<Windows>,
    prompt: Prompt,
}

impl EmbeddingProcessor {
    /// Builds a processor that reads the last layer of a model; longer texts are truncated to `description.max_length`.
    ///
    /// # Errors
    /// If the length leaves no room for special tokens, or the widths of the steps do not match.
    pub fn new(description: SentenceTransformer, tokenizer: &Tokenizer, config: &BertConfig) -> Result<Self> {
        Self::with_options(description, &EmbeddingOptions::default(), tokenizer, config)
    }

    fn with_options(
        mut description: SentenceTransformer,
        options: &EmbeddingOptions,
        tokenizer: &Tokenizer,
        config: &BertConfig,
    ) -> Result<Self> {
        let positions = config.max_position_embeddings;
        let max_length = description.max_length.unwrap_or(positions).min(positions);
        description.max_length = Some(max_length);
        if let Some(pooling) = options.pooling {
            description.pooling = vec![pooling];
        }
        if options.normalize == Some(false) {
            description.steps.retain(|step| *step != Step::Normalize);
        }
        let whole = if description.lowercase { tokenizer.lowercasing()? } else { tokenizer.clone() };
        let states = config.num_hidden_layers + 1;
        let mut processor = Self {
            tokenizer: whole.truncating(max_length)?,
            whole,
            max_length,
            layers: options.layers.resolve(states)?,
            states,
            combine: options.combine,
            normalize: options.normalize == Some(true),
            windows: options.windows,
            prompt: Prompt::default(),
            description,
        };
        processor.check_widths(config.hidden_size)?;
        processor.prompt = processor.prompt(options.prompt.text(&processor.description.prompts)?)?;
        Ok(processor)
    }

    /// The settings for embedding texts.
    pub fn description(&self) -> &SentenceTransformer {
        &self.description
    }

    /// Tokenizes a prompt.
    pub(super) fn prompt(&self, text: &str) -> Result<Prompt> {
        if text.is_empty() {
            return Ok(Prompt::default());
        }
        let mut ids = self.tokenizer.sequence(text, None)?.ids;
        // The special token that closes a sequence is not part of the prompt.
        ids.pop_if(|last| *last == self.whole.special().sep);
        Ok(Prompt { text: text.into(), ids })
    }

    /// Checks that the input width of each dense layer is the output width of the step before it.
    fn check_widths(&self, hidden: usize) -> Result<()> {
        let layers = if self.combine == Combine::Concat { self.layers.len() } else { 1 };
        let kinds = self.description.pooling.iter();
        let mut width: usize = kinds.map(|kind| if *kind == Pooling::Pooler { hidden } else { hidden * layers }).sum();
        for dense in self.description.dense() {
            if dense.inputs != width {
                return Err(Error::Mismatch {
                    left: format!("the Dense module's {} inputs", dense.inputs),
                    right: format!("vectors with {width} dimensions"),
                    advice: "keep the pooling and layers of the model directory".into(),
                });
            }
            width = dense.outputs;
        }
        match self.description.truncate_dim {
            Some(0) => Err(Error::config(
                "config_sentence_transformers.json",
                "truncate_dim",
                "0",
                "at least 1, or no such key",
            )),
            _ => Ok(()),
        }
    }

    /// Computes the vectors of texts from the hidden states of their tokens, for both inference and training.
    ///
    /// # Shapes
    /// - `states`: `[B, T, W]`; `texts` gives the pooled tokens of each row
    /// - output: `[B, W']`, where W' is W for each pooling unless a dense layer or `truncate_dim` changes it
    pub fn sentence_vectors(&self, model: &SentenceEncoder, states: Tensor<3>, texts: &[PooledTokens]) -> Tensor<2> {
        let mut vectors = pooling::pool(model, &self.description.pooling, states, texts);
        let mut layers = model.dense.iter();
        for step in &self.description.steps {
            vectors = match step {
                Step::Normalize => normalized(vectors),
                Step::Dense(_) => layers.next().map_or(vectors.clone(), |layer| layer.forward(vectors)),
            };
        }
        if let Some(width) = self.description.truncate_dim {
            // A vector that is shorter stays as it is.
            let [_, found] = vectors.dims();
            vectors = vectors.slice_dim(1, 0..width.min(found));
        }
        if self.normalize { normalized(vectors) } else { vectors }
    }

    /// Computes the combined hidden states of the chosen layers for every token: `[B, T, W]`.
    fn token_states(&self, bert: &BertModel, input: BertInput) -> Tensor<3> {
        if self.layers == [self.states - 1] {
            return bert.encode(input);
        }
        let hidden_states = bert.hidden_states(input);
        self.combine.apply(self.layers.iter().map(|&layer| hidden_states[layer].clone()).collect())
    }

    /// One vector of width W for each text.
    fn text_vectors(&self, model: &SentenceEncoder, batch: BertInput, inputs: &[&TextInput]) -> Vec<Vec<Vec<f32>>> {
        // The pooler reads the last layer, whichever layers were chosen.
        let states = match self.description.pooling[..] {
            [Pooling::Pooler] => model.bert.encode(batch),
            _ => self.token_states(&model.bert, batch),
        };
        self.head(model, states, inputs)
    }

    /// One vector of width W for each token of each text, without padding.
    fn token_vectors(&self, model: &SentenceEncoder, batch: BertInput, inputs: &[&TextInput]) -> Vec<Vec<Vec<f32>>> {
        let states = self.token_states(&model.bert, batch);
        let [rows, tokens, width] = states.dims();
        let states = match self.normalize {
            true => normalized(states.reshape([rows * tokens, width])).reshape([rows, tokens, width]),
            false => states,
        };
        let values: Vec<f32> = states.into_data().iter::<f32>().collect();
        let own = |(row, input): (usize, &&TextInput)| {
            let own = &values[row * tokens * width..][..input.sequence.len() * width];
            own.chunks(width).map(<[f32]>::to_vec).collect()
        };
        inputs.iter().enumerate().map(own).collect()
    }

    /// Splits a text that is longer than the model's maximum length into windows, each with the prompt in front.
    ///
    /// # Errors
    /// If the prompt leaves no room for the text.
    fn windows(&self, ids: &[u32], prompt: &Prompt, skipped: usize) -> Result<Vec<TextInput>> {
        // Every window has the form of the first sequence: `[CLS] prompt text [SEP]`.
        let opening = if prompt.ids.is_empty() { 1 } else { prompt.ids.len() };
        let Some((closing, rest)) = ids.split_last() else { return Ok(Vec::new()) };
        let room = self.max_length.saturating_sub(opening + 1);
        if room == 0 {
            let (limit, expected) = (self.max_length, "a shorter one, which leaves room for the text");
            let message = format!("prompt: found {opening} tokens of at most {limit} in a window, expected {expected}");
            return Err(Error::Setting(message));
        }
        let (opening, text) = rest.split_at(opening.min(rest.len()));
        let window = |part: &[u32]| {
            let ids = [opening, part, &[*closing]].concat();
            let sequence = Sequence { types: vec![0; ids.len()], ids };
            TextInput { sequence, skipped, every_token: false }
        };
        Ok(text.chunks(room).map(window).collect())
    }
}

impl FromCheckpoint for EmbeddingProcessor {
    type Options = EmbeddingOptions;

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, options: &Self::Options) -> Result<Self> {
        const POOLER: &str = "pooler.dense.weight";
        let Checkpoint { config, weights, tokenizer, .. } = checkpoint;
        if options.pooling == Some(Pooling::Pooler) && weights.shape(POOLER).is_none() {
            let (path, tensors) = (weights.path().into(), vec![POOLER.into()]);
            return Err(Error::MissingTensors { path, tensors });
        }
        let mut description = match checkpoint.sentence_transformer()? {
            Some(description) => description,
            None => SentenceTransformer { max_length: checkpoint.tokenizer_length()?, ..Default::default() },
        };
        // The length that the head was trained with says nothing about the encoder.
        if let Some(length) = max_length {
            description.max_length = Some(checkpoint.max_length(Some(length))?);
        }
        Self::with_options(description, options, tokenizer, config)
    }
}

impl Processor for EmbeddingProcessor {
    type Model = SentenceEncoder;
    type Request<'a> = EmbeddingRequest<'a>;
    type Input = TextInput;
    type Output = Vec<Vec<f32>>;
    type Answer = TokenEmbeddings;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The checkpoint may lack the pooler, which only [`Pooling::Pooler`] uses.
    fn load(&self, weights: &Weights, config: BertConfig, device: &Device) -> Result<Loaded<SentenceEncoder>> {
        let mut loaded = load_weights_partial::<SentenceEncoder>(weights, config, 0, device)?;
        if !loaded.initialized.is_empty() {
            loaded.model.bert.pooler = None;
            loaded.initialized.clear();
        }
        loaded.model.dense = self.description.dense().map(|dense| dense.to_module(device)).collect();
        Ok(loaded)
    }

    fn preprocess(&self, &EmbeddingRequest { text, every_token, prompt }: &EmbeddingRequest) -> Result<Vec<TextInput>> {
        let prompt = &*match prompt {
            RequestPrompt::Default => Cow::Borrowed(&self.prompt),
            RequestPrompt::Given(prompt) => Cow::Borrowed(prompt),
            RequestPrompt::Named(name) => Cow::Owned(self.prompt(self.description.prompts.named(name)?)?),
        };
        let prompted = (!prompt.text.is_empty()).then(|| format!("{}{text}", prompt.text));
        let text = prompted.as_deref().unwrap_or(text);
        let skipped = if self.description.include_prompt { 0 } else { prompt.ids.len() };
        if self.windows.is_some() && !every_token {
            let sequence = self.whole.sequence(text, None)?;
            if sequence.len() > self.max_length {
                return self.windows(&sequence.ids, prompt, skipped);
            }
        }
        let sequence = self.tokenizer.sequence(text, None)?;
        Ok(vec![TextInput { sequence, skipped, every_token }])
    }

    fn sequences(input: &TextInput) -> &[Sequence] {
        std::slice::from_ref(&input.sequence)
    }

    fn forward(&self, model: &SentenceEncoder, batch: BertInput, inputs: &[&TextInput]) -> Vec<Vec<Vec<f32>>> {
        let wanted = |every_token| inputs.iter().any(|input| input.every_token == every_token);
        match [wanted(false), wanted(true)] {
            [true, true] => {
                let vectors = self.text_vectors(model, batch.clone(), inputs).into_iter();
                let tokens = self.token_vectors(model, batch, inputs);
                let choose = |((text, tokens), input): (_, &&TextInput)| if input.every_token { tokens } else { text };
                vectors.zip(tokens).zip(inputs).map(choose).collect()
            }
            [_, true] => self.token_vectors(model, batch, inputs),
            [_, false] => self.text_vectors(model, batch, inputs),
        }
    }

    fn postprocess(
        &self,
        _request: &EmbeddingRequest,
        inputs: &[TextInput],
        outputs: &[Vec<Vec<f32>>],
    ) -> TokenEmbeddings {
        let sequences = inputs.iter().filter(|input| input.every_token).map(|input| &input.sequence);
        let tokens = sequences.flat_map(|sequence| sequence.ids.iter().map(|&id| self.tokenizer.piece(id))).collect();
        let vectors = match (self.windows, outputs.len()) {
            (Some(windows), 2..) => {
                let is_normalized = self.description.is_normalized() && self.description.truncate_dim.is_none();
                vec![windows.join(outputs.concat(), self.normalize || is_normalized)]
            }
            _ => outputs.concat(),
        };
        TokenEmbeddings { tokens, vectors }
    }
}

impl HeadProcessor for EmbeddingProcessor {
    const READS_CLS_ONLY: bool = false;

    fn bert(model: &SentenceEncoder) -> &BertModel {
        &model.bert
    }

    fn head(&self, model: &SentenceEncoder, hidden: Tensor<3>, inputs: &[&TextInput]) -> Vec<Vec<Vec<f32>>> {
        let texts: Vec<PooledTokens> = inputs.iter().map(|input| input.pooled_tokens()).collect();
        let vectors = self.sentence_vectors(model, hidden, &texts);
        let [_, width] = vectors.dims();
        let values: Vec<f32> = vectors.into_data().iter::<f32>().collect();
        values.chunks(width).map(|vector| vec![vector.to_vec()]).collect()
    }
}

/// Normalizes the rows of a matrix to length 1.
fn normalized(vectors: Tensor<2>) -> Tensor<2> {
    let length = vectors.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
    vectors / length
}
