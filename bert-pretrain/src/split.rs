//! Splits the documents of a tokenized corpus into training and held-out documents.

use bert_train::permutation::Permutation;
use serde::{Deserialize, Serialize};

/// Splits documents into training and held-out ones; the two are disjoint.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Split {
    training: u64,
    held_out: u64,
    /// The order of the documents, held-out ones first; `None` for the order of the store, held-out ones last.
    order: Option<Permutation>,
}

impl Split {
    /// Holds out a random fraction `share` of the documents: at least one if `share` is positive and there are at least
    /// two.
    pub fn new(documents: u64, share: f64, seed: u64) -> Self {
        let held_out = if share > 0.0 { ((documents as f64 * share).round() as u64).max(1) } else { 0 };
        let held_out = held_out.min(documents.saturating_sub(1));
        Self { training: documents - held_out, held_out, order: Some(Permutation::new(documents, seed)) }
    }

    /// Holds out all documents from number `training` on.
    pub fn at(training: u64, documents: u64) -> Self {
        Self { training, held_out: documents.saturating_sub(training), order: None }
    }

    /// Number of documents in a subset.
    pub fn len(&self, part: Subset) -> u64 {
        match part {
            Subset::Training => self.training,
            Subset::HeldOut => self.held_out,
        }
    }

    /// The number in the store of document `index` of a subset.
    pub fn document(&self, part: Subset, index: u64) -> u64 {
        match (&self.order, part) {
            (Some(order), Subset::Training) => order.apply(self.held_out + index),
            (Some(order), Subset::HeldOut) => order.apply(index),
            (None, Subset::Training) => index,
            (None, Subset::HeldOut) => self.training + index,
        }
    }
}

/// One of the two subsets of a [`Split`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subset {
    /// Documents to train on.
    Training,
    /// Held-out documents, for evaluation.
    HeldOut,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_split_are_disjoint_and_complete() {
        let split = Split::new(500, 0.1, 7);
        let part = |part| (0..split.len(part)).map(move |index| split.document(part, index)).collect::<Vec<_>>();
        let (training, held_out) = (part(Subset::Training), part(Subset::HeldOut));
        assert_eq!((training.len(), held_out.len()), (450, 50));
        let mut all = [training, held_out].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..500));
    }

    #[test]
    fn a_little_corpus_keeps_something_on_both_sides() {
        let lens = |documents, share| {
            let split = Split::new(documents, share, 1);
            (split.len(Subset::Training), split.len(Subset::HeldOut))
        };
        assert_eq!(lens(1, 0.02), (1, 0));
        assert_eq!(lens(2, 0.02), (1, 1));
        assert_eq!(lens(10, 0.0), (10, 0));
    }

    #[test]
    fn passages_behind_the_documents_are_held_out_in_their_order() {
        let split = Split::at(3, 5);
        let part = |part| (0..split.len(part)).map(|index| split.document(part, index)).collect::<Vec<_>>();
        assert_eq!((part(Subset::Training), part(Subset::HeldOut)), (vec![0, 1, 2], vec![3, 4]));
    }
}
