//! The left operand of a product: rows of activations, rounded to the precision of the weights.

use pulp::Arch;
use rayon::prelude::*;

use super::super::math::{higher, lower};
use super::Precision;

/// The rows of a left operand `[R, I]`. Its memory is used again for the next one.
#[derive(Debug, Default)]
pub struct Left {
    precision: Precision,
    rows: usize,
    words: usize,
    /// Words from one row to the next: an odd number of cache lines, so that the rows of a tile lie in different sets.
    stride: usize,
    pub(super) values: Vec<u32>,
    /// The scale and the zero point of each row of integers.
    quantization: Vec<(f32, i32)>,
}

/// Rows and words that AMX reads at once; all operands of `bf16` and integers are padded to them with zeros.
pub(super) const PADDED: usize = 16;

/// Rows whose rounding is one task.
const TASK_ROWS: usize = 16;

/// The values of some rows, and where to write their words and their quantization.
type Rows<'a> = ((&'a [f32], &'a mut [u32]), &'a mut [(f32, i32)]);

/// Numbers in a word.
pub(super) fn per_word(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 1,
        Precision::Bf16 => 2,
        Precision::Int8 => 4,
    }
}

/// Words of a row of so many inputs.
pub(super) fn words(precision: Precision, inputs: usize) -> usize {
    match precision {
        Precision::F32 => inputs,
        _ => inputs.div_ceil(per_word(precision)).next_multiple_of(PADDED),
    }
}

impl Left {
    /// Rounds rows of `inputs` values to a precision. Uses the threads of the current rayon pool.
    pub fn set(&mut self, precision: Precision, x: &[f32], inputs: usize) {
        let inputs = inputs.max(1);
        let rows = x.len() / inputs;
        let stride = self.resize(precision, [rows, inputs]);
        let (words, task) = (self.words, TASK_ROWS);
        let convert = |((x, values), quantization): Rows<'_>| {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(inputs).zip(values.chunks_exact_mut(stride)).zip(quantization);
                    for ((x, values), quantization) in rows {
                        let values = &mut values[..words];
                        match precision {
                            Precision::F32 => values.copy_from_slice(bytemuck::cast_slice(x)),
                            Precision::Bf16 => round_row(x, bytemuck::cast_slice_mut(values)),
                            Precision::Int8 => *quantization = quantize_row(x, bytemuck::cast_slice_mut(values)),
                        }
                    }
                },
            );
        };
        let parts = x.par_chunks(task * inputs).zip(self.values.par_chunks_mut(task * stride));
        let parts = parts.zip(self.quantization.par_chunks_mut(task));
        if rayon::current_num_threads() > 1 && rows > task {
            parts.for_each(convert);
        } else {
            convert(((x, &mut self.values), &mut self.quantization));
        }
    }

    /// Makes room for rows of `inner` values; returns the number of words from one row to the next.
    pub(super) fn resize(&mut self, precision: Precision, [rows, inner]: [usize; 2]) -> usize {
        (self.precision, self.rows, self.words) = (precision, rows, words(precision, inner));
        self.stride = (self.words.div_ceil(PADDED) | 1) * PADDED;
        self.values.resize(rows.next_multiple_of(PADDED) * self.stride, 0);
        self.quantization.resize(rows, (1.0, 0));
        self.stride
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn words(&self) -> usize {
        self.words
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Words from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// The first word of a row.
    pub(super) fn row(&self, row: usize) -> *const u32 {
        self.values[row * self.stride..].as_ptr()
    }

    /// The scale and the zero point of a row of integers.
    pub(super) fn quantization(&self, row: usize) -> (f32, i32) {
        self.quantization[row]
    }
}

/// A number rounded to `bf16` in the upper half, to nearest, ties to even; the lower half is undefined.
#[inline(always)]
pub(super) fn rounded_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1))
}

/// Rounds a row to `bf16`, to nearest, ties to even, and fills the rest with zeros. Infinity and x86's own NaN stay
/// what they are.
#[inline(always)]
pub(super) fn round_row(x: &[f32], values: &mut [u16]) {
    for (value, x) in values.iter_mut().zip(x) {
        *value = (rounded_bits(*x) >> 16) as u16;
    }
    values[x.len()..].fill(0);
}

/// Rounds a row to integers from 0 to 255; returns its scale and its zero point, the integer that stands for 0.
#[inline(always)]
pub(super) fn quantize_row(x: &[f32], values: &mut [u8]) -> (f32, i32) {
    // In 32 lanes, so that the loop compiles to vector instructions.
    let (mut lowest, mut highest) = ([0.0_f32; 32], [0.0_f32; 32]);
    let (chunks, rest) = x.as_chunks::<32>();
    for chunk in chunks {
        for lane in 0..32 {
            lowest[lane] = lower(lowest[lane], chunk[lane]);
            highest[lane] = higher(highest[lane], chunk[lane]);
        }
    }
    let low = lowest.iter().chain(rest).fold(0.0, |low, &x| lower(low, x));
    let high = highest.iter().chain(rest).fold(0.0, |high, &x| higher(high, x));
    let range = high - low;
    let scale = if range > 0.0 && range.is_finite() { range / 255.0 } else { 1.0 };
    let (inverse, zero) = (1.0 / scale, (-low / scale).round_ties_even().clamp(0.0, 255.0));
    // Adding 1.5·2²³ leaves an integer in the lowest bits of a number below 2²².
    const ROUND: f32 = 12_582_912.0;
    for (value, x) in values.iter_mut().zip(x) {
        *value = ((x * inverse + zero).clamp(0.0, 255.0) + ROUND).to_bits() as u8;
    }
    values[x.len()..].fill(0);
    (scale, zero as i32)
}

#[cfg(test)]
impl Left {
    /// Makes every scale 1 and every zero point 0.
    pub(super) fn unscale(&mut self) {
        self.quantization.fill((1.0, 0));
    }
}
