//! Sizes and buffers of kernel launches.

use burn::backend::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::{MemoryLayout, MemoryLayoutDescriptor};

/// Units (threads) in a cube (thread block).
pub const UNITS: u32 = 256;

/// A contiguous, uninitialized tensor on the device of `like`.
pub fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// Contiguous, uninitialized tensors with the shapes and the device of `likes`, in one allocation.
pub fn empty_like(likes: &[CubeTensor], dtype: DType) -> Vec<CubeTensor> {
    let Some(first) = likes.first() else { return Vec::new() };
    let descriptor = |like: &CubeTensor| MemoryLayoutDescriptor::contiguous(like.meta.shape().clone(), dtype.size());
    let layouts = first.client.empty_tensors(likes.iter().map(descriptor).collect());
    let tensor = |(like, layout): (&CubeTensor, MemoryLayout)| {
        let shape = like.meta.shape().clone();
        CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, layout.memory, dtype)
    };
    likes.iter().zip(layouts).map(tensor).collect()
}

/// The contiguous tensor.
pub fn contiguous(x: CubeTensor) -> CubeTensor {
    into_contiguous(x)
}

/// The tensor, contiguous and without other owners, so that it can be changed in place; copied if necessary.
pub fn owned(x: CubeTensor) -> CubeTensor {
    let x = contiguous(x);
    // On CUDA, rows of a copy are padded.
    if x.can_mut() { x } else { contiguous(x.copy()) }
}

/// The number type of a tensor's kernel argument.
pub fn element(dtype: DType) -> ElemType {
    match dtype {
        DType::F16 => ElemType::Float(FloatKind::F16),
        DType::BF16 => ElemType::Float(FloatKind::BF16),
        _ => ElemType::Float(FloatKind::F32),
    }
}

/// A tensor as a kernel argument. In the kernel its length is that of the tensor, to 4 bytes: some devices round up
/// what they allocate (CUDA to 512 bytes), which is left out here.
pub fn buffer(x: &CubeTensor) -> BufferArg {
    let mut x = x.clone();
    let bytes = (x.meta.num_elements() * x.dtype.size()).next_multiple_of(4) as u64;
    let rest = x.handle.size_in_used().saturating_sub(bytes);
    x.handle.offset_end = Some(x.handle.offset_end.unwrap_or(0) + rest);
    x.into_buffer_arg()
}

/// How many elements of rows of this width a unit reads or writes at once: as many as the device moves in one
/// instruction, at most `most`.
pub fn vector_size(x: &CubeTensor, width: usize, most: usize) -> usize {
    let mut sizes = x.client.io_optimized_vector_sizes(x.dtype.size());
    sizes.find(|&size| size <= most && width.is_multiple_of(size)).unwrap_or(1)
}

/// Enough cubes for `count` items with `each` items per cube, within the limits of each grid dimension.
pub fn cubes(count: usize, each: usize) -> CubeCount {
    let cubes = count.div_ceil(each).max(1) as u32;
    const WIDEST: u32 = 32_768;
    CubeCount::Static(cubes.min(WIDEST), cubes.div_ceil(WIDEST), 1)
}

/// The launch size for one unit per element.
pub fn elementwise(count: usize) -> (CubeCount, CubeDim) {
    (cubes(count, UNITS as usize), CubeDim::new_1d(UNITS))
}

/// How units are assigned to rows: `lanes` units along each row, `UNITS / lanes` rows per cube. A row is read and
/// written in vectors; a kernel that is told how many vectors each unit has keeps them in registers in between.
#[derive(Debug, Clone, Copy)]
pub struct RowGrid {
    /// Units per row, a power of two.
    pub lanes: u32,
    /// The size of a plane (warp), whose units can sum without shared memory, if it is fixed; else 0.
    pub plane: u32,
    /// Elements per vector.
    pub vector: usize,
    /// Vectors per row.
    pub width: u32,
}

impl RowGrid {
    /// The grid for rows of `x` of this width, in vectors of at most `most` elements.
    pub fn new(x: &CubeTensor, width: usize, most: usize) -> Self {
        let vector = vector_size(x, width, most);
        let width = width / vector;
        let lanes = if width <= 256 { 32 } else { UNITS };
        let hardware = &x.client.properties().hardware;
        let is_fixed = hardware.plane_size_min == hardware.plane_size_max && hardware.plane_size_max == 32;
        Self { lanes, plane: if is_fixed { 32 } else { 0 }, vector, width: width as u32 }
    }

    /// The vectors of a row for each of its units. A kernel is compiled for each number: where rows have many lengths,
    /// round it up.
    pub fn each(self) -> u32 {
        self.width.div_ceil(self.lanes)
    }

    /// The launch size for this many rows.
    pub fn launch(self, rows: usize) -> (CubeCount, CubeDim) {
        let rows_of_cube = UNITS / self.lanes;
        (cubes(rows, rows_of_cube as usize), CubeDim::new_2d(self.lanes, rows_of_cube))
    }
}
