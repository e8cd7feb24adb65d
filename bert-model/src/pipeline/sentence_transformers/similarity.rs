//! Similarity functions, which compare two vectors.

/// The similarity functions of sentence-transformers; higher values mean more similar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Similarity {
    /// The cosine of the angle between the vectors.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
    /// The negated Euclidean distance.
    Euclidean,
    /// The negated Manhattan distance, the sum of the absolute differences.
    Manhattan,
}

impl Similarity {
    const NAMES: [(&'static str, Self); 4] =
        [("cosine", Self::Cosine), ("dot", Self::Dot), ("euclidean", Self::Euclidean), ("manhattan", Self::Manhattan)];

    /// Returns the function with this name in `config_sentence_transformers.json`.
    pub fn named(name: &str) -> Option<Self> {
        // Older versions write `dot_score`.
        let name = name.trim_end_matches("_score").trim_end_matches("_sim");
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, similarity)| *similarity)
    }

    /// The name in `config_sentence_transformers.json`.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, similarity)| *similarity == self).map_or("", |(name, _)| name)
    }

    /// Prepares a vector once, so that [`Similarity::of_prepared`] need not repeat the work for every pair: for the
    /// cosine, normalizes it to length 1.
    pub fn prepare(self, vector: &mut [f32]) {
        if self == Self::Cosine {
            let length = dot(vector, vector).sqrt().max(1e-12);
            vector.iter_mut().for_each(|value| *value /= length);
        }
    }

    /// The similarity of two vectors of the same width that were both [prepared](Similarity::prepare).
    pub fn of_prepared(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Self::Cosine | Self::Dot => dot(a, b),
            Self::Euclidean => -sum(a, b, |a, b| (a - b) * (a - b)).sqrt(),
            Self::Manhattan => -sum(a, b, |a, b| (a - b).abs()),
        }
    }

    /// The similarity of two vectors of the same width.
    ///
    /// ```
    /// use bert_model::pipeline::Similarity;
    ///
    /// assert_eq!(Similarity::Cosine.of(&[3.0, 0.0], &[2.0, 0.0]), 1.0);
    /// assert_eq!(Similarity::Euclidean.of(&[3.0, 0.0], &[0.0, 4.0]), -5.0);
    /// ```
    pub fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let prepared = |vector: &[f32]| {
            let mut vector = vector.to_vec();
            self.prepare(&mut vector);
            vector
        };
        self.of_prepared(&prepared(a), &prepared(b))
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| a * b)
}

/// Sums `term` over all components in sixteen lanes, which the compiler turns into vector instructions. The order is
/// always the same, so equal vectors have equal scores wherever they are stored.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    const STRANDS: usize = 16;
    let (mut sums, mut rest) = ([0.0_f32; STRANDS], 0.0);
    let (a_chunks, a_rest) = a.as_chunks::<STRANDS>();
    let (b_chunks, b_rest) = b.as_chunks::<STRANDS>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for strand in 0..STRANDS {
            sums[strand] += term(a[strand], b[strand]);
        }
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        rest += term(*a, *b);
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_those_of_their_names() {
        let (a, b): (Vec<f32>, Vec<f32>) =
            ((0..19).map(|x| x as f32).collect(), (0..19).map(|x| 9.0 - x as f32).collect());
        let products: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        let differences = || a.iter().zip(&b).map(|(a, b)| a - b);
        for (similarity, expected) in [
            (Similarity::Dot, products),
            (Similarity::Cosine, products / length(&a) / length(&b)),
            (Similarity::Euclidean, -length(&differences().collect::<Vec<_>>())),
            (Similarity::Manhattan, -differences().map(f32::abs).sum::<f32>()),
        ] {
            let found = similarity.of(&a, &b);
            assert!((found - expected).abs() < 1e-5 * expected.abs(), "{similarity:?}: {found} {expected}");
            assert_eq!(Similarity::named(similarity.name()), Some(similarity));
        }
        assert_eq!(Similarity::named("dot_score"), Some(Similarity::Dot));
        assert_eq!(Similarity::named("maxsim"), None);
        assert_eq!(Similarity::Cosine.of(&[0.0; 4], &[1.0; 4]), 0.0);
    }
}
