//! exp and erf in `f32` without branches, so that loops over them compile to vector instructions.

/// eˣ to about two units in the last place. Inputs are clamped to ±87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    exp_within_range(x.clamp(-87.0, 87.0))
}

/// eˣ for x ≤ 0, but exactly 0 below −80: products with smaller values would be denormal numbers, which are slow.
#[inline(always)]
pub(super) fn exp_or_zero(x: f32) -> f32 {
    if x < -80.0 { 0.0 } else { exp_within_range(x) }
}

/// [`exp`] for |x| ≤ 87.
#[inline(always)]
fn exp_within_range(x: f32) -> f32 {
    // x = n·ln 2 + r with |r| ≤ ln 2 / 2; adding 1.5·2²³ rounds to an integer, which is left in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    // The polynomial of Cephes for (eʳ − 1 − r) / r².
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    // 2ⁿ. The bits of `shifted` are taken as they are: a cast of `n`, which saturates, takes several instructions.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (p * r * r + r + 1.0) * power
}

/// The lower of two numbers, or `a` if `b` is NaN: a comparison is one vector instruction, unlike `f32::min`.
#[inline(always)]
pub(super) fn lower(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// The higher of two numbers, or `a` if `b` is NaN; see [`lower`].
#[inline(always)]
pub(super) fn higher(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The error function to about 3·10⁻⁷, by a rational approximation on ±4.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    let a = -2.726_142_3e-10;
    let a = a * z + 2.770_681_3e-8;
    let a = a * z - 2.101_024e-6;
    let a = a * z - 5.692_506_4e-5;
    let a = a * z - 7.349_906_3e-4;
    let a = a * z - 2.954_6e-3;
    let a = a * z - 1.609_603_2e-2;
    let b = -1.456_607_2e-5;
    let b = b * z - 2.133_740_7e-4;
    let b = b * z - 1.682_827_1e-3;
    let b = b * z - 7.373_329e-3;
    let b = b * z - 1.426_474e-2;
    x * a / b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place() {
        for step in -860..860 {
            let x = step as f32 * 0.1;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) / expected - 1.0).abs() < 3e-7, "exp({x})");
            if x <= 0.0 {
                assert_eq!(exp_or_zero(x), if x < -80.0 { 0.0 } else { exp(x) }, "exp_or_zero({x})");
            }
        }
    }

    #[test]
    fn exp_of_no_number_is_none_and_of_infinity_is_bounded() {
        assert!(exp(f32::NAN).is_nan() && exp_or_zero(f32::NAN).is_nan());
        assert_eq!([exp(f32::INFINITY), exp(f32::NEG_INFINITY)], [exp(87.0), exp(-87.0)]);
        assert_eq!(exp_or_zero(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn erf_is_right_at_known_values() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.112_462_92),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
            (3.5, 0.999_999_3),
        ] {
            assert!((erf(x) - expected).abs() < 4e-7 && (erf(-x) + expected).abs() < 4e-7, "erf({x}) = {}", erf(x));
        }
    }
}
