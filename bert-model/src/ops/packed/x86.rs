//! The kernels for x86-64: AVX-512 with its extensions for `bf16` and `u8·i8`, AVX2 with FMA or VNNI.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::kernel::{Kernel, Operands, PANEL, Step, Tile, rows};

/// Whether VDPBF16PS beats two FMAs of converted operands. It does on AMD's cores, which take as long for it as for an
/// FMA; those of Intel that have it take four times as long, since they have AMX.
pub(super) fn has_fast_bf16() -> bool {
    // "enti" is the middle of "AuthenticAMD". The tests run the kernel on other cores as well.
    is_x86_feature_detected!("avx512bf16") && (__cpuid(0).edx == u32::from_le_bytes(*b"enti") || cfg!(test))
}

/// Lines between the one that is read and the one that is fetched into the cache.
const AHEAD: usize = 8;

/// Defines a step and its kernel, with the largest tile (rows, panels) whose sums and operands fit the registers: 8
/// rows of vectors of 512 bits, or one panel of vectors of 256 bits.
macro_rules! kernel {
    (
        $(#[$doc:meta])* $kernel:ident = $step:ident($features:literal, $size:tt, $vector:ty),
        $zero:expr, $load:expr, $splat:expr, $store:expr, $add:expr
    ) => {
        struct $step;

        impl Step for $step {
            type Vector = $vector;

            #[inline(always)]
            fn zero() -> $vector {
                // SAFETY: inlined into a function with the features of this kernel, as are the others.
                unsafe { $zero() }
            }

            #[inline(always)]
            unsafe fn load(part: *const u32) -> $vector {
                // SAFETY: the caller's promise; a prefetch may have any address.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(part.wrapping_add(AHEAD * PANEL).cast());
                    $load(part.cast())
                }
            }

            #[inline(always)]
            unsafe fn splat(word: *const u32) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $splat(word.read()) }
            }

            #[inline(always)]
            fn add_products(sums: $vector, left: $vector, right: $vector) -> $vector {
                // SAFETY: as above.
                unsafe { $add(sums, left, right) }
            }

            #[inline(always)]
            unsafe fn store(part: *mut u32, sums: $vector) {
                // SAFETY: the caller's promise.
                unsafe { $store(part.cast(), sums) }
            }
        }

        $(#[$doc])*
        pub(super) const $kernel: Kernel = kernel!(@ $size, $features, $step, stringify!($kernel));
    };
    (@ (8, $panels:literal), $features:literal, $step:ident, $name:expr) => {{
        #[target_feature(enable = $features)]
        unsafe fn run(operands: &Operands, tile: &mut Tile) {
            // SAFETY: the caller's promise.
            unsafe {
                match operands.panels {
                    1 => rows::<$step, 8, 1, 1>(operands, tile),
                    2 => rows::<$step, 8, 2, 1>(operands, tile),
                    _ => rows::<$step, 8, $panels, 1>(operands, tile),
                }
            }
        }
        Kernel { name: $name, rows: 8, panels: $panels, run, is_amx: false, offset: 0 }
    }};
    (@ ($rows:literal, 1), $features:literal, $step:ident, $name:expr) => {{
        #[target_feature(enable = $features)]
        unsafe fn run(operands: &Operands, tile: &mut Tile) {
            // SAFETY: the caller's promise.
            unsafe { rows::<$step, $rows, 1, 2>(operands, tile) }
        }
        Kernel { name: $name, rows: $rows, panels: 1, run, is_amx: false, offset: 0 }
    }};
}

#[inline(always)]
unsafe fn splat_512(word: u32) -> __m512 {
    // SAFETY: inlined into functions with AVX-512.
    unsafe { _mm512_set1_ps(f32::from_bits(word)) }
}

#[inline(always)]
unsafe fn splat_256(word: u32) -> __m256 {
    // SAFETY: inlined into functions with AVX.
    unsafe { _mm256_set1_ps(f32::from_bits(word)) }
}

kernel! {
    F32_AVX512 = F32Avx512("avx512f", (8, 3), __m512),
    _mm512_setzero_ps, _mm512_load_ps, splat_512, _mm512_store_ps,
    |sums, left, right| _mm512_fmadd_ps(left, right, sums)
}

kernel! {
    F32_AVX2 = F32Avx2("avx2,fma", (6, 1), __m256),
    _mm256_setzero_ps, _mm256_load_ps, splat_256, _mm256_store_ps,
    |sums, left, right| _mm256_fmadd_ps(left, right, sums)
}

kernel! {
    /// Two products of `bf16` in one instruction, for AMD's cores.
    BF16_AVX512_BF16 = Bf16Avx512Bf16("avx512f,avx512bf16", (8, 3), __m512),
    _mm512_setzero_ps, _mm512_load_ps, splat_512, _mm512_store_ps,
    |sums, left: __m512, right: __m512| _mm512_dpbf16_ps(
        sums,
        transmute::<__m512, __m512bh>(left),
        transmute::<__m512, __m512bh>(right),
    )
}

/// Both `bf16` of each word as `f32`, the lower one first.
#[inline(always)]
unsafe fn halves_512(words: __m512) -> [__m512; 2] {
    // SAFETY: inlined into functions with AVX-512.
    unsafe {
        let words = _mm512_castps_si512(words);
        let low = _mm512_slli_epi32::<16>(words);
        let high = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        [_mm512_castsi512_ps(low), _mm512_castsi512_ps(high)]
    }
}

#[inline(always)]
unsafe fn halves_256(words: __m256) -> [__m256; 2] {
    // SAFETY: inlined into functions with AVX2.
    unsafe {
        let words = _mm256_castps_si256(words);
        let low = _mm256_slli_epi32::<16>(words);
        let high = _mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
    }
}

kernel! {
    /// Converts to `f32` on the way.
    BF16_AVX512 = Bf16Avx512("avx512f", (8, 2), __m512),
    _mm512_setzero_ps, _mm512_load_ps, splat_512, _mm512_store_ps,
    |sums, left, right| {
        let ([left_low, left_high], [right_low, right_high]) = (halves_512(left), halves_512(right));
        _mm512_fmadd_ps(left_high, right_high, _mm512_fmadd_ps(left_low, right_low, sums))
    }
}

kernel! {
    /// Converts to `f32` on the way.
    BF16_AVX2 = Bf16Avx2("avx2,fma", (4, 1), __m256),
    _mm256_setzero_ps, _mm256_load_ps, splat_256, _mm256_store_ps,
    |sums, left, right| {
        let ([left_low, left_high], [right_low, right_high]) = (halves_256(left), halves_256(right));
        _mm256_fmadd_ps(left_high, right_high, _mm256_fmadd_ps(left_low, right_low, sums))
    }
}

#[inline(always)]
unsafe fn words_512(word: u32) -> __m512i {
    // SAFETY: inlined into functions with AVX-512.
    unsafe { _mm512_set1_epi32(word as i32) }
}

#[inline(always)]
unsafe fn words_256(word: u32) -> __m256i {
    // SAFETY: inlined into functions with AVX2.
    unsafe { _mm256_set1_epi32(word as i32) }
}

kernel! {
    INT8_AVX512_VNNI = Int8Avx512Vnni("avx512f,avx512vnni", (8, 3), __m512i),
    _mm512_setzero_si512, _mm512_load_si512, words_512, _mm512_store_si512, _mm512_dpbusd_epi32
}

kernel! {
    INT8_AVX_VNNI = Int8AvxVnni("avx2,avxvnni", (6, 1), __m256i),
    _mm256_setzero_si256, _mm256_load_si256, words_256, _mm256_store_si256, _mm256_dpbusd_avx_epi32
}

kernel! {
    /// Even and odd bytes as 16 bits, so that no sum of products saturates.
    INT8_AVX2 = Int8Avx2("avx2", (4, 1), __m256i),
    _mm256_setzero_si256, _mm256_load_si256, words_256, _mm256_store_si256,
    |sums, left, right| {
        let left_even = _mm256_and_si256(left, _mm256_set1_epi16(0xff));
        let left_odd = _mm256_srli_epi16::<8>(left);
        let right_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(right));
        let right_odd = _mm256_srai_epi16::<8>(right);
        let even = _mm256_madd_epi16(left_even, right_even);
        _mm256_add_epi32(_mm256_add_epi32(sums, even), _mm256_madd_epi16(left_odd, right_odd))
    }
}

kernel! {
    /// As for AVX2, for the first cores with AVX-512, which lack VNNI.
    INT8_AVX512 = Int8Avx512("avx512f,avx512bw", (8, 2), __m512i),
    _mm512_setzero_si512, _mm512_load_si512, words_512, _mm512_store_si512,
    |sums, left, right| {
        let left_even = _mm512_and_si512(left, _mm512_set1_epi16(0xff));
        let left_odd = _mm512_srli_epi16::<8>(left);
        let right_even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(right));
        let right_odd = _mm512_srai_epi16::<8>(right);
        let even = _mm512_madd_epi16(left_even, right_even);
        _mm512_add_epi32(_mm512_add_epi32(sums, even), _mm512_madd_epi16(left_odd, right_odd))
    }
}

/// The coefficients of [`erf`](crate::ops::math::erf) in x², highest power first: x times this, over the next.
const ERF_NUMERATOR: [f32; 7] =
    [-2.726_142_3e-10, 2.770_681_3e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_2e-2];
const ERF_DENOMINATOR: [f32; 5] = [-1.456_607_2e-5, -2.133_740_7e-4, -1.682_827_1e-3, -7.373_329e-3, -1.426_474e-2];

/// The exact GELU of every element of some rows: [`erf`](crate::ops::math::erf) with fused multiplications and a
/// reciprocal by Newton's method.
#[target_feature(enable = "avx512f")]
pub(super) fn gelu_avx512<'a>(rows: impl Iterator<Item = &'a mut [f32]>) {
    let number = |x: f32| _mm512_set1_ps(x);
    let horner = |z: __m512, coefficients: &[f32]| {
        let sum = number(coefficients[0]);
        coefficients[1..].iter().fold(sum, |sum, &coefficient| _mm512_fmadd_ps(sum, z, number(coefficient)))
    };
    for part in rows.flat_map(|row| row.chunks_mut(16)) {
        let mask = (0xffff_u32 >> (16 - part.len())) as __mmask16;
        // SAFETY: the mask has a bit for each element of the part.
        let x = unsafe { _mm512_maskz_loadu_ps(mask, part.as_ptr()) };
        let scaled = _mm512_mul_ps(x, number(std::f32::consts::FRAC_1_SQRT_2));
        let scaled = _mm512_min_ps(_mm512_max_ps(scaled, number(-4.0)), number(4.0));
        let z = _mm512_mul_ps(scaled, scaled);
        let (a, b) = (horner(z, &ERF_NUMERATOR), horner(z, &ERF_DENOMINATOR));
        let inverse = _mm512_rcp14_ps(b);
        let inverse = _mm512_mul_ps(inverse, _mm512_fnmadd_ps(b, inverse, number(2.0)));
        let erf = _mm512_mul_ps(_mm512_mul_ps(scaled, a), inverse);
        let half = _mm512_mul_ps(x, number(0.5));
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_ps(part.as_mut_ptr(), mask, _mm512_fmadd_ps(half, erf, half)) };
    }
}
