//! Dropout on a GPU: the masks of [`mod@crate::ops::dropout`], computed on the device from a table of keys.

use std::cell::RefCell;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, Dispatch, backend_extension};
use burn::tensor::{Device, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{buffer, contiguous, element, elementwise, empty};
use crate::ops::autodiff::{Differentiable, apply};
use crate::ops::dropout::{MaskPosition, next_site, position, scale, site_key, threshold};
use crate::ops::{by_rows, rows_of_a_sequence};

/// Sites per table of keys.
const SITES: u32 = 256;

/// A device's table of keys: the number of the first sequence, 0, then both halves of each site's key. It is computed
/// and copied to the device once per seed.
struct Table {
    device: Device,
    seed: u64,
    first_sequence: u32,
    block: u32,
    keys: Tensor<1, burn::tensor::Int>,
}

thread_local! {
    /// The last table of this thread.
    static TABLE: RefCell<Option<Table>> = const { RefCell::new(None) };
}

/// One application of dropout in a model. The sites of a model have the same numbers in every step.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// The row in the table of keys.
    pub number: u32,
    /// The probability in units of 2⁻³²; 0 for no dropout.
    pub p: u32,
    /// The factor of the elements that are kept, 1 / (1 − p).
    pub scale: f32,
}

impl Site {
    /// The next site of this thread, and its table of keys. Without `p` the site has no dropout, and is not counted.
    pub fn next(p: Option<f64>, device: &Device) -> (Self, Tensor<1, burn::tensor::Int>) {
        let device = device.clone().inner();
        let p = p.map_or(0, threshold);
        let position: MaskPosition = match p {
            0 => position(),
            _ => next_site(),
        };
        let (block, number) = (position.site / SITES, position.site % SITES);
        let site = Self { number: if p == 0 { 0 } else { number }, p, scale: scale(p) };
        TABLE.with_borrow_mut(|table| {
            if let Some(table) = table
                && table.device == device
                && (p == 0
                    || (table.seed, table.first_sequence, table.block)
                        == (position.seed, position.first_sequence, block))
            {
                return (site, table.keys.clone());
            }
            let keys = (0..SITES).map(|site| site_key(position.seed, block * SITES + site));
            let halves = keys.flat_map(|key| [key as u32 as i32, (key >> 32) as u32 as i32]);
            let values: Vec<i32> = [position.first_sequence as i32, 0].into_iter().chain(halves).collect();
            let keys = Tensor::<1, burn::tensor::Int>::from_data(&values[..], &device);
            let MaskPosition { seed, first_sequence, .. } = position;
            *table = Some(Table { device, seed, first_sequence, block, keys: keys.clone() });
            (site, keys)
        })
    }
}

/// The 32-bit finalizer of MurmurHash3.
#[cube]
#[allow(arithmetic_overflow)]
fn scramble(x: u32) -> u32 {
    let a = (x ^ (x >> 16u32)) * 0x85EB_CA6Bu32;
    let b = (a ^ (a >> 13u32)) * 0xC2B2_AE35u32;
    b ^ (b >> 16u32)
}

/// The dropout factor (0 or `scale`) of element `index` in mask `group` of sequence `number`, which has `groups` masks.
#[cube]
#[allow(arithmetic_overflow)]
#[allow(clippy::too_many_arguments)]
pub fn factor(keys: &[u32], site: u32, number: u32, group: u32, groups: u32, index: u32, p: u32, scale: f32) -> f32 {
    let sequence = (keys[0] + number) * groups + group;
    let low = scramble((sequence * 0x9E37_79B9u32) ^ keys[(2u32 + 2u32 * site) as usize]);
    let high = scramble(low ^ keys[(3u32 + 2u32 * site) as usize]);
    let a = (index * 0x9E37_79B9u32) ^ low;
    let b = (a ^ (a >> 16u32)) * 0x85EB_CA6Bu32;
    let c = ((b ^ (b >> 13u32)) * 0xC2B2_AE35u32) ^ high;
    let d = (c ^ (c >> 16u32)) * 0x7FEB_352Du32;
    let bits = d ^ (d >> 15u32);
    select(bits < p, 0.0f32, scale)
}

/// [`factor`] for the elements `index` and after of a vector.
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn factors<N: Size>(
    keys: &[u32],
    site: u32,
    number: u32,
    group: u32,
    groups: u32,
    index: u32,
    p: u32,
    scale: f32,
) -> Vector<f32, N> {
    let mut factors = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for element in 0..N::value() {
        let index = index + comptime!(element as u32);
        factors.insert(element, factor(keys, site, number, group, groups, index, p, scale));
    }
    factors
}

/// Dropout of sequences of `sequence` elements.
#[cube(launch)]
fn dropout_kernel<E: Float>(
    x: &[E],
    keys: &[u32],
    y: &mut [E],
    site: u32,
    p: u32,
    scale: f32,
    sequence: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < y.len() {
        let (number, index) = (at as u32 / sequence, at as u32 % sequence);
        let factor = factor(keys, site, number, 0u32, 1u32, index, p, scale);
        y[at] = E::cast_from(f32::cast_from(x[at]) * factor);
    }
}

/// Dropout on a GPU, where no other kernel includes it.
#[backend_extension(Cube, Autodiff)]
pub trait DropoutOps: Backend {
    /// Dropout of sequences of `sequence` elements.
    fn gpu_dropout(x: FloatTensor<Self>, keys: IntTensor<Self>, site: Site, sequence: usize) -> FloatTensor<Self>;
}

impl DropoutOps for Cube {
    fn gpu_dropout(x: CubeTensor, keys: CubeTensor, site: Site, sequence: usize) -> CubeTensor {
        let x = contiguous(x);
        let y = empty(&x, x.meta.shape().clone(), x.dtype);
        let (count, dim) = elementwise(x.meta.num_elements());
        let Site { number, p, scale } = site;
        let (inputs, element) = ((buffer(&x), buffer(&keys)), element(x.dtype));
        dropout_kernel::launch(
            &x.client,
            count,
            dim,
            inputs.0,
            inputs.1,
            buffer(&y),
            number,
            p,
            scale,
            sequence as u32,
            element,
        );
        y
    }
}

/// [`DropoutOps::gpu_dropout`] for autodiff.
#[derive(Debug, Clone)]
struct GpuDropout<B: Backend> {
    keys: IntTensor<B>,
    site: Site,
    sequence: usize,
}

impl<B: DropoutOps> Differentiable<B, 1> for GpuDropout<B> {
    type Saved = ();

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, ()) {
        (B::gpu_dropout(x, self.keys.clone(), self.site, self.sequence), ())
    }

    fn backward(self, (): (), gradient: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::gpu_dropout(gradient, self.keys, self.site, self.sequence))]
    }
}

impl<B: DropoutOps, C: CheckpointStrategy> DropoutOps for Autodiff<B, C> {
    fn gpu_dropout(x: FloatTensor<Self>, keys: IntTensor<Self>, site: Site, sequence: usize) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(GpuDropout::<B> { keys, site, sequence }, [x])
    }
}

/// See [`crate::ops::dropout()`].
pub fn dropout<const D: usize>(x: Tensor<D>, p: f64) -> Tensor<D> {
    let (site, keys) = Site::next(Some(p), &x.device());
    let sequence = rows_of_a_sequence(&x) * x.dims()[D - 1];
    by_rows(x, |x| {
        Tensor::from_dispatch(Dispatch::gpu_dropout(x.into_dispatch(), keys.into_dispatch(), site, sequence))
    })
}
