//! How fast each way of multiplying matrices is on a GPU, at the shapes of a BERT-base step of 32 × 128 tokens: the
//! measurement behind the table of strategies in `ops/cube/product.rs`.
//!
//! `product_rates DEVICE DTYPE SECONDS` prints a JSON line for each shape and strategy: teraflop/s (median of five runs of
//! twenty), and the largest difference from the first strategy that ran.

use std::time::{Duration, Instant};

use burn::backend::{DType, Shape};
use burn_cubecl::kernel::prng::random_normal;
use burn_cubecl::ops::{into_data_sync, numeric::empty_device_contiguous_dtype};
use burn_cubecl::{CubeDevice, tensor::CubeTensor};
use cubecl::future::block_on;
use cubecl::ir::ElemType;
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

/// A product `[batch, m, k] × [batch, k, n]`, and which operands are read transposed.
struct Product {
    name: &'static str,
    size: [usize; 4],
    transposed: [bool; 2],
}

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

/// Normal numbers of the given shape; if transposed, stored the other way round.
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
    let dtype = match next("bf16").as_str() {
        "f32" => DType::F32,
        "f16" => DType::F16,
        _ => DType::BF16,
    };
    let end = Instant::now() + Duration::from_secs(next("60").parse().unwrap_or(60));
    let element: ElemType = match dtype {
        DType::F32 => ElemType::Float(cubecl::ir::FloatKind::F32),
        DType::F16 => ElemType::Float(cubecl::ir::FloatKind::F16),
        _ => ElemType::Float(cubecl::ir::FloatKind::BF16),
    };
    let client = device.client();
    println!("{{\"device\":\"{}\"}}", client.name());
    for Product { name, size: [batch, m, n, k], transposed } in PRODUCTS {
        let lhs = operand(&device, [batch, m, k], transposed[0], dtype);
        let rhs = operand(&device, [batch, k, n], transposed[1], dtype);
        let mut expected: Option<Vec<f32>> = None;
        for (strategy_name, strategy) in strategies() {
            if Instant::now() > end {
                return;
            }
            let shape = Shape::from([batch, m, n]);
            let out = empty_device_contiguous_dtype(client.clone(), device.clone(), shape, dtype);
            let elements = MatmulGlobalElems { lhs: element, rhs: element, out: element };
            let multiply = || {
                let input = |x: &CubeTensor| InputBinding::new(x.clone().binding(), element);
                let mut elements = MatmulElems::from_globals(&elements);
                launch_ref(&strategy, &client, input(&lhs), input(&rhs), out.clone().binding(), &mut elements)
            };
            let started = Instant::now();
            let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                multiply().map_err(|error| format!("{error:?}"))?;
                block_on(client.sync()).map_err(|error| format!("{error:?}"))
            }));
            let first = started.elapsed().as_secs_f64();
            let failure = match attempt {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(_) => Some("panicked".into()),
            };
            if let Some(failure) = failure {
                let failure: String = failure.chars().take(160).map(|c| if c == '"' { '\'' } else { c }).collect();
                println!("{{\"product\":\"{name}\",\"strategy\":\"{strategy_name}\",\"failed\":{failure:?}}}");
                continue;
            }
            let mut seconds: Vec<f64> = (0..5)
                .map(|_| {
                    let started = Instant::now();
                    (0..20).for_each(|_| drop(multiply()));
                    let _ = block_on(client.sync());
                    started.elapsed().as_secs_f64() / 20.0
                })
                .collect();
            seconds.sort_by(f64::total_cmp);
            let values: Vec<f32> = into_data_sync(out.clone()).iter::<f32>().take(1 << 20).collect();
            let worst = expected.as_ref().map_or(0.0, |expected| {
                values
                    .iter()
                    .zip(expected)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0_f32, |worst, x| if x > worst || x.is_nan() { x } else { worst })
            });
            expected.get_or_insert(values);
            let rate = 2.0 * (batch * m * n * k) as f64 / seconds[2] / 1e12;
            println!(
                "{{\"product\":\"{name}\",\"strategy\":\"{strategy_name}\",\"tflops\":{rate:.1},\"us\":{:.1},\"worst\":{worst},\"first_s\":{first:.2}}}",
                seconds[2] * 1e6
            );
        }
    }
}
