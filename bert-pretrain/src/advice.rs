//! Advice to the user about the data of a run before it starts, and about its result.

use crate::examples::PretrainingExample;
use crate::objective::only_label;
use crate::settings::PretrainSettings;

/// Minimum number of examples, from several documents, needed to conclude that all examples have one label.
const FEWEST_EXAMPLES: usize = 10;
/// With fewer tokens than this, a new model learns little more than the frequencies of words.
const LITTLE_TEXT: u64 = 1_000_000;

/// A model whose loss is less than this below the frequency baseline, in nats, has hardly learned to use context.
const LITTLE_GAIN: f64 = 1.0;

/// Warns that next-sentence prediction cannot learn from a corpus, given its first examples.
pub fn one_label(first: &[PretrainingExample], documents: u64) -> Option<String> {
    let is_random = only_label(first).filter(|_| documents == 1 || first.len() >= FEWEST_EXAMPLES)?;
    let reason = if is_random { "no document has a second sentence" } else { "there is a single document" };
    Some(format!(
        "every pair of the corpus is {} ({reason}), so next-sentence prediction learns nothing; pass --no-nsp to train \
         masked LM alone",
        label(is_random)
    ))
}

/// Warns that an evaluation has no next-sentence accuracy, since all pairs have this label.
pub fn no_accuracy(only_label: Option<bool>) -> Option<String> {
    let label = label(only_label?);
    Some(format!("every evaluation pair is {label}, so there is no next-sentence accuracy"))
}

fn label(is_random: bool) -> &'static str {
    if is_random { "of unrelated texts" } else { "a true continuation" }
}

/// Warns that there are no evaluation examples although some were asked for.
pub fn nothing_held_out(settings: &PretrainSettings, documents: u64, held_out: usize) -> Option<String> {
    if held_out > 0 || settings.eval_share == 0.0 && settings.eval_corpus.is_empty() {
        return None;
    }
    if !settings.eval_corpus.is_empty() {
        return Some("no evaluation: the texts of --eval-corpus are too short for an example".into());
    }
    let reason = match documents {
        1 => "the corpus is a single short document",
        _ => "the held-out documents are too short for an example",
    };
    Some(format!("no evaluation: {reason}; raise --eval-share, or pass --eval-corpus"))
}

/// Advice for training a new model on little text.
pub fn little_text(settings: &PretrainSettings, tokens: u64) -> Option<String> {
    if tokens >= LITTLE_TEXT || settings.init.is_some() || settings.corpus.is_empty() {
        return None;
    }
    Some(format!(
        "little text: {:.2} million tokens teach a new model hardly more than word frequencies; continue from a trained model \
         with --init DIR, or train for more --epochs",
        tokens as f64 / 1e6
    ))
}

/// Advice if the final model is no better than the frequency baseline, or hardly better.
pub fn below_baseline(mlm_loss: f64, unigram_loss: f64) -> Option<String> {
    let better = match unigram_loss - mlm_loss {
        gain if gain <= 0.0 => "no better",
        gain if gain < LITTLE_GAIN => "hardly better",
        _ => return None,
    };
    Some(format!(
        "the model is {better} than guessing by word frequency: let --budget 1h choose the options for an hour, train longer \
         (--epochs), with a higher --lr, or continue from a trained model (--init)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PretrainSettings;

    fn examples(count: usize, is_random: impl Fn(usize) -> bool) -> Vec<PretrainingExample> {
        let example = |index| PretrainingExample { is_random_next: is_random(index), ..PretrainingExample::empty() };
        (0..count).map(example).collect()
    }

    #[test]
    fn a_corpus_of_one_label_is_told_with_no_nsp_as_advice() {
        let told = |first: &[PretrainingExample], documents| one_label(first, documents).unwrap();
        assert!(told(&examples(3, |_| false), 1).contains("a true continuation (there is a single document)"));
        let message = told(&examples(40, |_| true), 48);
        assert!(message.contains("of unrelated texts") && message.contains("--no-nsp"), "{message}");
        // A few equal labels from several documents may be chance.
        assert_eq!(one_label(&examples(5, |_| true), 7), None);
        assert_eq!(one_label(&examples(40, |index| index == 7), 7), None);
        assert_eq!(one_label(&[], 1), None);
    }

    #[test]
    fn little_text_and_no_evaluation_are_told() {
        let (sample, _) = PretrainSettings::sample().unwrap();
        let settings = PretrainSettings { corpus: vec!["a.txt".into()], ..sample.clone() };
        assert!(little_text(&settings, 200_000).unwrap().contains("0.20 million"));
        assert_eq!(little_text(&settings, 2_000_000), None);
        assert_eq!(little_text(&PretrainSettings { init: Some("m".into()), ..settings.clone() }, 200_000), None);
        assert_eq!(little_text(&sample, 200_000), None);
        assert!(nothing_held_out(&settings, 1, 0).unwrap().contains("--eval-corpus"));
        assert_eq!(nothing_held_out(&settings, 1, 3), None);
        assert_eq!(nothing_held_out(&PretrainSettings { eval_share: 0.0, ..settings }, 1, 0), None);
        assert!(below_baseline(6.55, 5.12).unwrap().contains("no better"));
        assert!(below_baseline(6.371, 7.04).unwrap().contains("hardly better than guessing"));
        assert_eq!(below_baseline(4.1, 5.12), None);
    }
}
