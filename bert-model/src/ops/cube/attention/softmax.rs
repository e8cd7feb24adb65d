//! The softmax of attention with padding and dropout, forward and backward.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, UIntKind};
use cubecl::prelude::*;

use super::AttentionShape;
use crate::ops::attention::lowest_score;
use crate::ops::cube::dropout::{Site, factors};
use crate::ops::cube::launch::{RowGrid, buffer, contiguous, element, empty};
use crate::ops::cube::rows::{max_of_lanes, row, sum_of_lanes, sum_of_vector};

/// Turns scores into probabilities, in place, and writes the probabilities after dropout. `width` are the vectors of a
/// row.
#[cube(launch)]
fn softmax_kernel<E: Float, P: Int, N: Size>(
    scores: &mut [Vector<E, N>],
    padding: &[P],
    keys: &[u32],
    dropped: &mut [Vector<E, N>],
    width: u32,
    tokens: u32,
    heads: u32,
    lowest: f32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] each: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
    #[define(P)] _flags: ElemType,
) {
    let rows = scores.len() / width as usize;
    let is_row = row() < rows;
    let row = min(row(), rows - 1);
    let (start, pair) = (row * width as usize, row as u32 / tokens);
    let (batch, head, from) = (pair / heads, pair % heads, row as u32 % tokens);
    let mut values = Array::<Vector<f32, N>>::new(each as usize);
    let mut highest = lowest;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let mut score = Vector::<f32, N>::cast_from(scores[start + column as usize]);
            #[unroll]
            for element in 0..N::value() {
                let to = batch * tokens + column * N::value() as u32 + comptime!(element as u32);
                let is_padding = u32::cast_from(padding[to as usize]) != 0u32;
                let value = select(is_padding, lowest, score.extract(element));
                score.insert(element, value);
                highest = max(highest, value);
            }
            values[number as usize] = score;
        }
    }
    let highest = max_of_lanes(highest, lanes, plane);
    let mut sum = 0.0f32;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let power = (values[number as usize] - Vector::new(highest)).exp();
            values[number as usize] = power;
            sum += sum_of_vector::<N>(power);
        }
    }
    let share = 1.0f32 / sum_of_lanes(sum, lanes, plane);
    if is_row {
        #[unroll]
        for number in 0..each {
            let column = number * lanes + UNIT_POS_X;
            if column < width {
                let at = start + column as usize;
                let probability = values[number as usize] * Vector::new(share);
                scores[at] = Vector::cast_from(probability);
                if comptime!(drops) {
                    let index = (from << 16u32) | (column * N::value() as u32);
                    let kept = factors::<N>(keys, site, batch, head, heads, index, p, scale);
                    dropped[at] = Vector::cast_from(probability * kept);
                }
            }
        }
    }
}

/// Replaces the gradient of the probabilities after dropout by that of the scores, and writes the probabilities after
/// dropout. `width` are the vectors of a row.
#[cube(launch)]
fn softmax_gradient_kernel<E: Float, P: Int, N: Size>(
    probabilities: &[Vector<E, N>],
    gradient: &mut [Vector<E, N>],
    padding: &[P],
    keys: &[u32],
    dropped: &mut [Vector<E, N>],
    width: u32,
    tokens: u32,
    heads: u32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] each: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
    #[define(P)] _flags: ElemType,
) {
    let rows = gradient.len() / width as usize;
    let is_row = row() < rows;
    let row = min(row(), rows - 1);
    let (start, pair) = (row * width as usize, row as u32 / tokens);
    let (batch, head, from) = (pair / heads, pair % heads, row as u32 % tokens);
    let mut shares = Array::<Vector<f32, N>>::new(each as usize);
    let mut changes = Array::<Vector<f32, N>>::new(each as usize);
    let mut sum = 0.0f32;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let at = start + column as usize;
            let probability = Vector::<f32, N>::cast_from(probabilities[at]);
            let mut change = Vector::<f32, N>::cast_from(gradient[at]);
            if comptime!(drops) {
                let index = (from << 16u32) | (column * N::value() as u32);
                let kept = factors::<N>(keys, site, batch, head, heads, index, p, scale);
                change *= kept;
                if is_row {
                    dropped[at] = Vector::cast_from(probability * kept);
                }
            }
            sum += sum_of_vector::<N>(change * probability);
            shares[number as usize] = probability;
            changes[number as usize] = change;
        }
    }
    let sum = sum_of_lanes(sum, lanes, plane);
    if is_row {
        #[unroll]
        for number in 0..each {
            let column = number * lanes + UNIT_POS_X;
            if column < width {
                let mut scores = shares[number as usize] * (changes[number as usize] - Vector::new(sum));
                // The score of padding is a constant, so it has no gradient.
                #[unroll]
                for element in 0..N::value() {
                    let to = batch * tokens + column * N::value() as u32 + comptime!(element as u32);
                    let is_padding = u32::cast_from(padding[to as usize]) != 0u32;
                    scores.insert(element, select(is_padding, 0.0f32, scores.extract(element)));
                }
                gradient[start + column as usize] = Vector::cast_from(scores);
            }
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
        let grid = RowGrid::new(&scores, tokens, 4);
        let output = if drops { dropped.clone() } else { empty(&scores, [grid.vector], scores.dtype) };
        let (count, dim) = grid.launch(batch * heads * tokens);
        let lowest = lowest_score(scores.dtype) as f32;
        let (padding, padding_element) = self.padding();
        softmax_kernel::launch(
            &scores.client,
            count,
            dim,
            grid.vector,
            buffer(&scores),
            buffer(&padding),
            buffer(&self.keys),
            buffer(&output),
            grid.width,
            tokens as u32,
            heads as u32,
            lowest,
            site.number,
            site.p,
            site.scale,
            grid.lanes,
            grid.plane,
            grid.each().next_power_of_two(),
            drops,
            element(scores.dtype),
            padding_element,
        );
        (scores, dropped)
    }

    /// The gradient of the scores from that of the probabilities after dropout; in place. Also returns the
    /// probabilities after dropout.
    pub fn softmax_gradient(
        &self,
        probabilities: CubeTensor,
        gradient: CubeTensor,
        shape: AttentionShape,
    ) -> (CubeTensor, CubeTensor) {
        let AttentionShape { batch, tokens, heads, .. } = shape;
        let (site, drops) = (self.site, self.site.p > 0);
        let (padding, padding_element) = self.padding();
        let grid = RowGrid::new(&gradient, tokens, 4);
        let dropped = match drops {
            true => empty(&gradient, probabilities.meta.shape().clone(), gradient.dtype),
            false => empty(&gradient, [grid.vector], gradient.dtype),
        };
        let (count, dim) = grid.launch(batch * heads * tokens);
        softmax_gradient_kernel::launch(
            &gradient.client,
            count,
            dim,
            grid.vector,
            buffer(&probabilities),
            buffer(&gradient),
            buffer(&padding),
            buffer(&self.keys),
            buffer(&dropped),
            grid.width,
            tokens as u32,
            heads as u32,
            site.number,
            site.p,
            site.scale,
            grid.lanes,
            grid.plane,
            grid.each().next_power_of_two(),
            drops,
            element(gradient.dtype),
            padding_element,
        );
        (gradient, if drops { dropped } else { probabilities })
    }
}
