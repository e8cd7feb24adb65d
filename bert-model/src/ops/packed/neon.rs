//! The kernels for AArch64: NEON, which every core has, and its products of bytes.

use std::arch::aarch64::*;
use std::arch::asm;
use std::arch::is_aarch64_feature_detected as has;

use super::Precision;
use super::kernel::{Kernel, Operands, Step, Tile, rows};

/// The kernels of this machine for a precision, fastest first.
pub(super) fn kernels(precision: Precision) -> Vec<Kernel> {
    match precision {
        Precision::F32 => vec![F32_NEON],
        Precision::Bf16 => vec![BF16_NEON],
        Precision::Int8 if has!("dotprod") => vec![INT8_DOTPROD, INT8_NEON],
        Precision::Int8 => vec![INT8_NEON],
    }
}

/// Defines a step and its kernel: the sums of `$rows` rows of 16 columns are in registers.
macro_rules! kernel {
    (
        $(#[$doc:meta])* $kernel:ident = $step:ident($features:literal, $rows:literal, $vector:ty, offset: $offset:expr),
        $zero:expr, $load:expr, $splat:expr, $store:expr, $add:expr
    ) => {
        struct $step;

        impl Step for $step {
            type Vector = $vector;

            #[inline(always)]
            fn zero() -> $vector {
                // SAFETY: inlined into a function with the features of this kernel, as are the others.
                unsafe { $zero }
            }

            #[inline(always)]
            unsafe fn load(part: *const u32) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $load(part.cast()) }
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
        const $kernel: Kernel = {
            #[target_feature(enable = $features)]
            unsafe fn run(operands: &Operands, tile: &mut Tile) {
                // SAFETY: the caller's promise.
                unsafe { rows::<$step, $rows, 1, 4>(operands, tile) }
            }
            Kernel { name: stringify!($kernel), rows: $rows, panels: 1, run, is_amx: false, offset: $offset }
        };
    };
}

#[inline(always)]
unsafe fn splat(word: u32) -> float32x4_t {
    // SAFETY: every AArch64 has NEON.
    unsafe { vdupq_n_f32(f32::from_bits(word)) }
}

kernel! {
    F32_NEON = F32Neon("neon", 6, float32x4_t, offset: 0),
    vdupq_n_f32(0.0), vld1q_f32, splat, vst1q_f32,
    |sums, left, right| vfmaq_f32(sums, left, right)
}

/// Both `bf16` of each word as `f32`, the lower one first.
#[inline(always)]
unsafe fn halves(words: float32x4_t) -> [float32x4_t; 2] {
    // SAFETY: every AArch64 has NEON.
    unsafe {
        let words = vreinterpretq_u32_f32(words);
        let high = vandq_u32(words, vdupq_n_u32(0xffff_0000));
        [vreinterpretq_f32_u32(vshlq_n_u32::<16>(words)), vreinterpretq_f32_u32(high)]
    }
}

kernel! {
    /// Converts to `f32` on the way.
    BF16_NEON = Bf16Neon("neon", 4, float32x4_t, offset: 0),
    vdupq_n_f32(0.0), vld1q_f32, splat, vst1q_f32,
    |sums, left, right| {
        let ([left_low, left_high], [right_low, right_high]) = (halves(left), halves(right));
        vfmaq_f32(vfmaq_f32(sums, left_low, right_low), left_high, right_high)
    }
}

/// Four integers from 0 to 255 in every lane, less 128: as signed bytes, like the weights.
#[inline(always)]
unsafe fn splat_signed(word: u32) -> int32x4_t {
    // SAFETY: every AArch64 has NEON.
    unsafe { vdupq_n_s32((word ^ 0x8080_8080) as i32) }
}

kernel! {
    /// Four products of bytes in one instruction, SDOT, whose intrinsic is not stable yet.
    INT8_DOTPROD = Int8Dotprod("neon,dotprod", 6, int32x4_t, offset: 128),
    vdupq_n_s32(0), vld1q_s32, splat_signed, vst1q_s32,
    |mut sums: int32x4_t, left: int32x4_t, right: int32x4_t| {
        asm!(
            "sdot {sums:v}.4s, {left:v}.16b, {right:v}.16b",
            sums = inout(vreg) sums,
            left = in(vreg) left,
            right = in(vreg) right,
            options(pure, nomem, nostack, preserves_flags),
        );
        sums
    }
}

kernel! {
    /// Products of 16 bits, added in pairs twice.
    INT8_NEON = Int8Neon("neon", 4, int32x4_t, offset: 128),
    vdupq_n_s32(0), vld1q_s32, splat_signed, vst1q_s32,
    |sums: int32x4_t, left: int32x4_t, right: int32x4_t| {
        let (left, right) = (vreinterpretq_s8_s32(left), vreinterpretq_s8_s32(right));
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(left), vget_low_s8(right)));
        let high = vpaddlq_s16(vmull_high_s8(left, right));
        vaddq_s32(sums, vpaddq_s32(low, high))
    }
}
