//! Muon (Jordan 2024, <https://kellerjordan.github.io/posts/muon/>) for the matrices of the encoder's layers, AdamW for
//! all other parameters.
//!
//! Adam scales the elements of the momentum one by one. Muon replaces the momentum, a matrix M = U·S·Vᵀ, by U·Vᵀ: all
//! directions that the gradient has shown are followed equally far, the rare ones too.

use burn::prelude::*;
use rayon::prelude::*;

use super::flex::{self, MuonStep};
use super::{Constants, Control, HostControl, Parameter, adam, device_value};
use crate::ops::is_fast;

/// Name of the running mean of the gradient.
const MOMENTUM: &str = "momentum";
/// μ, the decay of the momentum.
pub(super) const DECAY: f64 = 0.95;
/// The polynomial a·x + b·x³ + c·x⁵ that each iteration applies to all singular values. It brings small ones to about 1
/// as fast as possible, and leaves them between 0.7 and 1.2.
pub(super) const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// The number of iterations.
pub(super) const ITERATIONS: usize = 5;
/// Lower bound of the norm by which the momentum is divided.
pub(super) const SMALLEST_NORM: f64 = 1e-7;
/// Root mean square of an update's elements, divided by the learning rate. That of AdamW's updates is about 0.2, so
/// that both can share a learning rate and a weight decay (Liu et al. 2025, "Muon is scalable for LLM training", §2.2).
const ROOT_MEAN_SQUARE: f64 = 0.2;

/// A step of Muon: `p − lr · (0.2·√max(R, C) · O + λ·p)`, where O is the momentum with all singular values near 1.
/// Parameters that are not matrices of encoder layers are updated by [`adam`]. All are returned unchanged if the
/// control skips the step.
pub fn muon(parameters: Vec<Parameter>, control: &Control, constants: Constants) -> Vec<Parameter> {
    let order: Vec<bool> = parameters.iter().map(|parameter| parameter.is_inner_matrix).collect();
    let (matrices, others): (Vec<_>, Vec<_>) = parameters.into_iter().partition(|parameter| parameter.is_inner_matrix);
    let step = |parameter| step(parameter, control, constants.weight_decay);
    let matrices: Vec<Parameter> = match matrices.first().is_some_and(|parameter| is_fast(&parameter.value)) {
        true => matrices.into_par_iter().map(step).collect(),
        false => matrices.into_iter().map(step).collect(),
    };
    let (mut matrices, mut others) = (matrices.into_iter(), adam(others, control, constants).into_iter());
    order
        .into_iter()
        .filter_map(|is_inner_matrix| if is_inner_matrix { matrices.next() } else { others.next() })
        .collect()
}

/// The factor of the orthogonal matrix in an update.
fn length([rows, columns]: [usize; 2]) -> f64 {
    ROOT_MEAN_SQUARE * (rows.max(columns) as f64).sqrt()
}

/// [`step`] on flex, in place.
fn fast_step(parameter: Parameter, control: &HostControl, weight_decay: f64) -> Parameter {
    let Parameter { value, gradient, mut slots, decays, is_inner_matrix } = parameter;
    let step = MuonStep {
        gradient_scale: control.gradient_scale as f32,
        length: length(value.dims()) as f32,
        weight_decay: if decays { weight_decay as f32 } else { 0.0 },
        learning_rate: control.settings.learning_rate as f32,
    };
    let momentum = slots.take(MOMENTUM, &gradient);
    let [value, momentum] = flex::muon(value, momentum, gradient.clone(), step);
    slots.set(MOMENTUM, momentum);
    Parameter { value, gradient, slots, decays, is_inner_matrix }
}

/// A step for one matrix.
fn step(parameter: Parameter, control: &Control, weight_decay: f64) -> Parameter {
    let (scale, learning_rate, skipped) = match control {
        Control::Host(host) if !host.is_taken => return parameter,
        Control::Host(host) if is_fast(&parameter.value) => return fast_step(parameter, host, weight_decay),
        Control::Host(host) => (Factor::Host(host.gradient_scale), Factor::Host(host.settings.learning_rate), None),
        Control::Device(values) => {
            let value = |index| device_value(values, index);
            let skipped = value(super::IS_TAKEN).equal_elem(0);
            (Factor::Device(value(super::GRADIENT_SCALE)), Factor::Device(value(super::LEARNING_RATE)), Some(skipped))
        }
    };
    let Parameter { value, gradient, mut slots, decays, is_inner_matrix } = parameter;
    let before = slots.take(MOMENTUM, &gradient);
    let new = scale.of(gradient.clone()) * (1.0 - DECAY);
    let momentum = before.clone() * DECAY + new.clone();
    let [rows, columns] = value.dims();
    // Nesterov's momentum: as if the gradient were the next one, too.
    let update = orthogonalized(momentum.clone() * DECAY + new) * length([rows, columns]);
    let update = if decays { update + value.clone() * weight_decay } else { update };
    let moved = value.clone() - learning_rate.of(update);
    // A gradient that is not finite must leave no trace.
    let unless_skipped = |new: Tensor<2>, old: Tensor<2>| match &skipped {
        Some(skipped) => new.mask_where(skipped.clone().expand([rows, columns]), old),
        None => new,
    };
    slots.set(MOMENTUM, unless_skipped(momentum, before));
    Parameter { value: unless_skipped(moved, value), gradient, slots, decays, is_inner_matrix }
}

/// The matrix with all singular values near 1, by the Newton–Schulz iteration; `[R, C]` like `x`.
fn orthogonalized(x: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = x.dims();
    // The square matrices of the iteration are the smaller the fewer rows there are.
    let is_tall = rows > columns;
    let mut x = if is_tall { x.transpose() } else { x };
    let norm = x.clone().powi_scalar(2).sum_dim(1).sum_dim(0).sqrt().clamp_min(SMALLEST_NORM);
    x = x / norm;
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        let squares = x.clone().matmul(x.clone().transpose());
        let polynomial = squares.clone().matmul(squares.clone()) * c + squares * b;
        x = polynomial.matmul(x.clone()) + x * a;
    }
    if is_tall { x.transpose() } else { x }
}

/// A factor that is known on the host, or only on the device, as `[1, 1]`.
#[allow(clippy::large_enum_variant, reason = "two of them live at a time")]
enum Factor {
    Host(f64),
    Device(Tensor<2>),
}

impl Factor {
    /// The product with a matrix.
    fn of(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Host(factor) if *factor == 1.0 => x,
            Self::Host(factor) => x * *factor,
            Self::Device(factor) => x * factor.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::optimizer::{HostControl, Slots, StepSettings};

    fn matrix(rows: usize, columns: usize) -> Tensor<2> {
        let value = |index: usize| ((index * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let values: Vec<f32> = (0..rows * columns).map(value).collect();
        Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
    }

    fn host(is_taken: bool) -> Control {
        let settings = StepSettings { learning_rate: 0.1, corrections: [1.0; 2], clip: None, growth: None };
        Control::Host(HostControl { gradient_scale: 1.0, settings, is_taken, norm: 1.0 })
    }

    fn parameter(rows: usize, columns: usize, is_inner_matrix: bool) -> Parameter {
        let (value, gradient) = (matrix(rows, columns), matrix(rows, columns) * 0.01);
        Parameter { value, gradient, slots: Slots::default(), decays: true, is_inner_matrix }
    }

    fn values(x: &Tensor<2>) -> Vec<f32> {
        x.clone().into_data().iter::<f32>().collect()
    }

    const CONSTANTS: Constants = Constants { beta1: 0.9, beta2: 0.999, epsilon: 1e-6, weight_decay: 0.01 };

    #[test]
    fn all_singular_values_come_close_to_one_whatever_the_shape() {
        for (rows, columns) in [(6, 6), (5, 17), (17, 5), (1, 9), (9, 1)] {
            let x = orthogonalized(matrix(rows, columns));
            assert_eq!(x.dims(), [rows, columns]);
            // The trace of x·xᵀ is the sum of the squares of the singular values.
            let squares: f32 = values(&x).iter().map(|x| x * x).sum();
            let each = squares / rows.min(columns) as f32;
            assert!((0.45..1.45).contains(&each), "[{rows}, {columns}]: {each}");
        }
        assert!(values(&orthogonalized(matrix(3, 3) * 0.0)).iter().all(|x| *x == 0.0));
    }

    #[test]
    fn in_place_it_is_the_same_matrix() {
        for (rows, columns) in [(6, 6), (7, 9), (5, 17), (17, 5), (1, 9), (9, 1), (30, 100), (100, 30)] {
            let expected = values(&orthogonalized(matrix(rows, columns)));
            let mut x = values(&matrix(rows, columns));
            flex::orthogonalize(&mut x, [rows, columns]);
            let difference = x.iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-5, "[{rows}, {columns}]: {difference}");
        }
    }

    #[test]
    fn a_parameter_that_is_trained_late_begins_like_one_that_is_trained_first() {
        let first = |step: i32, starts: bool| {
            let corrections = |step: i32| [0.9_f64, 0.999].map(|beta| 1.0 - beta.powi(step));
            let settings =
                StepSettings { learning_rate: 0.1, corrections: corrections(step), clip: None, growth: None };
            let control = Control::Host(HostControl { gradient_scale: 0.5, settings, is_taken: true, norm: 1.0 });
            let parameter = parameter(3, 4, false);
            let parameter = if starts { parameter.start_means(&control, corrections(step - 1)) } else { parameter };
            values(&adam(vec![parameter], &control, CONSTANTS)[0].value)
        };
        let expected = first(1, false);
        for step in [1, 2, 30, 5000] {
            let difference = first(step, true).iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-4, "step {step}: {difference}");
        }
        assert!(first(5000, false).iter().zip(&expected).any(|(x, y)| (x - y).abs() > 0.1), "three times as far");
        let skipped = parameter(3, 4, false).start_means(&host(false), [1.0; 2]);
        assert!(skipped.slots.is_empty());
    }

    #[test]
    fn inner_matrices_keep_one_mean_and_the_others_two_in_their_order() {
        let parameters = vec![parameter(3, 4, false), parameter(4, 3, true), parameter(1, 5, false)];
        let moved = muon(parameters.clone(), &host(true), CONSTANTS);
        let names = |p: &Parameter| p.slots.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        assert_eq!(
            moved.iter().map(names).collect::<Vec<_>>(),
            [vec!["first", "second"], vec!["momentum"], vec!["first", "second"]]
        );
        for (before, after) in parameters.iter().zip(&moved) {
            assert_eq!(before.value.dims(), after.value.dims());
            assert_ne!(values(&before.value), values(&after.value));
        }
        let skipped = muon(parameters.clone(), &host(false), CONSTANTS);
        assert!(skipped.iter().zip(&parameters).all(|(after, before)| values(&after.value) == values(&before.value)));
    }
}
