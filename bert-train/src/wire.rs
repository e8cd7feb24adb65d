//! The form in which ranks send gradients to each other.

use std::borrow::Cow;
use std::ops::Range;

use half::bf16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;

/// The number format of gradients between ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wire {
    /// As they are: no bit of the result depends on the number of ranks.
    #[default]
    F32,
    /// Rounded to bfloat16, half the bytes. Sums are computed in `f32`, but each is rounded once for every rank that
    /// adds to it, and once more for all: the last digits of the result depend on the number of ranks.
    Bf16,
}

/// Numbers to send or to receive.
#[derive(Debug)]
pub(crate) enum Numbers {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Wire {
    /// The format, given whether it is bfloat16.
    pub fn of(is_bf16: bool) -> Self {
        if is_bf16 { Self::Bf16 } else { Self::F32 }
    }

    /// Bytes of a number.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::Bf16 => size_of::<bf16>(),
        }
    }

    /// The bytes of `values`.
    pub(crate) fn encode(self, values: &[f32]) -> Cow<'_, [u8]> {
        match self {
            Self::F32 => Cow::Borrowed(bytemuck::cast_slice(values)),
            Self::Bf16 => Cow::Owned(bytemuck::cast_slice(&Vec::<bf16>::from_f32_slice(values)).to_vec()),
        }
    }

    /// Room for this many numbers.
    pub(crate) fn zeros(self, count: usize) -> Numbers {
        match self {
            Self::F32 => Numbers::F32(vec![0.0; count]),
            Self::Bf16 => Numbers::Bf16(vec![bf16::ZERO; count]),
        }
    }
}

impl Numbers {
    /// Replaces the numbers in `range` by `values`.
    pub fn write(&mut self, range: Range<usize>, values: &[f32]) {
        match self {
            Self::F32(all) => all[range].copy_from_slice(values),
            Self::Bf16(all) => all[range].convert_from_f32_slice(values),
        }
    }

    /// Their bytes, which those of other ranks may replace.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice_mut(values),
            Self::Bf16(values) => bytemuck::cast_slice_mut(values),
        }
    }

    /// The numbers in `f32`.
    pub fn into_values(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            Self::Bf16(values) => values.to_f32_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_arrive_as_they_are_or_rounded() {
        let values = [1.0, -1.003_906_3, 3.1e-5, f32::INFINITY, f32::NAN];
        for (wire, bytes, second) in [(Wire::F32, 20, -1.003_906_3), (Wire::Bf16, 10, -1.0)] {
            let sent = wire.encode(&values);
            let mut numbers = wire.zeros(values.len());
            numbers.bytes_mut().copy_from_slice(&sent);
            let received = numbers.into_values();
            assert_eq!((sent.len(), wire.size() * values.len()), (bytes, bytes));
            assert_eq!((received[0], received[1], received[3]), (1.0, second, f32::INFINITY));
            assert!((received[2] / 3.1e-5 - 1.0).abs() < 4e-3 && received[4].is_nan(), "a step with NaN is noticed");
            let mut numbers = wire.zeros(3);
            numbers.write(1..3, &values[..2]);
            assert_eq!(numbers.into_values(), [0.0, 1.0, second]);
        }
    }
}
