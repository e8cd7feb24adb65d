//! Products of operands that lie in memory in the order in which they are read: dense layers for inference, with
//! weights that are rounded and packed once (`f32`, `bf16` or 8-bit integers), and the products of training in `bf16`,
//! whose operands are packed each time.
//!
//! The rows of the left operand keep their order, so that in inference a single short text is as fast as a large batch.
//! The ends of a layer (scales, bias, GELU) are applied to the sums of a tile as it leaves the registers.
//!
//! - `bf16`: both operands are rounded to `bf16`, sums are `f32`.
//! - `int8`: each column of the weights (an output) has a scale, each row of the left operand (a token) a scale and a
//!   zero point, which are computed on the fly. Integer sums are exact, so that every machine computes the same ones.
//!
//! The sums of a row do not depend on the other rows: a text has the same result in every batch.

#[cfg(target_arch = "x86_64")]
mod amx;
mod kernel;
mod layer;
mod left;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
mod precision;
mod rounded;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

use std::ops::Range;

use half::bf16;
use pulp::Arch;
use rayon::prelude::*;

use super::math::erf;
use kernel::{Kernel, Line, Operands, PANEL, TILE_COLUMNS, TILE_ROWS, Tile};
pub use layer::{Norm, PackedLayer, encode};
pub use left::Left;
pub use precision::Precision;
pub(super) use rounded::product;

/// A nonlinearity of a dense layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing but the bias.
    Bias,
    /// The bias, then the exact GELU.
    Gelu,
}

/// The weights and the bias of a dense layer, I → O.
pub struct PackedLinear {
    precision: Precision,
    inputs: usize,
    outputs: usize,
    /// Lines of a panel: words of a row.
    words: usize,
    /// The panels of 16 outputs, one after another.
    lines: Vec<Line>,
    /// One for each column of all panels, as are the following.
    bias: Vec<f32>,
    /// The scale of each column of integers.
    scales: Vec<f32>,
    /// The sum of each column of integers.
    sums: Vec<i32>,
    kernel: Kernel,
}

impl std::fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedLinear({} → {}, {}, {})", self.inputs, self.outputs, self.precision, self.kernel.name)
    }
}

/// The kernels of this machine for a precision, fastest first.
fn kernels(precision: Precision) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        let (avx512, avx2) = (has!("avx512f"), has!("avx2") && has!("fma"));
        let amx = precision != Precision::F32 && amx::is_available();
        let candidates: &[(bool, Kernel)] = match precision {
            Precision::F32 => &[(avx512, x86::F32_AVX512), (avx2, x86::F32_AVX2)],
            Precision::Bf16 => &[
                (amx, amx::BF16_AMX),
                (x86::has_fast_bf16(), x86::BF16_AVX512_BF16),
                (avx512, x86::BF16_AVX512),
                (avx2, x86::BF16_AVX2),
            ],
            Precision::Int8 => &[
                (amx, amx::INT8_AMX),
                (avx512 && has!("avx512vnni"), x86::INT8_AVX512_VNNI),
                (avx2 && has!("avxvnni"), x86::INT8_AVX_VNNI),
                (avx512 && has!("avx512bw"), x86::INT8_AVX512),
                (avx2, x86::INT8_AVX2),
            ],
        };
        kernels.extend(candidates.iter().filter(|(is_here, _)| *is_here).map(|(_, kernel)| *kernel));
    }
    #[cfg(target_arch = "aarch64")]
    kernels.extend(neon::kernels(precision));
    kernels.push(match precision {
        Precision::F32 => plain::F32,
        Precision::Bf16 => plain::BF16,
        Precision::Int8 => plain::INT8,
    });
    kernels
}

/// Multiplications in a product from which on several threads are faster than one.
const PARALLEL_FROM: usize = 1 << 20;

/// Bytes of the left operand that a task multiplies with all its panels before it goes on: what stays in a core's
/// cache.
const LEFT_BYTES: usize = 1 << 19;

impl PackedLinear {
    /// Packs layers with the same inputs side by side, as one layer with all their outputs. Each has weights `[I, O]`
    /// and a bias `[O]`.
    pub fn new(precision: Precision, inputs: usize, layers: &[(&[f32], &[f32])]) -> Self {
        let outputs = layers.iter().map(|(_, bias)| bias.len()).sum();
        let words = left::words(precision, inputs);
        let panels = usize::div_ceil(outputs, PANEL);
        let columns = panels * PANEL;
        let mut packed = Self {
            precision,
            inputs,
            outputs,
            words,
            lines: vec![Line([0; PANEL]); panels * words],
            bias: vec![0.0; columns],
            scales: vec![1.0; if precision == Precision::Int8 { columns } else { 0 }],
            sums: vec![0; if precision == Precision::Int8 { columns } else { 0 }],
            kernel: kernels(precision)[0],
        };
        let mut first = 0;
        for (weights, bias) in layers {
            assert_eq!(weights.len(), inputs * bias.len(), "weights for {inputs} inputs");
            packed.bias[first..][..bias.len()].copy_from_slice(bias);
            first += bias.len();
        }
        // Each column of all layers: its weights begin here, and are so far apart.
        let columns = layers.iter().flat_map(|(weights, bias)| {
            (0..bias.len()).map(|column| (weights.get(column..).unwrap_or_default(), bias.len()))
        });
        let columns: Vec<Column> = columns.collect();
        let lines = packed.lines.par_chunks_mut(words.max(1)).zip(columns.par_chunks(PANEL));
        match precision {
            Precision::F32 => lines.for_each(|(lines, columns)| pack(inputs, lines, columns, |_, x| x.to_bits(), 1)),
            Precision::Bf16 => lines.for_each(|(lines, columns)| {
                pack(inputs, lines, columns, |_, x| bf16::from_f32(x).to_bits().into(), 2);
            }),
            Precision::Int8 => {
                let scales = packed.scales.par_chunks_mut(PANEL).zip(packed.sums.par_chunks_mut(PANEL));
                lines.zip(scales).for_each(|((lines, columns), (scales, sums))| {
                    set_scales(inputs, columns, scales);
                    let round = |lane: usize, x: f32| {
                        let rounded = (x / scales[lane]).round_ties_even() as i8;
                        sums[lane] += i32::from(rounded);
                        u32::from(rounded as u8)
                    };
                    pack(inputs, lines, columns, round, 4);
                });
            }
        }
        packed
    }

    /// The weights that the products compute with, `[I, O]`: rounded, but as `f32`.
    pub fn weights(&self) -> Vec<f32> {
        let (precision, outputs) = (self.precision, self.outputs);
        let weight = |at: usize| {
            let (index, column) = (at / outputs, at % outputs);
            let word = |per_word: usize| {
                let line = &self.lines[column / PANEL * self.words + index / per_word];
                line.0[column % PANEL] >> (32 / per_word * (index % per_word))
            };
            match precision {
                Precision::F32 => f32::from_bits(word(1)),
                Precision::Bf16 => bf16::from_bits(word(2) as u16).to_f32(),
                Precision::Int8 => f32::from(word(4) as i8) * self.scales[column],
            }
        };
        (0..self.inputs * outputs).map(weight).collect()
    }

    /// The bias, `[O]`.
    pub fn bias(&self) -> &[f32] {
        &self.bias[..self.outputs]
    }

    /// I.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// O.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The number type of the product.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Computes `end(x·W + b)` for a left operand of `[R, I]`, and writes it to `output` `[R, O]`. Uses the threads of
    /// the current rayon pool.
    pub fn forward(&self, left: &Left, end: End, output: &mut [f32]) {
        let rows = left.rows();
        assert_eq!((left.words(), output.len()), (self.words, rows * self.outputs), "shape of the operands");
        assert_eq!(left.precision(), self.precision, "precision of the operands");
        let target = Target(output.as_mut_ptr());
        let finish = |tile: &Tile, rows: (usize, usize), panels: (usize, usize)| {
            // SAFETY: the length of the output is asserted above, and every tile is a part of its own.
            unsafe { self.finish(tile, left, end, rows, panels, &target) }
        };
        // SAFETY: both operands have the precision of the kernel, as is asserted above.
        unsafe { multiply(self.kernel, left, &self.lines, finish) };
    }

    /// Applies the end of the layer to the sums of a tile, and writes them to the output.
    ///
    /// # Safety
    /// The target has room for the output, and nobody else accesses this part of it.
    unsafe fn finish(
        &self,
        tile: &Tile,
        left: &Left,
        end: End,
        (first_row, rows): (usize, usize),
        (panel, panels): (usize, usize),
        target: &Target,
    ) {
        let first = panel * PANEL;
        let columns = (panels * PANEL).min(self.outputs - first);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                // SAFETY: the caller's promise; one of these slices is alive at a time.
                let output = |row: usize| unsafe {
                    std::slice::from_raw_parts_mut(target.get().add((first_row + row) * self.outputs + first), columns)
                };
                let bias = &self.bias[first..][..columns];
                for (row, sums) in tile.0[..rows].iter().enumerate() {
                    let (sums, output) = (&sums[..columns], output(row));
                    if self.precision == Precision::Int8 {
                        let (row_scale, zero) = left.quantization(first_row + row);
                        let zero = zero - self.kernel.offset;
                        let (scales, column_sums) = (&self.scales[first..][..columns], &self.sums[first..][..columns]);
                        for column in 0..columns {
                            let sum = (sums[column] as i32).wrapping_sub(zero.wrapping_mul(column_sums[column]));
                            output[column] = sum as f32 * (row_scale * scales[column]) + bias[column];
                        }
                    } else {
                        for column in 0..columns {
                            output[column] = f32::from_bits(sums[column]) + bias[column];
                        }
                    }
                }
                if end == End::Gelu {
                    gelu((0..rows).map(output));
                }
            },
        );
    }
}

/// Computes the tiles of a product on the threads of the current rayon pool, and passes each to `finish` with its first
/// row, its number of rows, its first panel and its number of panels.
///
/// # Safety
/// Both operands are packed for the kernel: in its precision, with the same number of words.
unsafe fn multiply(
    kernel: Kernel,
    left: &Left,
    lines: &[Line],
    finish: impl Fn(&Tile, (usize, usize), (usize, usize)) + Sync,
) {
    let (rows, words) = (left.rows(), left.words());
    let panels = lines.len() / words.max(1);
    let (groups, blocks) = (panels.div_ceil(kernel.panels), rows.div_ceil(kernel.rows));
    let at_once = (LEFT_BYTES / (4 * words.max(1) * kernel.rows)).max(1);
    let task = |blocks: Range<usize>, groups: Range<usize>| {
        #[cfg(target_arch = "x86_64")]
        let _configured = kernel.is_amx.then(amx::Configured::new);
        let mut tile = Tile([[0; TILE_COLUMNS]; TILE_ROWS]);
        for first in blocks.clone().step_by(at_once) {
            for group in groups.clone() {
                let panel = group * kernel.panels;
                for block in first..blocks.end.min(first + at_once) {
                    let row = block * kernel.rows;
                    let operands = Operands {
                        left: left.row(row),
                        stride: left.stride(),
                        right: &raw const lines[panel * words],
                        words,
                        rows: kernel.rows.min(rows - row),
                        panels: kernel.panels.min(panels - panel),
                    };
                    // SAFETY: the kernel is one of this machine's. `left` has the given number of rows and words,
                    // padded for AMX, and `lines` that of panels.
                    unsafe { (kernel.run)(&operands, &mut tile) };
                    finish(&tile, (row, operands.rows), (panel, operands.panels));
                }
            }
        }
    };
    let multiplications = rows.saturating_mul(panels * PANEL).saturating_mul(words * left::per_word(left.precision()));
    let threads = match multiplications {
        ..PARALLEL_FROM => 1,
        _ => rayon::current_num_threads(),
    };
    if threads == 1 {
        return task(0..blocks, 0..groups);
    }
    // More tasks than threads, so that a thread that is late does not hold up the others.
    let wanted = 4 * threads;
    let by_columns = groups.min(wanted);
    let by_rows = blocks.min(wanted.div_ceil(by_columns));
    (0..by_columns * by_rows).into_par_iter().for_each(|number| {
        task(part(blocks, number / by_columns, by_rows), part(groups, number % by_columns, by_columns));
    });
}

/// The weights of an output: a slice that begins with the first one, and the distance to the next.
type Column<'a> = (&'a [f32], usize);

/// Writes the weights of at most 16 columns to the lines of a panel; `round` has the bits of a column's weight, of
/// which a word holds `per_word`.
fn pack(
    inputs: usize,
    lines: &mut [Line],
    columns: &[Column],
    mut round: impl FnMut(usize, f32) -> u32,
    per_word: usize,
) {
    for index in 0..inputs {
        let (line, shift) = (&mut lines[index / per_word].0, 32 / per_word * (index % per_word));
        for (lane, (weights, distance)) in columns.iter().enumerate() {
            line[lane] |= round(lane, weights[index * distance]) << shift;
        }
    }
}

/// The scale of each of at most 16 columns: 127 stands for the largest weight.
fn set_scales(inputs: usize, columns: &[Column], scales: &mut [f32]) {
    let mut largest = [0.0_f32; PANEL];
    for index in 0..inputs {
        for (largest, (weights, distance)) in largest.iter_mut().zip(columns) {
            *largest = largest.max(weights[index * distance].abs());
        }
    }
    for (scale, largest) in scales.iter_mut().zip(largest) {
        *scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    }
}

/// The exact GELU of every element of some rows.
#[inline(always)]
fn gelu<'a>(rows: impl Iterator<Item = &'a mut [f32]>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: this machine has AVX-512.
        return unsafe { x86::gelu_avx512(rows) };
    }
    for x in rows.flatten() {
        *x *= 0.5 * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// The output of a product, whose parts several threads write.
struct Target(*mut f32);

impl Target {
    /// A method, so that a closure captures the whole, which threads may share, and not the pointer.
    fn get(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: each task writes a part of its own.
unsafe impl Sync for Target {}

/// The `number`th of `count` nearly equal parts of `0..length`.
fn part(length: usize, number: usize, count: usize) -> Range<usize> {
    length * number / count..length * (number + 1) / count
}
