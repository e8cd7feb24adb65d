//! The softmax of attention with padding and dropout, forward and backward.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, UIntKind};
use cubecl::prelude::*;

use super::AttentionShape;
use crate::ops::attention::lowest_score;
use crate::ops::cube::dropout::{Site, factor};
use crate::ops::cube::launch::{RowGrid, buffer, contiguous, element, empty};
use crate::ops::cube::rows::{max_of_lanes, row, sum_of_lanes};

/// Turns scores into probabilities, in place, and writes the probabilities after dropout.
#[cube(launch)]
fn softmax_kernel<E: Float, P: Int>(
    scores: &mut [E],
    padding: &[P],
    keys: &[u32],
    dropped: &mut [E],
    tokens: u32,
    heads: u32,
    lowest: f32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
    #[define(P)] _flags: ElemType,
) {
    let rows = scores.len() / tokens as usize;
    let is_row = row() < rows;
    let row = min(row(), rows - 1);
    let (start, pair) = (row * tokens as usize, row as u32 / tokens);
    let (batch, head, from) = (pair / heads, pair % heads, row as u32 % tokens);
    let first = (batch * tokens) as usize;
    let mut highest = lowest;
    let mut to = UNIT_POS_X;
    while to < tokens {
        let is_padding = u32::cast_from(padding[first + to as usize]) != 0u32;
        let score = select(is_padding, lowest, f32::cast_from(scores[start + to as usize]));
        highest = max(highest, score);
        to += lanes;
    }
    let highest = max_of_lanes(highest, lanes, plane);
    let mut sum = 0.0f32;
    let mut to = UNIT_POS_X;
    while to < tokens {
        let is_padding = u32::cast_from(padding[first + to as usize]) != 0u32;
        let score = select(is_padding, lowest, f32::cast_from(scores[start + to as usize]));
        sum += (score - highest).exp();
        to += lanes;
    }
    let share = 1.0f32 / sum_of_lanes(sum, lanes, plane);
    if is_row {
        let mut to = UNIT_POS_X;
        while to < tokens {
            let at = start + to as usize;
            let is_padding = u32::cast_from(padding[first + to as usize]) != 0u32;
            let score = select(is_padding, lowest, f32::cast_from(scores[at]));
            let probability = (score - highest).exp() * share;
            scores[at] = E::cast_from(probability);
            if comptime!(drops) {
                let index = (from << 16u32) | to;
                let kept = factor(keys, site, batch, head, heads, index, p, scale);
                dropped[at] = E::cast_from(probability * kept);
            }
            to += lanes;
        }
    }
}

/// Replaces the gradient of the probabilities after dropout by that of the scores, and writes the probabilities after
/// dropout.
#[cube(launch)]
fn softmax_gradient_kernel<E: Float, P: Int>(
    probabilities: &[E],
    gradient: &mut [E],
    padding: &[P],
    keys: &[u32],
    dropped: &mut [E],
    tokens: u32,
    heads: u32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
    #[define(P)] _flags: ElemType,
) {
    let rows = gradient.len() / tokens as usize;
    let is_row = row() < rows;
    let row = min(row(), rows - 1);
    let (start, pair) = (row * tokens as usize, row as u32 / tokens);
    let (batch, head, from) = (pair / heads, pair % heads, row as u32 % tokens);
    let mut sum = 0.0f32;
    let mut to = UNIT_POS_X;
    while to < tokens {
        let at = start + to as usize;
        let mut change = f32::cast_from(gradient[at]);
        if comptime!(drops) {
            change *= factor(keys, site, batch, head, heads, (from << 16u32) | to, p, scale);
        }
        sum += change * f32::cast_from(probabilities[at]);
        to += lanes;
    }
    let sum = sum_of_lanes(sum, lanes, plane);
    if is_row {
        let mut to = UNIT_POS_X;
        while to < tokens {
            let at = start + to as usize;
            let probability = f32::cast_from(probabilities[at]);
            let mut change = f32::cast_from(gradient[at]);
            if comptime!(drops) {
                let kept = factor(keys, site, batch, head, heads, (from << 16u32) | to, p, scale);
                change *= kept;
                dropped[at] = E::cast_from(probability * kept);
            }
            // The score of padding is a constant, so it has no gradient.
            let is_padding = u32::cast_from(padding[(batch * tokens + to) as usize]) != 0u32;
            gradient[at] = E::cast_from(select(is_padding, 0.0f32, probability * (change - sum)));
            to += lanes;
        }
    }
}

/// Padding and dropout of one call.
#[derive(Debug, Clone)]
pub struct Masking {
    /// `[B, T]`, nonzero for padding tokens.
    pub padding: CubeTensor,
    /// The table of dropout keys.
    pub keys: CubeTensor,
    /// The site of dropout.
    pub site: Site,
}

impl Masking {
    /// The padding as a contiguous kernel argument, and its number type.
    fn padding(&self) -> (CubeTensor, ElemType) {
        let padding = contiguous(self.padding.clone());
        let element = match padding.dtype.size() {
            1 => ElemType::UInt(UIntKind::U8),
            _ => ElemType::UInt(UIntKind::U32),
        };
        (padding, element)
    }

    /// Turns scores `[B·A, T, T]` into probabilities, in place. Returns these, and the probabilities after dropout.
    pub fn softmax(&self, scores: CubeTensor, shape: AttentionShape) -> (CubeTensor, CubeTensor) {
        let AttentionShape { batch, tokens, heads, .. } = shape;
        let (site, drops) = (self.site, self.site.p > 0);
        let dropped = if drops { empty(&scores, scores.meta.shape().clone(), scores.dtype) } else { scores.clone() };
        let no_output = if drops { dropped.clone() } else { empty(&scores, [1], scores.dtype) };
        let grid = RowGrid::new(tokens, &scores.client);
        let (count, dim) = grid.launch(batch * heads * tokens);
        let lowest = lowest_score(scores.dtype) as f32;
        let (padding, padding_element) = self.padding();
        softmax_kernel::launch(
            &scores.client,
            count,
            dim,
            buffer(&scores),
            buffer(&padding),
            buffer(&self.keys),
            buffer(&no_output),
            tokens as u32,
            heads as u32,
            lowest,
            site.number,
            site.p,
            site.scale,
            grid.lanes,
            grid.plane,
            drops,
            element(scores.dtype),
            padding_element,
        );
        (scores, dropped)
    }

    /// The gradient of the scores from that of the probabilities after dropout; in place. Also returns the probabilities
    /// after dropout.
    pub fn softmax_gradient(
        &self,
        probabilities: CubeTensor,
        gradient: CubeTensor,
        shape: AttentionShape,
    ) -> (CubeTensor, CubeTensor) {
        let AttentionShape { batch, tokens, heads, .. } = shape;
        let (site, drops) = (self.site, self.site.p > 0);
        let shape = probabilities.meta.shape().clone();
        let dropped =
            if drops { empty(&gradient, shape, gradient.dtype) } else { empty(&gradient, [1], gradient.dtype) };
        let (padding, padding_element) = self.padding();
        let grid = RowGrid::new(tokens, &gradient.client);
        let (count, dim) = grid.launch(batch * heads * tokens);
        softmax_gradient_kernel::launch(
            &gradient.client,
            count,
            dim,
            buffer(&probabilities),
            buffer(&gradient),
            buffer(&padding),
            buffer(&self.keys),
            buffer(&dropped),
            tokens as u32,
            heads as u32,
            site.number,
            site.p,
            site.scale,
            grid.lanes,
            grid.plane,
            drops,
            element(gradient.dtype),
            padding_element,
        );
        (gradient, if drops { dropped } else { probabilities })
    }
}
