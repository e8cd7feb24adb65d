//! The order of training examples, a pure function of seed, epoch and position.
//!
//! Documents are visited in a random order over the whole corpus, which changes with every epoch. A block of documents,
//! up to a limit on its tokens, is turned into examples, which are shuffled within the block. A resumed run rebuilds
//! the current block and continues in its middle.

use bert_model::{Error, Result};
use bert_train::permutation::{Permutation, mix};
use bert_train::{StepBatches, StepSource};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::examples::{ExampleMaker, PretrainingExample, RandomSurplus};
use crate::split::{Split, Subset};
use crate::store::{RandomDocuments, StoreReader};

/// Number of tokens per block: enough to separate the examples of a document, and small compared with a model's memory.
const BLOCK_TOKENS: usize = 1 << 21;

/// Tags that keep the run's random streams independent.
const DOCUMENT_ORDER: u64 = 1;
const EXAMPLES: u64 = 2;
const EXAMPLE_ORDER: u64 = 3;
const FIRST_POSITION: u64 = 4;

/// Position in the stream, as saved in checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Number of completed epochs.
    pub epoch: u64,
    /// Index of the block's first document in the order of the epoch.
    pub block: u64,
    /// Number of examples already taken from the block.
    pub taken: usize,
}

/// An endless stream of the examples of one subset of a corpus, epoch after epoch.
#[derive(Debug)]
pub struct ExampleStream {
    reader: StoreReader,
    split: Split,
    part: Subset,
    maker: ExampleMaker,
    seed: u64,
    /// Number of different maskings, used in rotation; `None` for new ones in every epoch.
    maskings: Option<u64>,
    cursor: Cursor,
    block: Vec<PretrainingExample>,
    next_block: u64,
}

impl ExampleStream {
    /// Starts the stream at `cursor`.
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

    /// The next example; `None` if a whole epoch yields none.
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

    /// The remaining examples of the current epoch, at most `limit`.
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

    /// Number of remaining examples of the current epoch.
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

    /// The current position.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// A random number that is determined by the stream's position: always the same one there.
    fn draw(&self, tag: u64) -> u64 {
        let Cursor { epoch, block, taken } = self.cursor;
        mix(&[self.seed, tag, epoch, block, taken as u64])
    }

    /// Number of epochs so far, including the fraction of the current one.
    pub fn epochs(&self) -> f64 {
        let in_block = self.cursor.taken as f64 / self.block.len().max(1) as f64;
        let documents = self.cursor.block as f64 + in_block * (self.next_block - self.cursor.block) as f64;
        self.cursor.epoch as f64 + documents / self.documents().max(1) as f64
    }

    fn documents(&self) -> u64 {
        self.split.len(self.part)
    }

    /// Builds the examples of the block at the cursor.
    fn make_block(&mut self) -> Result<()> {
        let Cursor { epoch, block, .. } = self.cursor;
        // The labels of a document's pairs depend on the documents before it, so with static masking the order of the
        // documents recurs, too; that of the examples in a block does not.
        let masking = self.maskings.map_or(epoch, |maskings| epoch % maskings);
        let order = Permutation::new(self.documents(), mix(&[self.seed, DOCUMENT_ORDER, masking]));
        let others = RandomDocuments { reader: &self.reader, split: self.split, part: self.part };
        let (mut examples, mut surplus, mut tokens, mut place) = (Vec::new(), RandomSurplus::default(), 0, block);
        while place < self.documents() && tokens < BLOCK_TOKENS {
            let index = order.apply(place);
            let document = self.reader.document(self.split.document(self.part, index))?;
            tokens += document.iter().map(Vec::len).sum::<usize>();
            let mut rng = ChaCha8Rng::seed_from_u64(mix(&[self.seed, EXAMPLES, masking, index]));
            examples.extend(self.maker.examples(index, &document, &others, &mut surplus, &mut rng)?);
            place += 1;
        }
        examples.shuffle(&mut ChaCha8Rng::seed_from_u64(mix(&[self.seed, EXAMPLE_ORDER, epoch, block])));
        (self.block, self.next_block) = (examples, place);
        Ok(())
    }
}

/// Why a corpus has no examples.
pub const NO_EXAMPLES: &str = "the corpus yields no examples: every document is too short for a pair, or the only \
                               one has no two sentences that fit into a sequence; --no-nsp needs no pairs";

/// Groups the stream into steps of `accumulate` micro-batches of `batch_size` examples.
#[derive(Debug)]
pub struct TrainingSource {
    /// The stream of examples.
    pub stream: ExampleStream,
    /// Examples per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
    /// Number of blocks of positions, each as long as a sequence: all sequences of a step have the positions of a
    /// random one. With more than one, the positions of longer sequences are trained, too.
    pub position_blocks: u64,
}

/// The examples of one micro-batch, with the totals of the whole step, over which losses are averaged.
#[derive(Debug)]
pub struct MicroBatch {
    /// The examples.
    pub examples: Vec<PretrainingExample>,
    /// Number of masked tokens in all micro-batches of the step.
    pub masked_in_step: usize,
    /// Number of examples in all micro-batches of the step.
    pub examples_in_step: usize,
    /// Position of the first token of each example.
    pub first_position: usize,
}

impl MicroBatch {
    /// Splits the examples of a step, which begin at `first_position`, into micro-batches.
    pub fn split_step(examples: Vec<PretrainingExample>, batch_size: usize, first_position: usize) -> Vec<Self> {
        let masked_in_step = examples.iter().map(|example| example.masked.len()).sum();
        let examples_in_step = examples.len();
        let mut examples = examples.into_iter().peekable();
        let mut batches = Vec::new();
        while examples.peek().is_some() {
            let examples = examples.by_ref().take(batch_size).collect();
            batches.push(Self { examples, masked_in_step, examples_in_step, first_position });
        }
        batches
    }
}

impl StepSource for TrainingSource {
    type Batch = MicroBatch;

    fn next_step(&mut self) -> Result<Option<StepBatches<MicroBatch>>> {
        let mut examples = Vec::new();
        while examples.len() < self.batch_size * self.accumulate {
            examples.push(self.stream.next_example()?.ok_or_else(|| Error::Setting(NO_EXAMPLES.into()))?);
        }
        let tokens = examples.iter().map(|example| example.ids.len() as u64).sum();
        let cursor = serde_json::to_value(self.stream.cursor()).map_err(|error| Error::Setting(error.to_string()))?;
        let first_position =
            self.stream.draw(FIRST_POSITION) % self.position_blocks.max(1) * self.stream.maker.max_length as u64;
        let batches = MicroBatch::split_step(examples, self.batch_size, first_position as usize);
        Ok(Some(StepBatches { batches, tokens, epoch: self.stream.epochs(), cursor }))
    }
}

#[cfg(test)]
mod tests;
