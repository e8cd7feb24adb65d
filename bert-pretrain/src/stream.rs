//! The order of training: a function of seed, epoch and position alone.
//!
//! Documents come in a random order over the whole corpus, fresh every epoch. A block of them, as many as fit a bound,
//! is made into examples, and the examples are shuffled within the block. A resumed run makes the block at hand again
//! and goes on in the middle of it.

use bert_model::{Error, Result};
use bert_train::permutation::{Permutation, mix};
use bert_train::{StepBatches, StepSource};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::examples::{ExampleMaker, PretrainingExample, RandomSurplus};
use crate::store::{RandomDocuments, Split, StoreReader, Subset};

/// Tokens of a block: enough that examples of one document end up far apart, small beside a model's own memory.
const BLOCK_TOKENS: usize = 1 << 21;

/// Tags that keep streams of random numbers apart.
const DOCUMENT_ORDER: u64 = 1;
const EXAMPLES: u64 = 2;
const EXAMPLE_ORDER: u64 = 3;

/// Where the stream stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Passes completed.
    pub epoch: u64,
    /// First document of the block, in the order of the epoch.
    pub block: u64,
    /// Examples of the block that have been taken.
    pub taken: usize,
}

/// All examples of one part of a corpus, epoch after epoch.
#[derive(Debug)]
pub struct ExampleStream {
    reader: StoreReader,
    split: Split,
    part: Subset,
    maker: ExampleMaker,
    seed: u64,
    /// Number of different maskings that repeat; `None` for fresh ones in every epoch.
    maskings: Option<u64>,
    cursor: Cursor,
    block: Vec<PretrainingExample>,
    next_block: u64,
}

impl ExampleStream {
    /// Begins at `cursor`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn new(
        reader: StoreReader,
        split: Split,
        part: Subset,
        maker: ExampleMaker,
        seed: u64,
        maskings: Option<u64>,
        cursor: Cursor,
    ) -> Result<Self> {
        let mut stream = Self { reader, split, part, maker, seed, maskings, cursor, block: vec![], next_block: 0 };
        stream.make_block()?;
        Ok(stream)
    }

    /// The next example; `None` if a whole epoch gives none.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn next_example(&mut self) -> Result<Option<PretrainingExample>> {
        let mut empty_epochs = 0;
        while self.cursor.taken >= self.block.len() {
            if self.next_block < self.documents() {
                self.cursor = Cursor { block: self.next_block, taken: 0, ..self.cursor };
            } else {
                empty_epochs += 1;
                if empty_epochs > 1 {
                    return Ok(None);
                }
                self.cursor = Cursor { epoch: self.cursor.epoch + 1, block: 0, taken: 0 };
            }
            self.make_block()?;
        }
        let example = std::mem::replace(&mut self.block[self.cursor.taken], PretrainingExample::empty());
        self.cursor.taken += 1;
        Ok(Some(example))
    }

    /// Every example of the epoch at hand, from the cursor on, at most `limit`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn rest_of_epoch(&mut self, limit: usize) -> Result<Vec<PretrainingExample>> {
        let epoch = self.cursor.epoch;
        let mut examples = Vec::new();
        while examples.len() < limit {
            match self.next_example()? {
                Some(example) if self.cursor.epoch == epoch => examples.push(example),
                _ => break,
            }
        }
        Ok(examples)
    }

    /// Number of examples in the rest of the epoch at hand.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn count_epoch(&mut self) -> Result<usize> {
        let mut count = self.block.len() - self.cursor.taken;
        while self.next_block < self.documents() {
            self.cursor = Cursor { block: self.next_block, taken: 0, ..self.cursor };
            self.make_block()?;
            count += self.block.len();
        }
        Ok(count)
    }

    /// Where the stream stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Passes over the data so far, in parts of an epoch.
    pub fn epochs(&self) -> f64 {
        let in_block = self.cursor.taken as f64 / self.block.len().max(1) as f64;
        let documents = self.cursor.block as f64 + in_block * (self.next_block - self.cursor.block) as f64;
        self.cursor.epoch as f64 + documents / self.documents().max(1) as f64
    }

    fn documents(&self) -> u64 {
        self.split.len(self.part)
    }

    /// Makes the examples of the block at the cursor.
    fn make_block(&mut self) -> Result<()> {
        let Cursor { epoch, block, .. } = self.cursor;
        let order = Permutation::new(self.documents(), mix(&[self.seed, DOCUMENT_ORDER, epoch]));
        let masking = self.maskings.map_or(epoch, |maskings| epoch % maskings);
        let others = RandomDocuments { reader: &self.reader, split: self.split, part: self.part };
        let (mut examples, mut surplus, mut tokens, mut place) = (Vec::new(), RandomSurplus::default(), 0, block);
        while place < self.documents() && tokens < BLOCK_TOKENS {
            let index = order.apply(place);
            let document = self.reader.document(self.split.document(self.part, index))?;
            tokens += document.iter().map(Vec::len).sum::<usize>();
            // A generator for each document: its examples do not depend on its place in the order.
            let mut rng = ChaCha8Rng::seed_from_u64(mix(&[self.seed, EXAMPLES, masking, index]));
            examples.extend(self.maker.examples(index, &document, &others, &mut surplus, &mut rng)?);
            place += 1;
        }
        examples.shuffle(&mut ChaCha8Rng::seed_from_u64(mix(&[self.seed, EXAMPLE_ORDER, epoch, block])));
        (self.block, self.next_block) = (examples, place);
        Ok(())
    }
}

/// The stream, cut into steps of `accumulate` micro-batches of `batch_size` examples.
#[derive(Debug)]
pub struct TrainingSource {
    /// Where examples come from.
    pub stream: ExampleStream,
    /// Examples of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub accumulate: usize,
}

/// Examples of one micro-batch, and what the whole step holds, so that means are means over the step.
#[derive(Debug)]
pub struct MicroBatch {
    /// The examples.
    pub examples: Vec<PretrainingExample>,
    /// Hidden tokens in all micro-batches of the step.
    pub masked_in_step: usize,
    /// Examples in all micro-batches of the step.
    pub examples_in_step: usize,
}

impl MicroBatch {
    /// Cuts the examples of a step into micro-batches.
    pub fn split_step(examples: Vec<PretrainingExample>, batch_size: usize) -> Vec<Self> {
        let masked_in_step = examples.iter().map(|example| example.masked.len()).sum();
        let examples_in_step = examples.len();
        let mut examples = examples.into_iter().peekable();
        let mut batches = Vec::new();
        while examples.peek().is_some() {
            let examples = examples.by_ref().take(batch_size).collect();
            batches.push(Self { examples, masked_in_step, examples_in_step });
        }
        batches
    }
}

impl StepSource for TrainingSource {
    type Batch = MicroBatch;

    fn next_step(&mut self) -> Result<Option<StepBatches<MicroBatch>>> {
        let mut examples = Vec::with_capacity(self.batch_size * self.accumulate);
        while examples.len() < self.batch_size * self.accumulate {
            examples.push(self.stream.next_example()?.ok_or_else(|| {
                Error::Setting("the corpus gives no training example: every document is too short for a pair".into())
            })?);
        }
        let tokens = examples.iter().map(|example| example.ids.len() as u64).sum();
        let cursor = serde_json::to_value(self.stream.cursor()).map_err(|error| Error::Setting(error.to_string()))?;
        let batches = MicroBatch::split_step(examples, self.batch_size);
        Ok(Some(StepBatches { batches, tokens, epoch: self.stream.epochs(), cursor }))
    }
}
