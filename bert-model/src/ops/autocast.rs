//! Mixed precision on a CPU (Micikevicius et al. 2018): products with `bf16` operands and `f32` sums, all else in
//! `f32`.
//!
//! On a GPU, tensors themselves have half precision. Here they stay `f32`, and the dense layers' products round what
//! they read, in the forward and in the backward pass.

use std::cell::Cell;

use super::packed::Precision;

thread_local! {
    /// The precision of the products that this thread starts.
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `forward` with the products of dense layers on `flex` in `precision`, and also those of its backward pass,
/// whenever that runs. Affects this thread only, and what rayon lets it do for others while it waits for a product,
/// which is nothing on a thread of [`Workers`](crate::Workers): there, `autocast` belongs into their work. Other
/// backends ignore it. `Int8` is treated as `F32`.
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

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::ops::linear;

    /// Half the distance of two neighbors in `bf16`, which is rounded off.
    const BETWEEN: f32 = 1.0 + 1.0 / 512.0;

    #[test]
    fn the_backward_pass_has_the_precision_of_its_forward_pass() {
        let device = Device::flex().autodiff();
        let gradient = |precision| -> f32 {
            let [x, bias] = [BETWEEN, 0.0].map(|x| Tensor::<1>::from_data([x], &device));
            let weight = Tensor::<2>::ones([1, 1], &device).require_grad();
            let y = autocast(precision, || linear(x.reshape([1, 1]), weight.clone(), bias));
            assert_eq!(current(), Precision::F32);
            weight.grad(&y.sum().backward()).unwrap().into_scalar()
        };
        assert_eq!([Precision::F32, Precision::Bf16].map(gradient), [BETWEEN, 1.0]);
    }

    #[test]
    fn a_panic_leaves_no_precision_behind() {
        let result = catch_unwind(|| autocast(Precision::Bf16, || assert_eq!(current(), Precision::F32)));
        assert!(result.is_err());
        assert_eq!(current(), Precision::F32);
    }
}
