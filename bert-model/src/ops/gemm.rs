//! Matrix products of slices, by the `gemm` crate.

use gemm::Parallelism;

/// Where a matrix lies in a slice: its first element, and the strides of rows and columns, all in elements.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub start: usize,
    pub row: usize,
    pub column: usize,
}

impl View {
    /// A contiguous row-major matrix with this many columns.
    pub fn row_major(columns: usize) -> Self {
        Self { start: 0, row: columns, column: 1 }
    }

    /// The matrix without its first `rows` rows.
    pub fn skip_rows(self, rows: usize) -> Self {
        Self { start: self.start + rows * self.row, ..self }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// Whether the elements of a row lie side by side.
    pub fn is_row_major(self) -> bool {
        self.column == 1
    }

    /// Whether all elements of a matrix of this size lie within a slice of this length.
    fn fits(self, rows: usize, columns: usize, length: usize) -> bool {
        rows == 0 || columns == 0 || self.start + (rows - 1) * self.row + (columns - 1) * self.column < length
    }
}

/// What becomes of the values in the output of a product.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Write {
    /// The product replaces them.
    Replace,
    /// The product is added to them.
    Add,
    /// The weighted sum of both.
    Combine { output: f32, product: f32 },
}

impl Write {
    /// The weights of the old values and of the product in the sum that is written.
    pub fn weights(self) -> (f32, f32) {
        match self {
            Self::Replace => (0.0, 1.0),
            Self::Add => (1.0, 1.0),
            Self::Combine { output, product } => (output, product),
        }
    }
}

/// Multiplications in a product from which on several threads are faster than one.
const PARALLEL_FROM: usize = 1 << 22;

/// Writes the product `left · right` of shapes `[rows, inner]` and `[inner, columns]`. Large products use all threads
/// of the current rayon pool.
pub(super) fn matmul(
    [rows, columns, inner]: [usize; 3],
    write: Write,
    (output, o): (&mut [f32], View),
    (left, l): (&[f32], View),
    (right, r): (&[f32], View),
) {
    assert!(
        o.fits(rows, columns, output.len()) && l.fits(rows, inner, left.len()) && r.fits(inner, columns, right.len())
    );
    let threads = match rows.saturating_mul(columns).saturating_mul(inner) {
        ..PARALLEL_FROM => 1,
        _ => rayon::current_num_threads(),
    };
    let (old, new) = write.weights();
    // SAFETY: the assertion above: every element that gemm reads or writes lies within its slice.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            output.as_mut_ptr().add(o.start),
            o.column as isize,
            o.row as isize,
            write != Write::Replace,
            left.as_ptr().add(l.start),
            l.column as isize,
            l.row as isize,
            right.as_ptr().add(r.start),
            r.column as isize,
            r.row as isize,
            old,
            new,
            false,
            false,
            false,
            if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None },
        );
    }
}
