//! Gives all ranks the same state, and checks that they keep it.

use bert_model::ops::hash;
use bert_model::pretrained::save::HostTensor;
use bert_model::{Error, Result};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::communicator::{Communicator, Patience, values_of};
use super::ownership::Ownership;
use super::parameters::{Change, ParameterPath, Visit, change_parameters, visit_parameters};
use super::precision::SavedScale;
use super::state::TrainingState;

/// A training state without its tensors.
#[derive(Serialize, Deserialize)]
struct Outline {
    step: u64,
    cursor: Value,
    seconds: f64,
    loss_scale: SavedScale,
    /// Names and shapes of the optimizer's running means.
    means: Vec<(String, Vec<usize>)>,
}

/// Gives every rank the state of the first one. All must have models of the same shape. If `shards_optimizer`, each keeps
/// the optimizer's running means of its own parameters only.
///
/// # Errors
/// If the connection fails, or a rank has a model of another shape.
pub fn share_state<M: Module>(
    communicator: &dyn Communicator,
    mut state: TrainingState<M>,
    device: &Device,
    shards_optimizer: bool,
) -> Result<TrainingState<M>> {
    if communicator.size() == 1 {
        return Ok(state);
    }
    state.ownership = shards_optimizer.then(|| Ownership::of(&state.model, communicator));
    let is_kept = |mean: &str| {
        let parameter = mean.rsplit_once('.').map_or(mean, |(parameter, _)| parameter);
        state.ownership.as_ref().is_none_or(|ownership| ownership.is_own(parameter))
    };
    let means = if communicator.is_first() { state.optimizer.state() } else { Default::default() };
    let outline = communicator.from_first(
        || {
            Ok(Outline {
                step: state.step,
                cursor: state.cursor.clone(),
                seconds: state.seconds,
                loss_scale: state.saved_scale,
                means: means.iter().map(|(name, mean)| (name.clone(), mean.shape.clone())).collect(),
            })
        },
        encode,
        |bytes| decode(&bytes),
    )?;
    let mut own = means.into_values();
    let mut receive = |(name, shape): (String, Vec<usize>)| {
        let values = share_values(communicator, own.next().map(|mean| mean.values).unwrap_or_default())?;
        Ok(is_kept(&name).then_some((name, HostTensor { shape, values })))
    };
    let means = outline.means.into_iter().filter_map(|mean| receive(mean).transpose()).collect::<Result<_>>()?;
    let mut sharing = ShareParameters { communicator, outcome: Ok(()) };
    state.model = change_parameters(state.model, &mut sharing);
    sharing.outcome?;
    if !communicator.is_first() {
        state.optimizer.restore(outline.step, means, device);
        state.step = outline.step;
        state.cursor = outline.cursor;
        state.seconds = outline.seconds;
        state.saved_scale = outline.loss_scale;
    }
    if let Some(ownership) = &state.ownership {
        state.optimizer.retain(ownership);
    }
    Ok(state)
}

/// Encodes a value for other ranks.
///
/// # Errors
/// If it cannot be serialized.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Setting(error.to_string()))
}

/// The reverse of [`encode`].
///
/// # Errors
/// If the bytes are not those of such a value.
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::Setting(format!("a message of another rank: {error}")))
}

/// The settings of the first rank, for all. `resolve` reads them there.
///
/// # Errors
/// If `resolve` fails, or the connection does.
pub fn share_settings<S: Serialize + for<'de> Deserialize<'de>>(
    communicator: &dyn Communicator,
    resolve: impl FnOnce() -> Result<S>,
) -> Result<S> {
    communicator.from_first(resolve, encode, |bytes| decode(&bytes))
}

/// The numbers of the first rank, which alone passes any.
fn share_values(communicator: &dyn Communicator, own: Vec<f32>) -> Result<Vec<f32>> {
    let bytes = communicator.broadcast(bytemuck::cast_slice(&own).to_vec(), Patience::Limited)?;
    Ok(values_of(&bytes))
}

/// Replaces all parameters by those of the first rank.
struct ShareParameters<'a> {
    communicator: &'a dyn Communicator,
    outcome: Result<()>,
}

impl Change for ShareParameters<'_> {
    fn change<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.outcome.is_err() {
            return parameter;
        }
        let is_first = self.communicator.is_first();
        let own = if is_first { values(&parameter) } else { Vec::new() };
        let shared = match share_values(self.communicator, own) {
            Ok(shared) => shared,
            Err(error) => {
                self.outcome = Err(error);
                return parameter;
            }
        };
        if is_first {
            return parameter;
        }
        let shape = parameter.lazy_shape();
        if shape.num_elements() != shared.len() {
            let (name, found) = (path.name(), shape.num_elements());
            let found = format!("{name}: the first rank has {} numbers, this one {found}", shared.len());
            self.outcome = Err(Error::Setting(found));
            return parameter;
        }
        parameter.map(|leaf| {
            let value = Tensor::from_data(TensorData::new(shared, leaf.shape()), &leaf.device());
            if leaf.is_require_grad() { value.require_grad() } else { value }
        })
    }
}

/// The numbers of a parameter.
pub(crate) fn values<const D: usize>(parameter: &Param<Tensor<D>>) -> Vec<f32> {
    parameter.val().into_data().iter::<f32>().collect()
}

/// Checks that all ranks have the same weights.
///
/// # Errors
/// If one has others than the first rank, or the connection fails.
pub fn compare_weights<M: Module>(communicator: &dyn Communicator, model: &M) -> Result<()> {
    if communicator.size() == 1 {
        return Ok(());
    }
    let mut hash = WeightsHash(0);
    visit_parameters(model, &mut hash);
    match differing(communicator, &hash.0.to_string(), Patience::Limited)? {
        None => Ok(()),
        Some([(rank, host, _), _]) => Err(Error::Setting(format!(
            "the weights of rank {rank} on {host} differ from those of rank 0: its memory or its processor may be faulty, or \
             of another kind; the last checkpoint is kept"
        ))),
    }
}

/// Checks that all ranks compute on devices of the same kind, such as `cuda`.
///
/// # Errors
/// If one has another device than the first rank, or the connection fails.
pub fn compare_devices(communicator: &dyn Communicator, name: &str) -> Result<()> {
    match differing(communicator, name, Patience::Unlimited)? {
        None => Ok(()),
        Some([(rank, host, name), (_, _, first)]) => Err(Error::Setting(format!(
            "rank {rank} on {host} has the device {name}, rank 0 has {first}; name one with --device that all machines have"
        ))),
    }
}

/// The number, the machine and the value of the first rank whose value is not that of rank 0, and those of rank 0.
/// Then all ranks end with the same error, which the first one reports.
fn differing(
    communicator: &dyn Communicator,
    own: &str,
    patience: Patience,
) -> Result<Option<[(usize, String, String); 2]>> {
    let all = communicator.gather(&encode(&(communicator.host(), own))?, patience)?;
    let decoded = |(rank, bytes): (usize, &Vec<u8>)| decode(bytes).map(|(host, value)| (rank, host, value));
    let mut all: Vec<(usize, String, String)> = all.iter().enumerate().map(decoded).collect::<Result<_>>()?;
    let Some(other) = all.iter().position(|(_, _, value)| *value != all[0].2) else { return Ok(None) };
    communicator.end_all();
    Ok(Some([all.remove(other), all.remove(0)]))
}

struct WeightsHash(u64);

impl Visit for WeightsHash {
    fn visit<const D: usize>(&mut self, _path: ParameterPath<'_>, parameter: &Param<Tensor<D>>) {
        self.0 = values(parameter).into_iter().fold(self.0, |hash, value| hash::mix(hash ^ u64::from(value.to_bits())));
    }
}
