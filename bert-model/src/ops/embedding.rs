//! BERT's input representation (Devlin et al. 2018, §3 and figure 2): the sum of word, position and token-type
//! embeddings, layer-normalized, with dropout.

use burn::prelude::*;
use burn::tensor::module::embedding;

use super::{dropout, layer_norm};

/// Selects rows of a matrix by their numbers, which may repeat.
///
/// # Shapes
/// - `x`: `[R, H]`
/// - `positions`: `[M]`, each in 0..R
/// - output: `[M, H]`
pub fn gather_rows(x: Tensor<2>, positions: Tensor<1, Int>) -> Tensor<2> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) && positions.dims()[0] > 0 {
        return super::cube::gather_rows(x, positions);
    }
    x.select(0, positions)
}

/// BERT's input representation, `dropout(layer_norm(words + types[type_ids] + positions[0..T]))`.
///
/// `p` is the dropout probability; `None` for no dropout.
///
/// # Shapes
/// - `words` and output: `[B, T, H]`
/// - `positions`: `[P, H]`, P at least T
/// - `types`: `[K, H]`; `type_ids`: `[B, T]`, each in 0..K
/// - `gamma`, `beta`: `[H]`
pub fn embed(
    words: Tensor<3>,
    positions: Tensor<2>,
    (types, type_ids): (Tensor<2>, Tensor<2, Int>),
    (gamma, beta): (Tensor<1>, Tensor<1>),
    epsilon: f64,
    p: Option<f64>,
) -> Tensor<3> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&words) {
        return super::cube::embed(words, positions, (types, type_ids), (gamma, beta), epsilon, p);
    }
    let positions = positions.slice_dim(0, 0..words.dims()[1]).unsqueeze();
    let normalized = layer_norm(words + embedding(types, type_ids) + positions, gamma, beta, epsilon);
    match p {
        Some(p) => dropout(normalized, p),
        None => normalized,
    }
}
