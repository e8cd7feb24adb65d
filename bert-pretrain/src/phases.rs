//! The phases of a run: steps on short sequences first, then on long ones (paper, appendix A.2).

use bert_model::{Error, Result};
use bert_train::permutation::mix;
use bert_train::{StepBatches, StepSource};
use serde_json::Value;

use crate::examples::NspMode;
use crate::prepare::{PreparedData, example_maker};
use crate::settings::{DataSettings, PretrainSettings};
use crate::split::Subset;
use crate::stream::{Cursor, ExampleStream, MicroBatch, TrainingSource};

/// Tag that keeps this random stream independent of the run's others.
const PHASE_2: u64 = 12;

/// The two phases of the paper's pretraining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sequences of at most `--max-seq-len` tokens.
    First,
    /// Sequences of at most `--phase2-seq-len` tokens.
    Second,
}

/// Iterates over the steps of both phases. Each phase starts at the beginning of its own data.
#[derive(Debug)]
pub struct PhasedSource<'a> {
    settings: &'a PretrainSettings,
    data: &'a PreparedData,
    /// The next step, from 0.
    step: u64,
    /// The first step of the second phase.
    second: u64,
    /// The number of steps.
    end: u64,
    source: TrainingSource,
}

impl<'a> PhasedSource<'a> {
    /// Creates the source for a run of `steps` steps, starting at step number `step` (from 0); `cursor` is the position
    /// in the data that the checkpoint of that step recorded, still in phase 1 if phase 2 begins with it.
    ///
    /// # Errors
    /// If the tokenized corpus cannot be read, or `cursor` is not a valid position.
    pub fn new(
        settings: &'a PretrainSettings,
        data: &'a PreparedData,
        steps: u64,
        (step, cursor): (u64, &Value),
    ) -> Result<Self> {
        let second = steps - settings.phase2_steps.min(steps);
        let phase = if step <= second { Phase::First } else { Phase::Second };
        let cursor = match cursor {
            Value::Null => Cursor::default(),
            value => serde_json::from_value(value.clone())
                .map_err(|error| Error::Setting(format!("the checkpoint's position in the data: {error}")))?,
        };
        Ok(Self { settings, data, step, second, end: steps, source: source(settings, data, phase, cursor)? })
    }
}

impl StepSource for PhasedSource<'_> {
    type Batch = MicroBatch;

    fn next_step(&mut self) -> Result<Option<StepBatches<MicroBatch>>> {
        if self.step == self.end {
            return Ok(None);
        }
        if self.step == self.second {
            self.source = source(self.settings, self.data, Phase::Second, Cursor::default())?;
        }
        self.step += 1;
        self.source.next_step()
    }
}

fn source(settings: &PretrainSettings, data: &PreparedData, phase: Phase, cursor: Cursor) -> Result<TrainingSource> {
    let stream = stream(settings, data, phase, cursor)?;
    let position_blocks = match phase {
        Phase::First if settings.shift_positions => settings.longest() / settings.data.max_seq_len,
        _ => 1,
    };
    Ok(TrainingSource {
        stream,
        batch_size: settings.batch_size,
        accumulate: settings.accumulate,
        position_blocks: position_blocks as u64,
    })
}

fn stream(settings: &PretrainSettings, data: &PreparedData, phase: Phase, cursor: Cursor) -> Result<ExampleStream> {
    let (length, seed) = match phase {
        Phase::First => (settings.data.max_seq_len, settings.seed),
        Phase::Second => (settings.phase2_seq_len, mix(&[settings.seed, PHASE_2])),
    };
    let nsp_mode = match phase {
        Phase::First if settings.nsp_in_phase2 => NspMode::Off,
        _ => settings.data.nsp_mode,
    };
    let maker = example_maker(&DataSettings { nsp_mode, ..settings.data.clone() }, length, &data.tokenizer)?;
    let reader = data.store.reader()?;
    ExampleStream::new(reader, data.split, Subset::Training, maker, seed, settings.maskings, cursor)
}

/// The number of steps: the configured one, or as many as the epochs contain.
///
/// # Errors
/// If the tokenized corpus cannot be read.
pub fn count_steps(settings: &PretrainSettings, data: &PreparedData) -> Result<u64> {
    if let Some(steps) = settings.steps {
        return Ok(steps);
    }
    let mut stream = stream(settings, data, Phase::First, Cursor::default())?;
    let examples = stream.count_epoch()? as f64 * settings.epochs;
    let steps = (examples / (settings.batch_size * settings.accumulate) as f64).ceil() as u64;
    Ok(steps.max(1).max(settings.phase2_steps))
}

/// Builds the first training examples of the run's first phase, or of the one with next-sentence prediction.
///
/// # Errors
/// If the tokenized corpus cannot be read.
pub fn first_examples(
    settings: &PretrainSettings,
    data: &PreparedData,
    count: usize,
) -> Result<Vec<crate::examples::PretrainingExample>> {
    let phase = if settings.nsp_in_phase2 { Phase::Second } else { Phase::First };
    stream(settings, data, phase, Cursor::default())?.rest_of_epoch(count)
}
