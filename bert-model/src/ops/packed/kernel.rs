//! The kernel: one tile of a product, its sums in registers, for every number type and instruction set.
//!
//! All of them read the same layout in memory. A *word* is 32 bits of a row of the left operand: one `f32`, two `bf16`
//! or four `u8` along the inner dimension. A *line* is the same part of the inner dimension for 16 columns of the right
//! operand, 64 bytes. The lines of 16 columns are one *panel*, contiguous in memory. Each step of a kernel adds to 16
//! sums of a row the products of a word with a line.

/// Columns of a panel, and words of a line.
pub(super) const PANEL: usize = 16;
/// Most rows of a tile.
pub(super) const TILE_ROWS: usize = 32;
/// Most columns of a tile, and the distance of its rows.
pub(super) const TILE_COLUMNS: usize = 3 * PANEL;

/// The same word of 16 columns, aligned to a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub [u32; PANEL]);

/// The sums of a tile, the bits of `f32` or `i32`.
#[repr(align(64))]
pub(super) struct Tile(pub [[u32; TILE_COLUMNS]; TILE_ROWS]);

/// Where a kernel finds its operands.
pub(super) struct Operands {
    /// The first word of the first row.
    pub left: *const u32,
    /// Words from one row to the next.
    pub stride: usize,
    /// The first line of the first panel.
    pub right: *const Line,
    /// Words to multiply, and lines of a panel.
    pub words: usize,
    /// Rows of this tile.
    pub rows: usize,
    /// Panels of this tile.
    pub panels: usize,
}

/// A kernel, and the largest tile that it computes at once.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// For messages.
    pub name: &'static str,
    /// Most rows of a tile.
    pub rows: usize,
    /// Most panels of a tile.
    pub panels: usize,
    /// Writes the sums of a tile.
    ///
    /// # Safety
    /// `rows` and `panels` are at least 1 and at most the kernel's, every row has `words` words and every panel as many
    /// lines, and this machine has the kernel's instructions. For AMX, [`super::amx::Configured`] is alive in this
    /// thread, and there are `left::PADDED` rows to read.
    pub run: unsafe fn(&Operands, &mut Tile),
    /// Whether it computes with the tile registers of AMX.
    pub is_amx: bool,
    /// What it subtracts from each integer of the left operand.
    pub offset: i32,
}

/// One step of a kernel: a vector of an instruction set and its product.
pub(super) trait Step {
    type Vector: Copy;

    fn zero() -> Self::Vector;

    /// # Safety
    /// The part of a line that begins here is readable.
    unsafe fn load(part: *const u32) -> Self::Vector;

    /// A word in every lane.
    ///
    /// # Safety
    /// The word is readable.
    unsafe fn splat(word: *const u32) -> Self::Vector;

    /// Adds to the sums the products of words.
    fn add_products(sums: Self::Vector, left: Self::Vector, right: Self::Vector) -> Self::Vector;

    /// # Safety
    /// The part of a line of sums that begins here is writable.
    unsafe fn store(part: *mut u32, sums: Self::Vector);
}

/// Computes a tile of `ROWS` rows and `PANELS` panels of `VECTORS` vectors each. Rows past the operands' last one
/// repeat it.
///
/// # Safety
/// As [`Kernel::run`].
#[inline(always)]
unsafe fn tile<S: Step, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    operands: &Operands,
    tile: &mut Tile,
) {
    let &Operands { left, stride, right, words, rows, .. } = operands;
    let mut sums = [[[S::zero(); VECTORS]; PANELS]; ROWS];
    let lanes = PANEL / VECTORS;
    // SAFETY: every row is one of the operands', every word below `words`, and every panel has as many lines.
    unsafe {
        let starts: [*const u32; ROWS] = std::array::from_fn(|row| left.add(row.min(rows - 1) * stride));
        for word in 0..words {
            let lines: [[S::Vector; VECTORS]; PANELS] = std::array::from_fn(|panel| {
                let line: *const u32 = right.add(panel * words + word).cast();
                std::array::from_fn(|part| S::load(line.add(part * lanes)))
            });
            for row in 0..ROWS {
                let left = S::splat(starts[row].add(word));
                for panel in 0..PANELS {
                    for part in 0..VECTORS {
                        sums[row][panel][part] = S::add_products(sums[row][panel][part], left, lines[panel][part]);
                    }
                }
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        for (panel, sums) in sums.into_iter().enumerate() {
            for (part, sums) in sums.into_iter().enumerate() {
                let line = &mut tile.0[row][panel * PANEL + part * lanes..][..lanes];
                // SAFETY: the slice has the size of a vector.
                unsafe { S::store(line.as_mut_ptr(), sums) };
            }
        }
    }
}

/// [`tile`] for any number of rows up to `MOST`, which is at most 8.
///
/// # Safety
/// As [`Kernel::run`].
#[inline(always)]
pub(super) unsafe fn rows<S: Step, const MOST: usize, const PANELS: usize, const VECTORS: usize>(
    operands: &Operands,
    output: &mut Tile,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match operands.rows {
            1 => tile::<S, 1, PANELS, VECTORS>(operands, output),
            2 => tile::<S, 2, PANELS, VECTORS>(operands, output),
            3 | 4 if MOST > 4 => tile::<S, 4, PANELS, VECTORS>(operands, output),
            5 | 6 if MOST > 6 => tile::<S, 6, PANELS, VECTORS>(operands, output),
            _ => tile::<S, MOST, PANELS, VECTORS>(operands, output),
        }
    }
}
