//! The losses of sentence embeddings: for pairs that belong together, with the other texts of the batch as negatives
//! (Henderson et al. 2017, "Efficient Natural Language Response Suggestion for Smart Reply"), and for pairs with
//! scores.

use std::collections::HashSet;

use bert_model::model::loss::{cross_entropy, squared_error};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::Target;

/// Added to the logit of an excluded candidate, so that its share of the softmax is exactly 0 for any scale.
const EXCLUDED: f32 = -1e30;

/// The sum of the cross-entropies of all examples. The candidates are the second texts and negatives of all examples,
/// the logits are their cosines with the example's first text times `scale`, and the correct candidate is the example's
/// second text. A candidate that equals the first text, or is the second text of an example with the same first text,
/// does not count as a negative.
///
/// # Shapes
/// - `vectors`: `[S, W]`, the texts of each example, one example after another
/// - output: `[1]`
pub(super) fn in_batch_negatives(vectors: Tensor<2>, targets: &[&Target], scale: f64) -> Tensor<1> {
    let layout = Layout::of(targets);
    let device = vectors.device();
    let vectors = unit_length(vectors);
    let questions = vectors.clone().select(0, indices(&layout.questions, &device));
    let candidates = vectors.select(0, indices(&layout.candidates, &device));
    let (rows, columns) = (layout.questions.len(), layout.candidates.len());
    let excluded = Tensor::from_data(TensorData::new(layout.excluded, [rows, columns]), &device);
    let logits = questions.matmul(candidates.transpose()) * scale + excluded;
    cross_entropy(logits, indices(&layout.right, &device)).sum()
}

/// The sum over all examples of the squared difference between their score and the cosine of their two texts.
///
/// # Shapes
/// - `vectors`: `[S, W]`, two texts per example
/// - output: `[1]`
pub(super) fn scores(vectors: Tensor<2>, targets: &[&Target]) -> Tensor<1> {
    let device = vectors.device();
    let [rows, width] = vectors.dims();
    let pairs = unit_length(vectors).reshape([rows / 2, 2, width]);
    let text = |place: usize| pairs.clone().slice_dim(1, place..place + 1);
    let cosines: Tensor<1> = (text(0) * text(1)).sum_dim(2).reshape([rows / 2]);
    let scores: Vec<f32> = targets.iter().map(|target| target.score.unwrap_or_default()).collect();
    squared_error(cosines, Tensor::from_data(&scores[..], &device)).sum()
}

/// Scales the rows of a matrix to length 1.
fn unit_length(vectors: Tensor<2>) -> Tensor<2> {
    let length = vectors.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
    vectors / length
}

fn indices(places: &[usize], device: &Device) -> Tensor<1, Int> {
    let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
    Tensor::from_data(&places[..], device)
}

/// The roles of the texts of a batch.
struct Layout {
    /// Row indices of the first texts.
    questions: Vec<usize>,
    /// Row indices of the second texts, then of all negatives.
    candidates: Vec<usize>,
    /// For each question, the index of its correct candidate.
    right: Vec<usize>,
    /// For each question and candidate, 0 or [`EXCLUDED`].
    excluded: Vec<f32>,
}

impl Layout {
    fn of(targets: &[&Target]) -> Self {
        let starts: Vec<usize> = targets
            .iter()
            .scan(0, |next, target| {
                let start = *next;
                *next += target.texts.len();
                Some(start)
            })
            .collect();
        let second = starts.iter().enumerate().map(|(example, start)| (example, start + 1));
        let negatives = starts
            .iter()
            .enumerate()
            .flat_map(|(example, start)| (2..targets[example].texts.len()).map(move |text| (example, start + text)));
        let candidates: Vec<(usize, usize)> = second.chain(negatives).collect();
        let text = |(example, place): (usize, usize)| targets[example].texts[place - starts[example]];
        let answers: HashSet<(u64, u64)> = targets.iter().map(|target| (target.texts[0], target.texts[1])).collect();
        let is_excluded = |example: usize, candidate: usize| {
            let (question, found) = (targets[example].texts[0], text(candidates[candidate]));
            candidate != example && (found == question || answers.contains(&(question, found)))
        };
        let excluded = (0..targets.len()).flat_map(|example| {
            let is_excluded = &is_excluded;
            (0..candidates.len()).map(move |at| if is_excluded(example, at) { EXCLUDED } else { 0.0 })
        });
        let excluded = excluded.collect();
        Self {
            questions: starts,
            candidates: candidates.into_iter().map(|(_, place)| place).collect(),
            right: (0..targets.len()).collect(),
            excluded,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/sentence-transformers/golden.json"));

    fn target(texts: &[u64], score: Option<f32>) -> Target {
        Target { texts: texts.to_vec(), score }
    }

    /// Loss and gradients of random vectors, as computed by sentence-transformers.
    #[test]
    fn losses_and_gradients_are_those_of_sentence_transformers() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let golden = &golden["losses"];
        let columns: Vec<Vec<Vec<f32>>> = serde_json::from_value(golden["vectors"].clone()).unwrap();
        let labels: Vec<f32> = serde_json::from_value(golden["labels"].clone()).unwrap();
        let device = Device::flex().autodiff();
        for (name, count) in [("pairs", 2), ("negatives", 4), ("scores", 2)] {
            let (rows, width) = (columns[0].len(), columns[0][0].len());
            let values: Vec<f32> =
                (0..rows).flat_map(|row| columns[..count].iter().flat_map(move |c| c[row].clone())).collect();
            let vectors =
                Tensor::<2>::from_data(TensorData::new(values, [rows * count, width]), &device).require_grad();
            let text = |row: usize, column: usize| (row * 10 + column) as u64;
            let targets: Vec<Target> = (0..rows)
                .map(|row| target(&(0..count).map(|column| text(row, column)).collect::<Vec<_>>(), Some(labels[row])))
                .collect();
            let targets: Vec<&Target> = targets.iter().collect();
            let loss = match name {
                "scores" => scores(vectors.clone(), &targets),
                _ => in_batch_negatives(vectors.clone(), &targets, 20.0),
            } / rows as f64;
            let value = loss.clone().into_scalar::<f32>();
            assert!((f64::from(value) - golden[name]["loss"].as_f64().unwrap()).abs() < 1e-5, "{name}: {value}");
            let gradient: Vec<f32> = vectors.grad(&loss.backward()).unwrap().into_data().iter::<f32>().collect();
            let expected: Vec<Vec<Vec<f32>>> = serde_json::from_value(golden[name]["gradients"].clone()).unwrap();
            let expected = (0..rows).flat_map(|row| expected.iter().flat_map(move |column| column[row].clone()));
            for (found, expected) in gradient.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{name}: {found} {expected}");
            }
        }
    }

    #[test]
    fn equal_texts_are_no_negatives() {
        // Texts 1 to 9; the third example has the first one's question, the second example has the first one's answer.
        let examples = [target(&[1, 2, 7], None), target(&[3, 2, 8], None), target(&[1, 5, 3], None)];
        let layout = Layout::of(&examples.iter().collect::<Vec<_>>());
        assert_eq!((&layout.questions[..], &layout.candidates[..]), (&[0, 3, 6][..], &[1, 4, 7, 2, 5, 8][..]));
        let excluded: Vec<bool> = layout.excluded.iter().map(|&value| value < 0.0).collect();
        let expected = [
            [false, true, true, false, false, false],
            // The negative "3" of the third example is the question of the second.
            [true, false, false, false, false, true],
            [true, true, false, false, false, false],
        ];
        assert_eq!(excluded, expected.concat());
    }
}
