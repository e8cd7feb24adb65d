//! Measures the matrix multiplication strategies of a GPU at the shapes of a BERT-base step of 32 × 128 tokens. The
//! strategies in `ops/cube/product.rs` are chosen by these measurements.
//!
//! `product_rates DEVICE DTYPE SECONDS` prints a JSON line for each shape and strategy: TFLOP/s (the median of five
//! runs of twenty products), and the largest difference from the first strategy that ran.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use burn::backend::{DType, Shape};
use burn_cubecl::kernel::prng::random_normal;
use burn_cubecl::ops::{into_data_sync, numeric::empty_device_contiguous_dtype};
use burn_cubecl::{CubeDevice, tensor::CubeTensor};
use cubecl::future::block_on;
use cubecl::ir::{ElemType, FloatKind};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as Levels;
use cubek::matmul::multi_level::components::tile::TileMatmulKind::{Cmma, Mma};
use cubek::matmul::multi_level::routines::batch::double_buffering::DoubleBufferingArgs;
use cubek::matmul::multi_level::routines::batch::ordered_double_buffering::OrderedSelectionArgs;
use cubek::matmul::multi_level::routines::batch::simple::SimpleArgs;
use cubek::matmul::routine::BlueprintStrategy::Inferred;
use cubek::matmul::strategy::Strategy;
use cubek::matmul::tiled::{Strategy as Tiles, cmma::CmmaStrategy};
use cubek::std::InputBinding;

/// A product `[batch, m, k] × [batch, k, n]`, and which operands are transposed views.
struct Product {
    name: &'static str,
    /// batch, m, n, k.
    size: [usize; 4],
    transposed: [bool; 2],
}

/// The products of a training step of BERT-base, and a large one.
const PRODUCTS: [Product; 9] = [
    product("feed-forward up", [1, 4096, 3072, 768], [false, false]),
    product("feed-forward up, gradient of its input", [1, 4096, 768, 3072], [false, true]),
    product("feed-forward up, gradient of its weights", [1, 768, 3072, 4096], [true, false]),
    product("attention output", [1, 4096, 768, 768], [false, false]),
    product("vocabulary", [1, 608, 30522, 768], [false, true]),
    product("attention scores", [384, 128, 128, 64], [false, true]),
    product("query, key and value", [1, 4096, 2304, 768], [false, false]),
    product("attention output, gradient of its weights", [1, 768, 768, 4096], [true, false]),
    product("large", [1, 8192, 8192, 8192], [false, false]),
];

const fn product(name: &'static str, size: [usize; 4], transposed: [bool; 2]) -> Product {
    Product { name, size, transposed }
}

/// The strategies to measure, by name.
fn strategies() -> Vec<(&'static str, Strategy)> {
    let simple = |tile_matmul, multi_rows| SimpleArgs { tile_matmul, multi_rows };
    let double = |tile_matmul, specialized| DoubleBufferingArgs { tile_matmul, specialized };
    let ordered = |tile_matmul, rows| OrderedSelectionArgs {
        tile_matmul,
        partition_k: Some(2),
        row_count: Some(rows),
        rows_per_plane: Some(2),
    };
    vec![
        ("simple cyclic cmma", Levels::SimpleCyclicCmma(Inferred(simple(Cmma, false))).into()),
        ("double cyclic mma", Levels::DoubleCyclicMma(Inferred(double(Mma, false))).into()),
        ("ordered double mma 8", Levels::OrderedDoubleMma(Inferred(ordered(Mma, 8))).into()),
        ("specialized tma mma", Levels::SpecializedTmaMma(Inferred(().into())).into()),
        ("tiled cmma tma", Tiles::Cmma(Inferred(CmmaStrategy::tma())).into()),
        ("simple cyclic mma rows", Levels::SimpleCyclicMma(Inferred(simple(Mma, true))).into()),
        ("simple tma mma rows", Levels::SimpleTmaMma(Inferred(simple(Mma, true))).into()),
        ("specialized cyclic mma", Levels::SpecializedCyclicMma(Inferred(().into())).into()),
        ("tiled cmma async", Tiles::Cmma(Inferred(CmmaStrategy::async_copy())).into()),
        ("tiled cmma", Tiles::Cmma(Inferred(CmmaStrategy::default())).into()),
        ("simple cyclic mma", Levels::SimpleCyclicMma(Inferred(simple(Mma, false))).into()),
        ("simple cyclic cmma rows", Levels::SimpleCyclicCmma(Inferred(simple(Cmma, true))).into()),
        ("double cyclic cmma", Levels::DoubleCyclicCmma(Inferred(double(Cmma, false))).into()),
        ("ordered double cmma 8", Levels::OrderedDoubleCmma(Inferred(ordered(Cmma, 8))).into()),
        ("ordered double mma 4", Levels::OrderedDoubleMma(Inferred(ordered(Mma, 4))).into()),
        ("double tma mma", Levels::DoubleTmaMma(Inferred(double(Mma, false))).into()),
        ("simple unit", Levels::SimpleUnit(Default::default()).into()),
        ("double unit", Levels::DoubleUnit(Default::default()).into()),
    ]
}

/// A tensor of normal numbers; if `transposed`, a transposed view of this shape.
fn operand(device: &CubeDevice, [batch, rows, columns]: [usize; 3], transposed: bool, dtype: DType) -> CubeTensor {
    let shape = if transposed { [batch, columns, rows] } else { [batch, rows, columns] };
    let mut tensor = random_normal(Shape::from(shape), device, 0.0, 1.0, dtype);
    if transposed {
        tensor.meta.swap(1, 2);
    }
    tensor
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or(default.into());
    let device = match next("cuda").as_str() {
        "cuda" => CubeDevice::Cuda(Default::default()),
        _ => CubeDevice::Wgpu(Default::default()),
    };
    let (dtype, kind) = match next("bf16").as_str() {
        "f32" => (DType::F32, FloatKind::F32),
        "f16" => (DType::F16, FloatKind::F16),
        _ => (DType::BF16, FloatKind::BF16),
    };
    let end = Instant::now() + Duration::from_secs(next("60").parse().unwrap_or(60));
    println!("{{\"device\":\"{}\"}}", device.client().name());
    for product in PRODUCTS {
        let operands = Operands::new(&product, &device, dtype, ElemType::Float(kind));
        let mut expected = None;
        for (strategy_name, strategy) in strategies() {
            if Instant::now() > end {
                return;
            }
            let result = measure(&operands, &strategy, &mut expected);
            println!("{{\"product\":\"{}\",\"strategy\":\"{strategy_name}\",{result}}}", product.name);
        }
    }
}

/// The operands and the output of a product on a device.
struct Operands {
    lhs: CubeTensor,
    rhs: CubeTensor,
    out: CubeTensor,
    element: ElemType,
    /// Floating-point operations of the product.
    operations: f64,
}

impl Operands {
    fn new(product: &Product, device: &CubeDevice, dtype: DType, element: ElemType) -> Self {
        let Product { size: [batch, m, n, k], transposed, .. } = *product;
        let shape = Shape::from([batch, m, n]);
        Self {
            lhs: operand(device, [batch, m, k], transposed[0], dtype),
            rhs: operand(device, [batch, k, n], transposed[1], dtype),
            out: empty_device_contiguous_dtype(device.client(), device.clone(), shape, dtype),
            element,
            operations: 2.0 * (batch * m * n * k) as f64,
        }
    }

    /// Launches the product.
    fn multiply(&self, strategy: &Strategy) -> Result<(), String> {
        let input = |x: &CubeTensor| InputBinding::new(x.clone().binding(), self.element);
        let elements = MatmulGlobalElems { lhs: self.element, rhs: self.element, out: self.element };
        let mut elements = MatmulElems::from_globals(&elements);
        let (client, out) = (&self.out.client, self.out.clone().binding());
        launch_ref(strategy, client, input(&self.lhs), input(&self.rhs), out, &mut elements)
            .map_err(|error| format!("{error:?}"))
    }

    /// Waits for the device.
    fn sync(&self) -> Result<(), String> {
        block_on(self.out.client.sync()).map_err(|error| format!("{error:?}"))
    }
}

/// Measures a strategy; returns the members of its JSON object. `expected` is the output of the first strategy that
/// ran.
fn measure(operands: &Operands, strategy: &Strategy, expected: &mut Option<Vec<f32>>) -> String {
    let started = Instant::now();
    let attempt = AssertUnwindSafe(|| operands.multiply(strategy).and_then(|()| operands.sync()));
    let failure = match catch_unwind(attempt) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some("panicked".into()),
    };
    let first = started.elapsed().as_secs_f64();
    if let Some(failure) = failure {
        let failure: String = failure.chars().take(160).map(|c| if c == '"' { '\'' } else { c }).collect();
        return format!("\"failed\":{failure:?}");
    }
    let mut seconds = [(); 5].map(|()| {
        let started = Instant::now();
        (0..20).for_each(|_| drop(operands.multiply(strategy)));
        let _ = operands.sync();
        started.elapsed().as_secs_f64() / 20.0
    });
    seconds.sort_by(f64::total_cmp);
    let values: Vec<f32> = into_data_sync(operands.out.clone()).iter::<f32>().take(1 << 20).collect();
    let worst = expected.as_ref().map_or(0.0, |expected| largest_difference(&values, expected));
    expected.get_or_insert(values);
    let (rate, micros) = (operands.operations / seconds[2] / 1e12, seconds[2] * 1e6);
    format!("\"tflops\":{rate:.1},\"us\":{micros:.1},\"worst\":{worst},\"first_s\":{first:.2}")
}

/// The largest difference of two outputs; NaN if any is.
fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, x| if x > worst || x.is_nan() { x } else { worst })
}
