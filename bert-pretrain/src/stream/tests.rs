//! Tests that the order of training examples depends only on seed, epoch and position.

use std::collections::BTreeSet;

use bert_model::Tokenizer;
use bert_model::text::tokenizer::Normalization;
use tempfile::TempDir;

use super::*;
use crate::corpus::{Corpus, SentenceMode};
use crate::examples::NspMode;
use crate::masking::Masking;
use crate::store::Store;

/// A tokenized corpus of documents with a few sentences each.
struct Fixture {
    store: Store,
    tokenizer: Tokenizer,
    _directory: TempDir,
}

impl Fixture {
    fn new(documents: usize) -> Self {
        let document = |number: usize| format!("a b c d\ne f g {}\nh a d f\n\n", ["a", "b", "c"][number % 3]);
        Self::of((0..documents).map(document))
    }

    fn of<S: AsRef<str>>(documents: impl Iterator<Item = S>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("corpus.txt");
        std::fs::write(&path, documents.map(|text| text.as_ref().to_string()).collect::<String>()).unwrap();
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let pieces: Vec<String> =
            special.into_iter().chain("abcdefgh".split("").filter(|p| !p.is_empty())).map(str::to_string).collect();
        let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap();
        let corpus = Corpus::open(&[path]).unwrap();
        let store =
            Store::build(&directory.path().join("tokens"), &corpus, &tokenizer, SentenceMode::Line, "").unwrap();
        Self { store, tokenizer, _directory: directory }
    }

    fn stream(&self, maskings: Option<u64>, cursor: Cursor) -> ExampleStream {
        let masking = Masking {
            probability: 0.3,
            max_predictions: 4,
            continuations: Vec::new(),
            special: self.tokenizer.special(),
            mask: self.tokenizer.mask().unwrap(),
            vocab_size: self.tokenizer.vocab_size() as u32,
        };
        let maker = ExampleMaker { max_length: 16, short_probability: 0.1, nsp: NspMode::Balanced, masking };
        let split = Split::new(self.store.stats().documents, 0.0, 0);
        ExampleStream::new(self.store.reader().unwrap(), split, Subset::Training, maker, 7, maskings, cursor).unwrap()
    }
}

/// The examples of an epoch in a canonical order.
fn sorted(mut examples: Vec<PretrainingExample>) -> Vec<PretrainingExample> {
    examples.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
    examples
}

#[test]
fn a_stream_goes_on_from_any_cursor_as_if_it_had_not_stopped() {
    let fixture = Fixture::new(20);
    let mut whole = fixture.stream(None, Cursor::default());
    while whole.cursor().epoch < 2 {
        let mut resumed = fixture.stream(None, whole.cursor());
        assert_eq!(resumed.cursor(), whole.cursor());
        assert_eq!(resumed.next_example().unwrap(), whole.next_example().unwrap());
    }
}

#[test]
fn an_epoch_is_counted_without_being_taken() {
    let fixture = Fixture::new(20);
    let count = fixture.stream(None, Cursor::default()).count_epoch().unwrap();
    let mut stream = fixture.stream(None, Cursor::default());
    assert_eq!(stream.rest_of_epoch(3).unwrap().len(), 3);
    assert_eq!(stream.count_epoch().unwrap(), count - 3);
    assert_eq!(fixture.stream(None, Cursor::default()).rest_of_epoch(usize::MAX).unwrap().len(), count);
    assert!(count >= 20, "{count} examples of 20 documents");
}

#[test]
fn epochs_are_masked_afresh_unless_maskings_repeat() {
    let fixture = Fixture::new(20);
    let epoch = |maskings, epoch| {
        let cursor = Cursor { epoch, ..Cursor::default() };
        fixture.stream(maskings, cursor).rest_of_epoch(usize::MAX).unwrap()
    };
    assert_ne!(sorted(epoch(None, 0)), sorted(epoch(None, 1)));
    assert_ne!(epoch(Some(2), 0), epoch(Some(2), 2), "the order is another one in every epoch");
    assert_eq!(sorted(epoch(Some(2), 0)), sorted(epoch(Some(2), 2)));
    assert_ne!(sorted(epoch(Some(2), 0)), sorted(epoch(Some(2), 1)));
    // Also if a document changes how the next ones are split into pairs: here, every other one is too long for a pair.
    let fixture = Fixture::of(
        (0..20).map(|n| if n % 2 == 0 { "a b c d e f g h a b c d e f\n\n" } else { "a b c\nd e\nf g\nh a\n\n" }),
    );
    let epoch =
        |epoch| fixture.stream(Some(2), Cursor { epoch, ..Cursor::default() }).rest_of_epoch(usize::MAX).unwrap();
    assert_eq!(sorted(epoch(0)), sorted(epoch(2)), "static masking");
}

#[test]
fn a_corpus_without_examples_is_noticed() {
    let fixture = Fixture::new(1);
    // A document of which everything is held out, so that nothing is left.
    let mut stream = fixture.stream(None, Cursor::default());
    stream.split = Split::new(0, 0.0, 0);
    (stream.block, stream.next_block) = (Vec::new(), 0);
    assert_eq!(stream.next_example().unwrap(), None);
}

#[test]
fn a_step_is_cut_into_micro_batches_that_know_the_whole() {
    let fixture = Fixture::new(20);
    let stream = fixture.stream(None, Cursor::default());
    let mut source = TrainingSource { stream, batch_size: 3, accumulate: 2, position_blocks: 1 };
    let step = source.next_step().unwrap().unwrap();
    let examples: Vec<&PretrainingExample> = step.batches.iter().flat_map(|batch| &batch.examples).collect();
    assert_eq!((step.batches.len(), examples.len()), (2, 6));
    let masked: usize = examples.iter().map(|example| example.masked.len()).sum();
    assert!(step.batches.iter().all(|batch| (batch.masked_in_step, batch.examples_in_step) == (masked, 6)));
    assert_eq!(step.tokens, examples.iter().map(|example| example.ids.len() as u64).sum::<u64>());
    assert_eq!(step.cursor, serde_json::json!({"epoch": 0, "block": 0, "taken": 6}));
    assert!(step.epoch > 0.0 && step.epoch < 1.0);
}

#[test]
fn steps_draw_blocks_of_positions_which_a_resumed_run_draws_again() {
    let fixture = Fixture::new(20);
    let source = |cursor, position_blocks| TrainingSource {
        stream: fixture.stream(None, cursor),
        batch_size: 1,
        accumulate: 2,
        position_blocks,
    };
    let length = fixture.stream(None, Cursor::default()).maker.max_length;
    let draw = |source: &mut TrainingSource| {
        let step = source.next_step().unwrap().unwrap();
        let first = step.batches[0].first_position;
        assert!(step.batches.iter().all(|batch| batch.first_position == first), "one for all of a step");
        (first, serde_json::from_value(step.cursor).unwrap())
    };
    let mut from_start = source(Cursor::default(), 5);
    let drawn: Vec<(usize, Cursor)> = (0..60).map(|_| draw(&mut from_start)).collect();
    let blocks: BTreeSet<usize> = drawn.iter().map(|(first, _)| *first).collect();
    assert_eq!(blocks, (0..5).map(|block| block * length).collect());
    let mut resumed = source(drawn[19].1, 5);
    assert!(drawn[20..].iter().all(|expected| draw(&mut resumed) == *expected));
    let mut paper = source(Cursor::default(), 1);
    assert!((0..20).all(|_| draw(&mut paper).0 == 0));
}
