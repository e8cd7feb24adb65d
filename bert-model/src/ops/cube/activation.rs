//! A dense layer with GELU on a GPU: the product, then bias and GELU in one kernel.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{buffer, contiguous, element, elementwise, empty, vector_size};
use super::product::Weights;
use super::rows::sum_rows;
use crate::ops::autodiff::{Differentiable, apply};

/// The error function to about 3·10⁻⁷, by the same rational approximation as on the CPU.
#[cube]
fn erf(x: f32) -> f32 {
    let x = clamp(x, -4.0f32, 4.0f32);
    let z = x * x;
    let a = -2.726_142_3e-10f32;
    let a = a * z + 2.770_681_3e-8f32;
    let a = a * z - 2.101_024e-6f32;
    let a = a * z - 5.692_506_4e-5f32;
    let a = a * z - 7.349_906_3e-4f32;
    let a = a * z - 2.954_6e-3f32;
    let a = a * z - 1.609_603_2e-2f32;
    let b = -1.456_607_2e-5f32;
    let b = b * z - 2.133_740_7e-4f32;
    let b = b * z - 1.682_827_1e-3f32;
    let b = b * z - 7.373_329e-3f32;
    let b = b * z - 1.426_474e-2f32;
    x * a / b
}

/// Φ(x), the normal distribution function.
#[cube]
fn normal_cdf(x: f32) -> f32 {
    0.5f32 * (1.0f32 + erf(x * 0.707_106_77f32))
}

/// `gelu(x + bias)`.
#[cube(launch)]
fn bias_gelu<E: Float, N: Size>(
    x: &[Vector<E, N>],
    bias: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    width: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < y.len() {
        let (x, bias) = (x[at], bias[at % width as usize]);
        let mut result = x;
        #[unroll]
        for element in 0..N::value() {
            let x = f32::cast_from(x.extract(element)) + f32::cast_from(bias.extract(element));
            result.insert(element, E::cast_from(x * normal_cdf(x)));
        }
        y[at] = result;
    }
}

/// The gradient of `x` from that of [`bias_gelu`].
#[cube(launch)]
fn bias_gelu_gradient<E: Float, N: Size>(
    x: &[Vector<E, N>],
    bias: &[Vector<E, N>],
    gradient: &[Vector<E, N>],
    dx: &mut [Vector<E, N>],
    width: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < dx.len() {
        let (x, bias, gradient) = (x[at], bias[at % width as usize], gradient[at]);
        let mut result = x;
        #[unroll]
        for element in 0..N::value() {
            let x = f32::cast_from(x.extract(element)) + f32::cast_from(bias.extract(element));
            // Φ(x) + x·φ(x); 1 / √(2π) = 0.3989…
            let slope = normal_cdf(x) + x * 0.398_942_3f32 * (-0.5f32 * x * x).exp();
            result.insert(element, E::cast_from(f32::cast_from(gradient.extract(element)) * slope));
        }
        dx[at] = result;
    }
}

/// A dense layer with GELU on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait ActivationOps: Backend {
    /// `gelu(x·W + b)`. Shapes: `x` `[R, I]`, `weight` `[I, O]`, `bias` `[O]`, output `[R, O]`.
    fn gpu_linear_gelu(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Weights stored as `[I, O]`.
const WEIGHTS: Weights = Weights { transposed: false };

impl ActivationOps for Cube {
    fn gpu_linear_gelu(x: CubeTensor, weight: CubeTensor, bias: CubeTensor) -> CubeTensor {
        LinearGelu.forward([x, weight, bias]).0
    }
}

/// [`ActivationOps::gpu_linear_gelu`] for autodiff.
#[derive(Debug, Clone)]
struct LinearGelu;

impl Differentiable<Cube, 3> for LinearGelu {
    /// `x`, the weights, their product, and the bias.
    type Saved = [CubeTensor; 4];

    fn forward(&self, inputs: [CubeTensor; 3]) -> (CubeTensor, Self::Saved) {
        let [x, weight, bias] = inputs.map(contiguous);
        let product = WEIGHTS.apply(&x, &weight);
        let y = empty(&product, product.meta.shape().clone(), product.dtype);
        let width = product.meta.shape()[1];
        let vector = vector_size(&product, width, 8);
        let (count, dim) = elementwise(product.meta.num_elements() / vector);
        let (inputs, width) = ((buffer(&product), buffer(&bias)), (width / vector) as u32);
        bias_gelu::launch(&x.client, count, dim, vector, inputs.0, inputs.1, buffer(&y), width, element(x.dtype));
        (y, [x, weight, product, bias])
    }

    fn backward(
        self,
        [x, weight, product, bias]: Self::Saved,
        gradient: CubeTensor,
        [for_x, for_weight, for_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let gradient = contiguous(gradient);
        let dproduct = empty(&product, product.meta.shape().clone(), product.dtype);
        let [rows, outputs] = [product.meta.shape()[0], product.meta.shape()[1]];
        let vector = vector_size(&product, outputs, 8);
        let (count, dim) = elementwise(product.meta.num_elements() / vector);
        bias_gelu_gradient::launch(
            &x.client,
            count,
            dim,
            vector,
            buffer(&product),
            buffer(&bias),
            buffer(&gradient),
            buffer(&dproduct),
            (outputs / vector) as u32,
            element(product.dtype),
        );
        [
            for_x.then(|| WEIGHTS.input_gradient(&weight, &dproduct)),
            for_weight.then(|| WEIGHTS.gradient(&x, &dproduct)),
            for_bias.then(|| sum_rows(&dproduct, rows, outputs)),
        ]
    }
}

impl<C: CheckpointStrategy> ActivationOps for Autodiff<Cube, C> {
    fn gpu_linear_gelu(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, Cube, C, 3>(LinearGelu, [x, weight, bias])
    }
}

/// See [`crate::ops::linear_gelu`].
pub fn linear_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    let (mut shape, inputs) = (x.shape(), x.dims()[D - 1]);
    let x = x.reshape([shape.num_elements() / inputs.max(1), inputs]).into_dispatch();
    shape[D - 1] = bias.dims()[0];
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    Tensor::<2>::from_dispatch(Dispatch::gpu_linear_gelu(x, weight, bias)).reshape(shape)
}
