//! Matrix products on slices, through the gemm crate.

use gemm::Parallelism;

/// A matrix within a slice: its first element, the distance of rows and that of columns.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub start: usize,
    pub row: usize,
    pub column: usize,
}

impl View {
    /// Rows of this many columns, one behind the other.
    pub fn rows_of(columns: usize) -> Self {
        Self { start: 0, row: columns, column: 1 }
    }

    /// The same matrix from this row on.
    pub fn below(self, row: usize) -> Self {
        Self { start: self.start + row * self.row, ..self }
    }

    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// Whether all elements of a matrix of this size lie within a slice.
    fn fits(self, rows: usize, columns: usize, length: usize) -> bool {
        rows == 0 || columns == 0 || self.start + (rows - 1) * self.row + (columns - 1) * self.column < length
    }
}

/// What a product does with the numbers that its output holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Replaced,
    AddedTo,
}

/// `output = left · right` or `output += left · right`, with `[rows, inner]` and `[inner, columns]`; on the threads of
/// the rayon pool that it is called from, if there is enough to do.
pub(super) fn product(
    [rows, columns, inner]: [usize; 3],
    effect: Output,
    (output, o): (&mut [f32], View),
    (left, l): (&[f32], View),
    (right, r): (&[f32], View),
) {
    assert!(
        o.fits(rows, columns, output.len()) && l.fits(rows, inner, left.len()) && r.fits(inner, columns, right.len())
    );
    let threads = match rows.saturating_mul(columns).saturating_mul(inner) {
        ..WORTH_SHARING => 1,
        _ => rayon::current_num_threads(),
    };
    // SAFETY: every element that gemm reads or writes is within its slice: asserted above.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            output.as_mut_ptr().add(o.start),
            o.column as isize,
            o.row as isize,
            effect == Output::AddedTo,
            left.as_ptr().add(l.start),
            l.column as isize,
            l.row as isize,
            right.as_ptr().add(r.start),
            r.column as isize,
            r.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None },
        );
    }
}

/// Multiplications from which on threads pay.
const WORTH_SHARING: usize = 1 << 22;
