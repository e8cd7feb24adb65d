//! Mixed precision on a CPU (Micikevicius et al. 2018): products with `bf16` operands and `f32` sums, all else in `f32`.
//!
//! On a GPU, tensors themselves have half precision. Here they stay `f32`, and the dense layers' products round what they
//! read, in the forward and in the backward pass.

use std::cell::Cell;

use super::packed::Precision;

thread_local! {
    /// The precision of the products that this thread starts.
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `forward` with the products of dense layers on `flex` in `precision`, and also those of its backward pass, whenever
/// that runs. Affects this thread only; other backends ignore it. `Int8` is treated as `F32`.
pub fn autocast<R>(precision: Precision, forward: impl FnOnce() -> R) -> R {
    /// Restores the precision, even after a panic.
    struct Before(Precision);
    impl Drop for Before {
        fn drop(&mut self) {
            PRECISION.set(self.0);
        }
    }
    let _before = Before(PRECISION.replace(precision));
    forward()
}

/// The precision of the product that is recorded now.
pub(super) fn current() -> Precision {
    PRECISION.get()
}
