//! Pooling: combines the vectors of a text's tokens into one.

use burn::tensor::{Device, Tensor, TensorData};

use crate::model::SentenceEncoder;
use crate::ops::upcast;

/// How the vectors of a text's tokens are combined into one. Padding is always excluded; "all tokens" means those of
/// the text, including `[CLS]` and `[SEP]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over all tokens.
    #[default]
    Mean,
    /// The vector of `[CLS]`.
    Cls,
    /// The maximum of each component over all tokens.
    Max,
    /// The sum over all tokens, divided by the square root of their number.
    MeanSqrtLen,
    /// The weighted mean over all tokens, with weight 1 for the first, 2 for the second, and so on.
    WeightedMean,
    /// The vector of the last token.
    LastToken,
    /// The pooler's output (Devlin et al. 2018, §3.1); it reads the last layer.
    Pooler,
}

impl Pooling {
    /// The names in sentence-transformers, as values of `pooling_mode` and as Boolean keys, in the order in which that
    /// library concatenates several.
    pub(in crate::pipeline) const SENTENCE_TRANSFORMERS: [(&'static str, &'static str, Self); 6] = [
        ("cls", "pooling_mode_cls_token", Self::Cls),
        ("max", "pooling_mode_max_tokens", Self::Max),
        ("mean", "pooling_mode_mean_tokens", Self::Mean),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Self::MeanSqrtLen),
        ("weightedmean", "pooling_mode_weightedmean_tokens", Self::WeightedMean),
        ("lasttoken", "pooling_mode_lasttoken", Self::LastToken),
    ];

    /// The name as a value of `pooling_mode` in sentence-transformers, such as `mean`; `pooler` for the pooler's
    /// output, which that library does not have.
    pub fn name(self) -> &'static str {
        Self::SENTENCE_TRANSFORMERS.iter().find(|(_, _, pooling)| *pooling == self).map_or("pooler", |(name, ..)| name)
    }
}

/// The range of a text's tokens that are pooled: from the first one after the prompt, if that is excluded, to the last
/// one before padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PooledTokens {
    /// Number of tokens at the start that are excluded.
    pub skipped: usize,
    /// Number of tokens before padding, including the excluded ones.
    pub length: usize,
}

impl PooledTokens {
    /// The weight of each of `tokens` positions for a mode of pooling, and the divisor of the weighted sum.
    fn weights(self, pooling: Pooling, tokens: usize) -> (Vec<f32>, f32) {
        let Self { skipped, length } = self;
        let is_in = |place: usize| (skipped..length).contains(&place);
        let weight = |place: usize| match pooling {
            // If a text has no tokens but a prompt, sentence-transformers uses the first token here, and none in the
            // other modes.
            Pooling::Cls => place == if skipped < length { skipped } else { 0 },
            Pooling::LastToken => is_in(place) && place + 1 == length,
            _ => is_in(place),
        };
        let factor = |place: usize| if pooling == Pooling::WeightedMean { place as f32 + 1.0 } else { 1.0 };
        let weights: Vec<f32> = (0..tokens).map(|place| if weight(place) { factor(place) } else { 0.0 }).collect();
        let sum: f32 = weights.iter().sum();
        let divisor = match pooling {
            Pooling::Mean | Pooling::WeightedMean => sum,
            Pooling::MeanSqrtLen => sum.sqrt(),
            _ => 1.0,
        };
        (weights, divisor.max(1e-9))
    }
}

/// Pools the vectors of each text's tokens; the results of several modes are concatenated.
///
/// # Shapes
/// - `states`: `[B, T, W]`; `texts` gives the pooled tokens of each row
/// - output: `[B, P·W]`, where P is the number of modes
pub(super) fn pool(model: &SentenceEncoder, kinds: &[Pooling], states: Tensor<3>, texts: &[PooledTokens]) -> Tensor<2> {
    let pooled = kinds.iter().map(|&kind| match kind {
        Pooling::Pooler => model.bert.pool(states.clone()),
        Pooling::Max => maximum(states.clone(), texts),
        _ => weighted(kind, states.clone(), texts),
    });
    Tensor::cat(pooled.collect(), 1)
}

fn weighted(kind: Pooling, states: Tensor<3>, texts: &[PooledTokens]) -> Tensor<2> {
    let ([rows, tokens, _], dtype) = (states.dims(), states.dtype());
    let (weights, divisors): (Vec<Vec<f32>>, Vec<f32>) = texts.iter().map(|text| text.weights(kind, tokens)).unzip();
    let device = states.device();
    let weights = column(weights.concat(), [rows, tokens, 1], &device);
    let sum: Tensor<2> = (upcast(states) * weights).sum_dim(1).squeeze_dim(1);
    (sum / column(divisors, [rows, 1], &device)).cast(dtype)
}

fn maximum(states: Tensor<3>, texts: &[PooledTokens]) -> Tensor<2> {
    let ([rows, tokens, width], dtype) = (states.dims(), states.dtype());
    let weights: Vec<f32> = texts.iter().flat_map(|text| text.weights(Pooling::Max, tokens).0).collect();
    let outside = column(weights, [rows, tokens, 1], &states.device()).equal_elem(0.0);
    let largest = upcast(states).mask_fill(outside.expand([rows, tokens, width]), f32::MIN).max_dim(1);
    largest.squeeze_dim(1).cast(dtype)
}

fn column<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
