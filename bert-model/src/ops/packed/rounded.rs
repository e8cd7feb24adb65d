//! Products of a training step in `bf16`: both operands are rounded and packed anew each time, the sums are `f32`.

use std::cell::RefCell;
use std::sync::LazyLock;

use pulp::Arch;
use rayon::prelude::*;

use super::kernel::{Kernel, Line, PANEL, Tile};
use super::left::{Left, round_row, rounded_bits, words};
use super::{Precision, Target, kernels, multiply};
use crate::ops::gemm::{View, Write};

/// Words of a line, and lines, that are transposed at once.
type Block = [[u32; PANEL]; PANEL];

/// Panels that are packed together, so that more than a cache line of each row is read at once.
const PANELS_AT_ONCE: usize = 4;

thread_local! {
    /// The memory of the packed operands of this thread's products: as much as the largest of them took.
    static OPERANDS: RefCell<(Left, Vec<Line>)> = RefCell::default();
}

/// The kernel of this machine.
static KERNEL: LazyLock<Kernel> = LazyLock::new(|| kernels(Precision::Bf16)[0]);

/// Computes the product `left · right` of shapes `[rows, inner]` and `[inner, columns]` in `bf16`. All matrices are
/// contiguous; the output is row-major, the operands may be transposed. Uses the threads of the current rayon pool.
pub(in crate::ops) fn product(
    [rows, columns, inner]: [usize; 3],
    write: Write,
    output: &mut [f32],
    left: (&[f32], View),
    right: (&[f32], View),
) {
    assert_eq!(
        [output.len(), left.0.len(), right.0.len()],
        [rows * columns, rows * inner, inner * columns],
        "sizes of a product"
    );
    let (old, new) = write.weights();
    if inner == 0 {
        // Neither operand has a word.
        match write {
            Write::Replace => output.fill(0.0),
            _ => output.iter_mut().for_each(|output| *output *= old),
        }
        return;
    }
    let target = Target(output.as_mut_ptr());
    // Taken, not borrowed: a thread that waits for others may start another product.
    let (mut packed, mut lines) = OPERANDS.take();
    match left.1.is_row_major() {
        true => packed.set(Precision::Bf16, left.0, inner),
        false => packed.set_transposed(left.0, [rows, inner]),
    }
    pack([inner, columns], right, &mut lines);
    let finish = |tile: &Tile, (first_row, rows): (usize, usize), (panel, panels): (usize, usize)| {
        let first = panel * PANEL;
        let count = (panels * PANEL).min(columns - first);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (row, sums) in tile.0[..rows].iter().enumerate() {
                    // SAFETY: the length of the output is asserted above, and every tile is a part of its own.
                    let output = unsafe {
                        std::slice::from_raw_parts_mut(target.get().add((first_row + row) * columns + first), count)
                    };
                    let sums = sums[..count].iter().map(|&sum| f32::from_bits(sum));
                    let pairs = output.iter_mut().zip(sums);
                    match write {
                        Write::Replace => pairs.for_each(|(output, sum)| *output = sum),
                        _ => pairs.for_each(|(output, sum)| *output = old * *output + new * sum),
                    }
                }
            },
        );
    };
    // SAFETY: both operands are packed for this kernel.
    unsafe { multiply(*KERNEL, &packed, &lines, finish) };
    OPERANDS.set((packed, lines));
}

/// Rounds and packs a right operand `[inner, columns]`.
fn pack([inner, columns]: [usize; 2], (values, view): (&[f32], View), lines: &mut Vec<Line>) {
    let words = words(Precision::Bf16, inner);
    lines.resize(columns.div_ceil(PANEL) * words, Line([0; PANEL]));
    let tasks = lines.par_chunks_mut((PANELS_AT_ONCE * words).max(1)).enumerate();
    tasks.for_each(|(task, lines)| {
        let first = task * PANELS_AT_ONCE * PANEL;
        let count = (PANELS_AT_ONCE * PANEL).min(columns - first);
        Arch::new().dispatch(
            #[inline(always)]
            || match view.is_row_major() {
                true => pack_rows(values, columns, (first, count), (lines, words)),
                false => pack_columns(&values[first * inner..][..count * inner], inner, (lines, words)),
            },
        );
    });
}

/// Packs some columns of a row-major right operand with `distance` columns in all: a word is the same column of two
/// rows.
#[inline(always)]
fn pack_rows(values: &[f32], distance: usize, columns: (usize, usize), (lines, words): (&mut [Line], usize)) {
    for word in 0..words {
        let row = |number: usize| part_of_row(values, distance, number, columns);
        let (low, high) = (row(2 * word), row(2 * word + 1));
        for (panel, lines) in lines.chunks_exact_mut(words).enumerate() {
            let [low, high] = [low, high].map(|row| row.get(panel * PANEL..).unwrap_or_default());
            lines[word].0 = pair(low, high);
        }
    }
}

/// Packs some columns of a transposed right operand, `[columns, inner]` in memory: a word is two neighbors.
#[inline(always)]
fn pack_columns(values: &[f32], inner: usize, (lines, words): (&mut [Line], usize)) {
    for (columns, lines) in values.chunks(PANEL * inner.max(1)).zip(lines.chunks_exact_mut(words)) {
        for (number, lines) in lines.chunks_exact_mut(PANEL).enumerate() {
            let mut block: Block = [[0; PANEL]; PANEL];
            for (column, words) in columns.chunks_exact(inner).zip(&mut block) {
                let rest = &column[(number * 2 * PANEL).min(inner)..];
                round_row(&rest[..rest.len().min(2 * PANEL)], bytemuck::cast_slice_mut(words));
            }
            for (word, line) in lines.iter_mut().enumerate() {
                line.0 = std::array::from_fn(|column| block[column][word]);
            }
        }
    }
}

impl Left {
    /// Rounds a transposed left operand `[rows, inner]`, in memory `[inner, rows]`, to `bf16`.
    fn set_transposed(&mut self, values: &[f32], [rows, inner]: [usize; 2]) {
        let stride = self.resize(Precision::Bf16, [rows, inner]);
        let words = self.words();
        let tasks = self.values.par_chunks_mut(PANEL * stride).enumerate();
        tasks.for_each(|(task, output)| {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let first = task * PANEL;
                    let count = PANEL.min(rows.saturating_sub(first));
                    for start in (0..words).step_by(PANEL) {
                        let mut block: Block = [[0; PANEL]; PANEL];
                        for (word, block) in block.iter_mut().enumerate() {
                            let row = |number: usize| part_of_row(values, rows, number, (first, count));
                            *block = pair(row(2 * (start + word)), row(2 * (start + word) + 1));
                        }
                        for (row, output) in output.chunks_exact_mut(stride).take(count).enumerate() {
                            let words: [u32; PANEL] = std::array::from_fn(|word| block[word][row]);
                            output[start..][..PANEL].copy_from_slice(&words);
                        }
                    }
                },
            );
        });
    }
}

/// Some elements of a row of a row-major matrix; none if it has no such row.
#[inline(always)]
fn part_of_row(values: &[f32], distance: usize, number: usize, (first, count): (usize, usize)) -> &[f32] {
    let start = number * distance + first;
    values.get(start..start + count).unwrap_or_default()
}

/// The first 16 elements of two rows, rounded, as words. What a row lacks is 0.
#[inline(always)]
fn pair(low: &[f32], high: &[f32]) -> [u32; PANEL] {
    let join = |low: &[f32; PANEL], high: &[f32; PANEL]| {
        std::array::from_fn(|lane| rounded_bits(low[lane]) >> 16 | rounded_bits(high[lane]) & 0xffff_0000)
    };
    match (low.first_chunk(), high.first_chunk()) {
        (Some(low), Some(high)) => join(low, high),
        _ => {
            let mut padded = [[0.0; PANEL]; 2];
            for (padded, row) in padded.iter_mut().zip([low, high]) {
                let count = row.len().min(PANEL);
                padded[..count].copy_from_slice(&row[..count]);
            }
            join(&padded[0], &padded[1])
        }
    }
}
