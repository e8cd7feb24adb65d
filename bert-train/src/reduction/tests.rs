//! Whole steps of several ranks, which are threads that exchange messages over channels.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use bert_model::model::loss::cross_entropy;
use bert_model::{BertConfig, BertForMaskedLM, BertInput, Pretrained, Workers};
use burn::module::Module;

use super::*;
use crate::{Algorithm, Losses, Objective, Optimizer, OptimizerConfig, Plan, Solo, TrainingState, take_step};

/// A rank that is a thread.
struct Thread {
    rank: usize,
    /// To every rank.
    senders: Vec<Sender<Vec<u8>>>,
    /// From every rank.
    receivers: Vec<Mutex<Receiver<Vec<u8>>>>,
    /// Late by this much in each exchange.
    delay: Duration,
}

impl Communicator for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.senders.len()
    }

    fn host(&self) -> &str {
        "here"
    }

    fn exchange(&self, send: &[(usize, &[u8])], receive: Vec<(usize, &mut [u8])>, _patience: Patience) -> Result<()> {
        std::thread::sleep(self.delay);
        for (rank, bytes) in send {
            self.senders[*rank].send(bytes.to_vec()).unwrap();
        }
        for (rank, buffer) in receive {
            buffer
                .copy_from_slice(&self.receivers[rank].lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap());
        }
        Ok(())
    }
}

/// Runs `work` on this many ranks and returns the results in order.
fn on_threads<R: Send>(ranks: usize, work: impl Fn(&dyn Communicator) -> R + Sync) -> Vec<R> {
    let mut senders: Vec<Vec<_>> = (0..ranks).map(|_| Vec::new()).collect();
    let mut receivers: Vec<Vec<_>> = (0..ranks).map(|_| Vec::new()).collect();
    for senders in &mut senders {
        for receivers in &mut receivers {
            let (sender, receiver) = channel();
            senders.push(sender);
            receivers.push(Mutex::new(receiver));
        }
    }
    std::thread::scope(|scope| {
        let spawn = |(rank, (senders, receivers))| {
            let delay = Duration::from_micros(137 * rank as u64 * rank as u64 % 997);
            let own = Thread { rank, senders, receivers, delay };
            let work = &work;
            scope.spawn(move || work(&own))
        };
        let handles: Vec<_> = senders.into_iter().zip(receivers).enumerate().map(spawn).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    })
}

/// Masked LM on sequences of four tokens; a micro-batch is the numbers of its sequences.
struct Sequences;

impl Objective for Sequences {
    type Model = BertForMaskedLM;
    type Batch = Vec<i32>;

    fn split(&self, batch: Vec<i32>, parts: usize) -> Vec<Vec<i32>> {
        bert_model::workers::split_evenly(batch, parts)
    }

    fn sequences(&self, batch: &Vec<i32>) -> usize {
        batch.len()
    }

    fn loss(&self, model: &BertForMaskedLM, batch: Vec<i32>) -> Losses {
        let device = Device::flex().autodiff();
        let ids = batch.iter().flat_map(|number| [2, 5 + number % 7, 5 + number * 3 % 11, 3]).collect::<Vec<_>>();
        let ids = Tensor::from_data(TensorData::new(ids, [batch.len(), 4]), &device);
        let positions: Vec<i32> = (0..batch.len() as i32).map(|row| 4 * row + 1 + row % 2).collect();
        let labels: Vec<i32> = batch.iter().map(|number| number % 16).collect();
        let logits = model.forward(BertInput::new(ids), Tensor::from_data(&positions[..], &device));
        let loss = cross_entropy(logits, Tensor::from_data(&labels[..], &device)).sum() / 12.0;
        Losses { total: loss.clone(), parts: vec![("mlm_loss", loss)] }
    }
}

/// Losses, gradient norms and weights after some steps, as bits.
fn trained(communicator: &dyn Communicator, parts: usize, cores: usize, batches: &[usize]) -> Vec<u64> {
    trained_over(Wire::F32, communicator, parts, cores, batches).into_iter().map(f64::to_bits).collect()
}

/// Losses, gradient norms and weights after some steps.
fn trained_over(
    wire: Wire,
    communicator: &dyn Communicator,
    parts: usize,
    cores: usize,
    batches: &[usize],
) -> Vec<f64> {
    let plan = Plan { parts: Some(parts), wire, ..Plan::constant(1e-3, 9) };
    after_steps(initial(Algorithm::AdamW), communicator, &plan, cores, batches).0
}

fn initial(algorithm: Algorithm) -> TrainingState<BertForMaskedLM> {
    let config = BertConfig { num_hidden_layers: 2, ..BertConfig::named("tiny").unwrap() }.with_vocab_size(16);
    let model = BertForMaskedLM::init_seeded(&config, 1, &Device::flex()).train();
    TrainingState::new(model, Optimizer::new(OptimizerConfig { algorithm, ..OptimizerConfig::default() }))
}

/// Losses, gradient norms and weights after three steps, and the state.
fn after_steps(
    mut state: TrainingState<BertForMaskedLM>,
    communicator: &dyn Communicator,
    plan: &Plan,
    cores: usize,
    batches: &[usize],
) -> (Vec<f64>, TrainingState<BertForMaskedLM>) {
    let workers = Workers::new(&Device::flex(), cores).unwrap();
    let mut numbers = Vec::new();
    for step in 0..3 {
        let batches = batches.iter().map(|&count| (0..count as i32).map(|row| row * 5 + step).collect()).collect();
        let taken;
        (state, taken) = take_step(state, &Sequences, batches, plan, &workers, communicator).unwrap();
        let step = taken.wait().unwrap();
        numbers.push(step.norm);
        numbers.extend(step.losses.values().map(|loss| loss.as_f64().unwrap()));
    }
    let weights = bert_model::pretrained::state_dict(&state.model.valid());
    numbers.extend(weights.values().flat_map(|weights| weights.values.iter().map(|&value| f64::from(value))));
    (numbers, state)
}

/// Promise: the number of ranks, of cores, and who is late changes no bit.
#[test]
fn a_step_is_the_same_on_any_number_of_ranks_and_cores() {
    for (parts, batches) in [(2, vec![4]), (1, vec![2; 6]), (2, vec![3, 3, 2]), (3, vec![5, 1])] {
        let leaves = batches.iter().map(|&count| parts.min(count)).sum::<usize>();
        let alone = trained(&Solo, parts, 2, &batches);
        assert_eq!(trained(&Solo, parts, 1, &batches), alone, "{batches:?} on one core");
        assert_eq!(trained(&Solo, parts, 5, &batches), alone, "{batches:?} on five cores");
        // Also with a rank that has no shard.
        for ranks in 2..=leaves.min(6) + 1 {
            for (rank, bits) in on_threads(ranks, |ranks| trained(ranks, parts, 2, &batches)).into_iter().enumerate() {
                assert!(bits == alone, "{batches:?} in {parts} parts: rank {rank} of {ranks}");
            }
        }
    }
}

#[test]
fn gradients_sent_in_bf16_are_the_same_on_all_ranks_and_nearly_those_of_one_process() {
    let batches = [3, 3, 2];
    let alone = trained(&Solo, 2, 2, &batches).into_iter().map(f64::from_bits).collect::<Vec<_>>();
    for ranks in 2..=4 {
        let all = on_threads(ranks, |ranks| trained_over(Wire::Bf16, ranks, 2, 2, &batches));
        assert!(all.iter().all(|numbers| *numbers == all[0]), "{ranks} ranks differ from each other");
        assert!(all[0] != alone, "nothing was rounded on {ranks} ranks");
        // Norm and loss of each of the three steps.
        for (found, expected) in all[0].iter().zip(&alone).take(6) {
            assert!((found / expected - 1.0).abs() < 4e-3, "{ranks} ranks: {found}, alone {expected}");
        }
    }
}

/// Promise: dividing the optimizer's state among the ranks changes no bit, of the running means either, and a run that is
/// resumed keeps them.
#[test]
fn a_divided_optimizer_takes_the_same_steps() {
    let (plan, batches, device) = (Plan { parts: Some(2), ..Plan::constant(1e-3, 9) }, [3, 3, 2], Device::flex());
    let numbers_of =
        |state: &TrainingState<_>| state.optimizer.state().values().map(|mean| mean.values.len()).sum::<usize>();
    for algorithm in [Algorithm::AdamW, Algorithm::Lamb, Algorithm::Muon] {
        let twice = |communicator: &dyn Communicator, divides: bool| {
            let share = |state| crate::sharing::share_state(communicator, state, &device, divides).unwrap();
            let (_, state) = after_steps(share(initial(algorithm)), communicator, &plan, 1, &batches);
            let first = match &state.ownership {
                None => state.optimizer.state(),
                Some(ownership) => ownership.collect_means(communicator, &state.optimizer).unwrap(),
            };
            // As a resumed run does: the first rank has all running means, and the others none.
            let mut resumed = TrainingState { step: state.step, ..initial(algorithm) };
            resumed.model = state.model;
            resumed.optimizer.restore(state.step, first.clone(), &device);
            let (numbers, state) = after_steps(share(resumed), communicator, &plan, 1, &batches);
            (numbers, first, numbers_of(&state))
        };
        let (expected, means, whole) = twice(&Solo, false);
        for ranks in [2, 3, 5] {
            let all = on_threads(ranks, |ranks| twice(ranks, true));
            assert!(all.iter().all(|(numbers, ..)| *numbers == expected), "{algorithm:?} on {ranks} ranks");
            assert!(all[0].1 == means && all[1].1.is_empty(), "{algorithm:?} on {ranks} ranks: other running means");
            let kept: Vec<usize> = all.iter().map(|(.., kept)| *kept).collect();
            assert_eq!(kept.iter().sum::<usize>(), whole, "each is kept once");
            assert!(ranks > 3 || kept.iter().all(|&kept| kept * ranks < whole * 5 / 4), "{kept:?} of {whole}");
        }
    }
}

#[test]
fn large_messages_arrive_and_an_error_of_the_first_rank_ends_all() {
    let long: Vec<u8> = (0..70_000_000_u32).map(|at| (at % 251) as u8).collect();
    let received = on_threads(3, |ranks| {
        let own = if ranks.is_first() { long.clone() } else { Vec::new() };
        let same = ranks.broadcast(own, Patience::Limited).unwrap() == long;
        let gathered = ranks.gather(&vec![7; ranks.rank()], Patience::Limited).unwrap();
        let number = ranks.from_first(|| Ok(5), crate::sharing::encode, |bytes| crate::sharing::decode(&bytes));
        (same, gathered.iter().map(Vec::len).collect::<Vec<_>>(), number.unwrap())
    });
    assert_eq!(received, vec![(true, vec![0, 1, 2], 5); 3]);

    let failed = |fails: usize| {
        on_threads(3, move |ranks| {
            let usage = || Err::<(), _>(Error::Usage("no".into()));
            let outcome = if ranks.rank() == fails { usage() } else { Ok(()) };
            let agreed = ranks.agree(outcome).unwrap_err().to_string();
            let first = ranks.from_first(usage, |_| Ok(Vec::new()), |_| Ok(())).unwrap_err();
            (agreed, first.exit_code())
        })
    };
    let other = "another process of this run has failed";
    assert_eq!(failed(0), [("no".to_string(), 2), (other.into(), 2), (other.into(), 2)]);
    assert_eq!(failed(2), [(other.to_string(), 2), (other.into(), 2), ("no".into(), 2)]);
}

#[test]
fn all_ranks_get_the_state_of_the_first_and_a_difference_is_named() {
    let states = on_threads(3, |ranks| {
        let device = Device::flex();
        let config = BertConfig::named("tiny").unwrap().with_vocab_size(16);
        let model = BertForMaskedLM::init_seeded(&config, ranks.rank() as u64, &device).train();
        let differing = crate::sharing::compare_weights(ranks, &model).unwrap_err().to_string();
        let mut state = TrainingState::new(model, Optimizer::new(OptimizerConfig::default()));
        if ranks.is_first() {
            let (plan, workers) = (Plan::constant(1e-3, 9), Workers::new(&device, 2).unwrap());
            (state, _) = take_step(state, &Sequences, vec![vec![1, 2]], &plan, &workers, &Solo).unwrap();
        }
        let state = crate::sharing::share_state(ranks, state, &device, false).unwrap();
        crate::sharing::compare_weights(ranks, &state.model).unwrap();
        let means = state.optimizer.state().into_values().map(|mean| mean.values).collect::<Vec<_>>();
        (differing, state.step, means)
    });
    assert!(states.iter().all(|state| state.0.contains("the weights of rank 1 on here differ")), "{}", states[0].0);
    assert!(states.iter().all(|state| state.1 == 1 && !state.2.is_empty() && state.2 == states[0].2));
}
