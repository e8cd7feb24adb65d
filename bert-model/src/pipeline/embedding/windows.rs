//! Windows over long texts: each is embedded separately, and their vectors are combined into one.

/// How the vectors of a long text's windows are combined into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Windows {
    /// Their mean.
    Mean,
    /// The maximum of each component.
    Max,
}

impl Windows {
    /// Combines the vectors of all windows, of which there must be at least one, and normalizes the result to length 1
    /// if `normalize` is set.
    pub(super) fn join(self, vectors: Vec<Vec<f32>>, normalize: bool) -> Vec<f32> {
        let count = vectors.len() as f32;
        let mut vectors = vectors.into_iter();
        let mut joined = vectors.next().unwrap_or_default();
        if count <= 1.0 {
            return joined;
        }
        for vector in vectors {
            for (joined, value) in joined.iter_mut().zip(vector) {
                *joined = match self {
                    Self::Mean => *joined + value,
                    Self::Max => joined.max(value),
                };
            }
        }
        let length = || joined.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
        let divisor = match (self, normalize) {
            (_, true) => length(),
            (Self::Mean, false) => count,
            (Self::Max, false) => 1.0,
        };
        joined.iter_mut().for_each(|value| *value /= divisor);
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_windows_become_one() {
        let vectors = || vec![vec![3.0, 0.0], vec![1.0, 4.0]];
        assert_eq!(Windows::Mean.join(vectors(), false), [2.0, 2.0]);
        assert_eq!(Windows::Max.join(vectors(), false), [3.0, 4.0]);
        assert_eq!(Windows::Max.join(vectors(), true), [0.6, 0.8]);
        assert_eq!(Windows::Mean.join(vec![vec![3.0, 4.0]], true), [3.0, 4.0], "one window is the text");
    }
}
