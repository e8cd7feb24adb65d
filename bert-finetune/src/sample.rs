//! The built-in labelled sample: what guests say of inns, good or bad, in the world of `bert-pretrain`'s sample.
//!
//! The training texts use a few of the world's words of praise and blame, the held-out texts the others. A model that has
//! read the world's reviews knows which words keep company; one that begins with random weights cannot.

use bert_pretrain::sample::{BLAME, PRAISE, SUBJECTS};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Words of each list that the training texts use.
const TRAINING_WORDS: usize = 6;

/// Training and held-out examples, as two tab-separated tables with the columns `text` and `label`.
pub fn tables(seed: u64) -> (String, String) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let training = table(0..TRAINING_WORDS, 480, &mut rng);
    let held_out = table(TRAINING_WORDS..PRAISE.len(), 400, &mut rng);
    (training, held_out)
}

fn table(words: std::ops::Range<usize>, rows: usize, rng: &mut ChaCha8Rng) -> String {
    let row = |index: usize, rng: &mut ChaCha8Rng| {
        let (list, label) = if index.is_multiple_of(2) { (&PRAISE, "good") } else { (&BLAME, "bad") };
        let mut word = || list[rng.random_range(words.clone())];
        let (first, second) = (word(), word());
        let (one, other) =
            (SUBJECTS[rng.random_range(0..SUBJECTS.len())], SUBJECTS[rng.random_range(0..SUBJECTS.len())]);
        let text = match rng.random_range(0..3) {
            0 => format!("the {one} was {first} and the {other} was {second}."),
            1 => format!("what a {first} {one}, and what a {second} {other}."),
            _ => format!("the guest found the {one} {first} and {second}."),
        };
        format!("{text}\t{label}\n")
    };
    let rows: String = (0..rows).map(|index| row(index, rng)).collect();
    format!("text\tlabel\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_texts_share_no_word_of_praise_or_blame_with_the_training_texts() {
        let (training, held_out) = tables(42);
        let words = |table: &str| {
            let has = |word: &&&str| table.split(|c: char| !c.is_alphabetic()).any(|found| found == **word);
            PRAISE.iter().chain(&BLAME).filter(has).copied().collect::<Vec<_>>()
        };
        let (seen, asked) = (words(&training), words(&held_out));
        assert_eq!((seen.len(), asked.len()), (12, 8));
        assert!(asked.iter().all(|word| !seen.contains(word)));
    }
}
