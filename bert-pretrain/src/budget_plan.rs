//! Plans a run within a budget of time: measures the speed of models on the run's own data, then completes the
//! settings.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bert_model::ops::optimizer::is_asynchronous;
use bert_model::{BertConfig, BertForPreTraining, Error, Pretrained, Result, Workers};
use bert_train::{Optimizer, Plan, Solo, StepSource, TrainingState, take_step};
use burn::module::Module;
use burn::tensor::Device;
use serde_json::Value;

use crate::budget::Budget;
use crate::examples::NspMode;
use crate::objective::Pretraining;
use crate::phases::PhasedSource;
use crate::prepare::PreparedData;
use crate::recipe::{self, SIZES, Undecided};
use crate::settings::{PretrainRunOptions, PretrainSettings};
use crate::start::{model_config, set_dropout};

/// The part of a budget that measuring one size may take.
const MEASURED_SHARE: f64 = 0.01;
/// The most steps that are timed.
const MOST_STEPS: u32 = 30;
/// A first step that takes this many times as long as measuring may take is the only one.
const SLOW_STEP: u32 = 5;
/// The part of the remaining time that is planned. The rest allows for slower moments and for writing the model.
const PLANNED_SHARE: f64 = 0.97;
/// The time of an evaluation relative to training on the same examples, whose backward pass takes twice the forward
/// pass's.
const EVALUATION_SHARE: f64 = 0.4;
/// A size is measured if it would be fast enough were it this much faster than estimated.
const ESTIMATE_MARGIN: f64 = 1.5;

/// The speed of training.
#[derive(Clone, Copy)]
struct Speed {
    /// Seconds per step.
    step: f64,
    /// Tokens per step, without padding.
    tokens: f64,
}

/// A model that could be trained, with its speed.
struct Candidate {
    settings: PretrainSettings,
    config: BertConfig,
    speed: Speed,
}

/// Completes the settings of a run with a budget: the size, the number of steps and what depends on them. Any other
/// settings, and those that a recorded run already has, are returned unchanged. `started` is when the run began.
///
/// # Errors
/// If the data cannot be read, or no time is left.
pub fn plan(
    settings: PretrainSettings,
    data: &PreparedData,
    device: &Device,
    started: Instant,
    run: &PretrainRunOptions,
) -> Result<PretrainSettings> {
    let Some(budget) = settings.budget.filter(|_| settings.steps.is_none()) else { return Ok(settings) };
    let corpus_tokens = data.training_tokens() as f64;
    let left = || budget.time().as_secs_f64() - started.elapsed().as_secs_f64();
    let longest = Duration::from_secs_f64(budget.time().as_secs_f64() * MEASURED_SHARE);
    let sizes: Vec<String> = match settings.undecided.size {
        true => SIZES.map(str::to_string).to_vec(),
        false => vec![settings.config.clone()],
    };
    let mut best: Option<Candidate> = None;
    for size in sizes {
        let (settings, config) = candidate(&settings, size, data)?;
        let is_worth = |speed: Speed| recipe::is_worth(&config, left() / speed.step * speed.tokens, corpus_tokens);
        if let Some(Candidate { config: smaller, speed, .. }) = &best {
            let slower = recipe::weights(&config) / recipe::weights(smaller) / ESTIMATE_MARGIN;
            if !is_worth(Speed { step: speed.step * slower.max(1.0), ..*speed }) {
                break;
            }
        }
        let speed = measure(&settings, &config, data, device, longest)?;
        if best.is_some() && !is_worth(speed) {
            break;
        }
        best = Some(Candidate { settings, config, speed });
    }
    let Some(mut best) = best else { return Ok(settings) };
    if best.settings.undecided.dropout
        && recipe::dropout(left() / best.speed.step * best.speed.tokens / corpus_tokens).is_none()
    {
        best.settings.dropout = None;
        best.speed = measure(&best.settings, &best.config, data, device, longest)?;
    }
    let second = match best.settings.has_phase2() {
        false => None,
        true => {
            let mut settings = best.settings.clone();
            (settings.data.max_seq_len, settings.phase2_steps) = (settings.phase2_seq_len, 0);
            settings.nsp_in_phase2 = false;
            Some(measure(&settings, &best.config, data, device, longest)?)
        }
    };
    finish(best, second, budget, left(), (data.held_out.len(), corpus_tokens), run)
}

/// The settings of a run with a model of this size, and its configuration.
fn candidate(settings: &PretrainSettings, size: String, data: &PreparedData) -> Result<(PretrainSettings, BertConfig)> {
    let mut settings = PretrainSettings { config: size, ..settings.clone() };
    let config = model_config(&settings, &data.tokenizer)?;
    if settings.undecided.learning_rate {
        settings.learning_rate = recipe::learning_rate(settings.optimizer.algorithm, &config);
    }
    if settings.undecided.batch_size {
        settings.batch_size = recipe::batch_size(&config);
    }
    if settings.undecided.dropout {
        settings.dropout = Some(0.0);
    }
    Ok((settings, config))
}

/// Measures the speed of training on a temporary model.
fn measure(
    settings: &PretrainSettings,
    config: &BertConfig,
    data: &PreparedData,
    device: &Device,
    longest: Duration,
) -> Result<Speed> {
    let mut model = BertForPreTraining::init_seeded(config, settings.seed, device);
    settings.dropout.iter().for_each(|dropout| set_dropout(&mut model, *dropout));
    let mut state = TrainingState::new(model.train(), Optimizer::new(settings.optimizer));
    let plan = Plan {
        clip: (settings.clip > 0.0).then_some(settings.clip),
        precision: settings.precision,
        gradient_checkpointing: settings.gradient_checkpointing,
        ..Plan::constant(settings.learning_rate, u64::MAX)
    };
    let mut objective = Pretraining::new(device.clone(), data.tokenizer.special().pad, settings.batch_size);
    objective.with_nsp = settings.data.nsp_mode != NspMode::Off;
    let workers = Workers::for_device(device)?;
    let mut source = PhasedSource::new(settings, data, u64::MAX, (0, &Value::Null))?;
    let (mut timed, mut tokens) = (0, 0);
    let (mut since, mut is_slow) = (Instant::now(), false);
    while timed < MOST_STEPS && (timed < 2 || since.elapsed() < longest) && !is_slow {
        let Some(step) = source.next_step()? else {
            return Err(Error::Setting("--budget: the corpus is too short for a training example".into()));
        };
        let taken;
        (state, taken) = take_step(state, &objective, step.batches, &plan, &workers, &Solo)?;
        taken.wait()?;
        (timed, tokens) = (timed + 1, tokens + step.tokens);
        // The first step takes longer than the others: it allocates memory and, on a GPU, compiles kernels, which says
        // nothing about the others.
        if state.step == 1 {
            is_slow = !is_asynchronous(device) && since.elapsed() > longest * SLOW_STEP;
            if !is_slow {
                (since, timed, tokens) = (Instant::now(), 0, 0);
            }
        }
    }
    let timed = f64::from(timed);
    Ok(Speed { step: since.elapsed().as_secs_f64() / timed, tokens: tokens as f64 / timed })
}

/// Sets the number of steps, and tells the user. `second` is the speed of phase 2, `left` the remaining time in
/// seconds, and `held_out` the number of evaluation examples.
fn finish(
    Candidate { mut settings, config, speed }: Candidate,
    second: Option<Speed>,
    budget: Budget,
    left: f64,
    (held_out, corpus_tokens): (usize, f64),
    run: &PretrainRunOptions,
) -> Result<PretrainSettings> {
    let examples = (settings.batch_size * settings.accumulate) as f64;
    let last = second.unwrap_or(speed);
    let evaluation = held_out as f64 / examples * last.step.max(speed.step) * EVALUATION_SHARE;
    let evaluation_per_step = if run.eval_every == 0 { 0.0 } else { evaluation / run.eval_every as f64 };
    let (step, last_step) = (speed.step + evaluation_per_step, last.step + evaluation_per_step);
    // A model that is continued is also evaluated before the first step.
    let evaluation = if settings.init.is_some() { 2.0 * evaluation } else { evaluation };
    let planned = (left - evaluation) * PLANNED_SHARE;
    if settings.undecided.phase2_steps {
        settings.phase2_steps = ((planned * recipe::PHASE2_SHARE / last_step) as u64).max(1);
    }
    let phase2 = settings.phase2_steps as f64;
    let phase2_time = phase2 * last_step;
    let phase1 = ((planned - phase2_time) / step).floor();
    if phase1 < 1.0 {
        return Err(Error::Setting(format!(
            "--budget: found {budget}, of which {:.0} s are left after preparing the data; expected at least {:.0} s for one step, \
             phase 2 and the evaluation",
            left.max(0.0),
            (phase2_time + step) / PLANNED_SHARE + evaluation
        )));
    }
    settings.steps = Some(phase1 as u64 + settings.phase2_steps);
    settings.undecided = Undecided::default();
    if !run.quiet {
        let BertConfig { num_hidden_layers: layers, hidden_size: hidden, .. } = config;
        let tokens = phase1 * speed.tokens + phase2 * second.map_or(0.0, |speed| speed.tokens);
        eprintln!(
            "budget {budget}: {layers} layers of {hidden}; {:.3} s per step of {:.0} tokens; {} steps, {:.1} million tokens, {:.1} \
             passes over the corpus",
            speed.step,
            speed.tokens,
            phase1 + phase2,
            tokens / 1e6,
            tokens / corpus_tokens.max(1.0)
        );
        let duration = Duration::from_secs_f64(phase1 * step + phase2_time + evaluation);
        eprintln!("expected end: in {}, at {} UTC", about(duration), clock(SystemTime::now() + duration));
    }
    Ok(settings)
}

/// A duration for people: "58 min".
fn about(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

/// The time of day, as "19:05", with the number of days if it is not today's.
fn clock(time: SystemTime) -> String {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (now, then) = (seconds(SystemTime::now()), seconds(time));
    let days = match then / 86_400 - now / 86_400 {
        0 => String::new(),
        days => format!(" in {days} d"),
    };
    format!("{:02}:{:02}{days}", then / 3600 % 24, then / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(options: &str, speed: Speed) -> (Candidate, PretrainRunOptions) {
        let words =
            ["x", "--corpus", "a.txt", "-o", "run", "--budget", "10m"].into_iter().chain(options.split_whitespace());
        let args = <crate::args::Cli as clap::Parser>::parse_from(words).train;
        let (mut settings, run) = PretrainSettings::resolve(&args).unwrap();
        let run = PretrainRunOptions { quiet: true, ..run };
        settings.config = "tiny".into();
        (Candidate { settings, config: BertConfig::named("tiny").unwrap(), speed }, run)
    }

    #[test]
    fn as_many_steps_are_planned_as_fit_beside_the_evaluation_and_phase_2() {
        let (speed, budget) = (Speed { step: 0.5, tokens: 4000.0 }, "10m".parse().unwrap());
        let plan = |options: &str, second, left, held_out| {
            let (candidate, run) = candidate(&format!("--max-seq-len 128 {options}"), speed);
            finish(candidate, second, budget, left, (held_out, 1e6), &run)
        };
        let steps = |settings: Result<PretrainSettings>| settings.unwrap().steps.unwrap();
        assert_eq!(steps(plan("", None, 500.0, 0)), 970);
        // 3200 examples are 100 batches, each of which takes 40 % of a step.
        assert_eq!(steps(plan("", None, 520.0, 3200)), 970);
        // An evaluation after every 100 steps adds as much to each as a hundredth of the evaluation.
        assert_eq!(steps(plan("--eval-every 100", None, 540.0, 6400)), 538);
        let second = Some(Speed { step: 2.0, tokens: 16_000.0 });
        assert_eq!(steps(plan("--phase2-steps 100", second, 500.0, 0)), 570 + 100);
        // Without a given length, phase 2 takes 40 % of the time.
        let (candidate, run) = candidate("", speed);
        let settings = finish(candidate, second, budget, 500.0, (0, 1e6), &run).unwrap();
        assert_eq!((settings.phase2_steps, settings.steps), (97, Some(582 + 97)));
        let settings = plan("", None, 500.0, 0).unwrap();
        assert_eq!((settings.undecided, settings.budget), (Undecided::default(), Some(budget)));
        for (options, second, left) in [("", None, -3.0), ("", None, 0.4), ("--phase2-steps 900", second, 500.0)] {
            let message = plan(options, second, left, 0).unwrap_err().to_string();
            assert!(
                message.contains("--budget: found 10m, of which") && message.contains("expected at least"),
                "{message}"
            );
        }
    }

    #[test]
    fn times_are_for_people() {
        let about = |seconds| super::about(Duration::from_secs(seconds));
        assert_eq!([about(50), about(3500), about(9000)], ["50 s", "58 min", "2.5 h"]);
        assert!(
            clock(SystemTime::now()).len() == 5
                && clock(SystemTime::now() + Duration::from_secs(172_800)).ends_with("in 2 d")
        );
    }
}
