//! The kernels in plain Rust, for any machine.

use super::kernel::{Kernel, Operands, PANEL, Step, Tile, rows};

/// Defines a step and its kernel from the function that adds the products of two words to a sum.
macro_rules! kernel {
    ($kernel:ident = $step:ident, $number:ty, $add:expr) => {
        struct $step;

        impl Step for $step {
            type Vector = [u32; PANEL];

            #[inline(always)]
            fn zero() -> Self::Vector {
                [0; PANEL]
            }

            #[inline(always)]
            unsafe fn load(part: *const u32) -> Self::Vector {
                // SAFETY: the caller's promise; a part is a whole line here.
                unsafe { part.cast::<Self::Vector>().read() }
            }

            #[inline(always)]
            unsafe fn splat(word: *const u32) -> Self::Vector {
                // SAFETY: the caller's promise.
                unsafe { [word.read(); PANEL] }
            }

            #[inline(always)]
            fn add_products(sums: Self::Vector, left: Self::Vector, right: Self::Vector) -> Self::Vector {
                std::array::from_fn(|lane| $add(sums[lane], left[lane], right[lane]))
            }

            #[inline(always)]
            unsafe fn store(part: *mut u32, sums: Self::Vector) {
                // SAFETY: the caller's promise.
                unsafe { part.cast::<Self::Vector>().write(sums) }
            }
        }

        pub(super) const $kernel: Kernel = {
            unsafe fn run(operands: &Operands, tile: &mut Tile) {
                // SAFETY: the caller's promise.
                unsafe { rows::<$step, 4, 1, 1>(operands, tile) }
            }
            Kernel { name: stringify!($kernel), rows: 4, panels: 1, run, is_amx: false, offset: 0 }
        };
    };
}

kernel!(F32 = F32Step, f32, |sum, left, right| {
    (f32::from_bits(sum) + f32::from_bits(left) * f32::from_bits(right)).to_bits()
});

kernel!(BF16 = Bf16Step, f32, |sum, left: u32, right: u32| {
    let low = f32::from_bits(left << 16) * f32::from_bits(right << 16);
    let high = f32::from_bits(left & 0xffff_0000) * f32::from_bits(right & 0xffff_0000);
    (f32::from_bits(sum) + low + high).to_bits()
});

kernel!(INT8 = Int8Step, i32, |sum: u32, left: u32, right: u32| {
    let (left, right) = (left.to_ne_bytes(), right.to_ne_bytes());
    (0..4).fold(sum, |sum, at| sum.wrapping_add((i32::from(left[at]) * i32::from(right[at] as i8)) as u32))
});
