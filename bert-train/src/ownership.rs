//! Which rank updates which parameter, if the optimizer's state is divided among the ranks (Rajbhandari et al. 2020,
//! "ZeRO", stage 1).
//!
//! A rank keeps the running means of its own parameters only. It receives the sum of their gradients, updates them, and
//! sends them to the others. Every number is computed as without it, by one rank instead of by all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bert_model::Result;
use bert_model::ops::optimizer::sums_of_squares;
use bert_model::pretrained::save::HostTensor;
use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use super::communicator::{Communicator, Patience};
use super::gradients::GradientSum;
use super::optimizer::Optimizer;
use super::parameters::{Change, ParameterPath, Visit, change_parameters, visit_parameters};
use super::sharing::{decode, encode, values};

/// Which rank updates which parameter.
#[derive(Debug, Clone)]
pub(crate) struct Ownership {
    owners: BTreeMap<String, usize>,
    rank: usize,
}

impl Ownership {
    /// Divides the parameters of `model` among the ranks: the largest first, each to the rank that has the fewest numbers
    /// so far.
    pub fn of<M: Module>(model: &M, communicator: &dyn Communicator) -> Self {
        let mut sizes = Sizes(Vec::new());
        visit_parameters(model, &mut sizes);
        sizes.0.sort_by_key(|(name, size)| (Reverse(*size), name.clone()));
        let mut numbers = vec![0; communicator.size()];
        let mut give = |(name, size): (String, usize)| {
            let owner = (0..numbers.len()).min_by_key(|&rank| numbers[rank]).unwrap_or_default();
            numbers[owner] += size;
            (name, owner)
        };
        let owners = sizes.0.into_iter().map(&mut give).collect();
        Self { owners, rank: communicator.rank() }
    }

    /// The rank that updates a parameter.
    pub fn owner(&self, name: &str) -> usize {
        self.owners.get(name).copied().unwrap_or_default()
    }

    /// Whether this rank updates a parameter.
    pub fn is_own(&self, name: &str) -> bool {
        self.owner(name) == self.rank
    }

    /// The sum of the squares of each gradient in the order of `names`, those of all ranks' gradients. `gradients` are
    /// those of this rank's own parameters.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn squares(
        &self,
        communicator: &dyn Communicator,
        gradients: &GradientSum,
        names: &BTreeSet<String>,
    ) -> Result<Vec<f32>> {
        let all = communicator.gather_values(&sums_of_squares(&gradients.all()))?;
        let mut rest: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
        let next = |name: &String| rest[self.owner(name)].next().unwrap_or(f32::NAN);
        Ok(names.iter().map(next).collect())
    }

    /// Gives all ranks the updated parameters of their owners. `names` are those that have a gradient.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn share_parameters<M: Module>(
        &self,
        communicator: &dyn Communicator,
        model: M,
        names: &BTreeSet<String>,
    ) -> Result<M> {
        let mut all = Values { names, values: BTreeMap::new(), ownership: self };
        visit_parameters(&model, &mut all);
        let mut by_owner = vec![Vec::new(); communicator.size()];
        all.values.into_iter().for_each(|(name, values)| by_owner[self.owner(&name)].push((name, values)));
        let mut received = BTreeMap::new();
        // A parameter of every rank at a time.
        while by_owner.iter().any(|parameters| !parameters.is_empty()) {
            let mut turn: Vec<_> = by_owner.iter_mut().map(Vec::pop).collect();
            let own = turn[self.rank].take().map(|(_, values)| values);
            let own = own.as_ref().map(|values| bytemuck::cast_slice(values));
            let send =
                own.into_iter().flat_map(|own| communicator.others().map(move |rank| (rank, own))).collect::<Vec<_>>();
            let theirs = turn.iter_mut().enumerate().filter_map(|(rank, turn)| Some((rank, turn.as_mut()?)));
            let receive = theirs.map(|(rank, (_, values))| (rank, bytemuck::cast_slice_mut(values))).collect();
            communicator.exchange(&send, receive, Patience::Limited)?;
            received.extend(turn.into_iter().flatten());
        }
        Ok(change_parameters(model, &mut Replace(received)))
    }

    /// The running means of all ranks' parameters on the first rank, for a checkpoint; none on the others.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn collect_means(
        &self,
        communicator: &dyn Communicator,
        optimizer: &Optimizer,
    ) -> Result<BTreeMap<String, HostTensor>> {
        let own = optimizer.state();
        let outline: Vec<_> = own.iter().map(|(name, mean)| (name, &mean.shape)).collect();
        let outlines = communicator.gather(&encode(&outline)?, Patience::Limited)?;
        if !communicator.is_first() {
            for mean in own.values() {
                communicator.exchange(&[(0, bytemuck::cast_slice(&mean.values))], Vec::new(), Patience::Limited)?;
            }
            return Ok(BTreeMap::new());
        }
        let mut all = own;
        for (rank, outline) in outlines.iter().enumerate().skip(1) {
            for (name, shape) in decode::<Vec<(String, Vec<usize>)>>(outline)? {
                let mut values = vec![0.0; shape.iter().product()];
                let receive = vec![(rank, bytemuck::cast_slice_mut::<f32, u8>(&mut values))];
                communicator.exchange(&[], receive, Patience::Limited)?;
                all.insert(name, HostTensor { shape, values });
            }
        }
        Ok(all)
    }
}

/// Names of all parameters and their numbers of elements.
struct Sizes(Vec<(String, usize)>);

impl Visit for Sizes {
    fn visit<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: &Param<Tensor<D>>) {
        self.0.push((path.name(), parameter.lazy_shape().num_elements()));
    }
}

/// The values of this rank's parameters, and room for those of the others.
struct Values<'a> {
    names: &'a BTreeSet<String>,
    values: BTreeMap<String, Vec<f32>>,
    ownership: &'a Ownership,
}

impl Visit for Values<'_> {
    fn visit<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: &Param<Tensor<D>>) {
        let name = path.name();
        if self.names.contains(&name) {
            let values = match self.ownership.is_own(&name) {
                true => values(parameter),
                false => vec![0.0; parameter.lazy_shape().num_elements()],
            };
            self.values.insert(name, values);
        }
    }
}

/// Replaces parameters by those of other ranks.
struct Replace(BTreeMap<String, Vec<f32>>);

impl Change for Replace {
    fn change<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.0.remove(&path.name()) else { return parameter };
        parameter.map(|leaf| {
            let inner = leaf.inner();
            let value = Tensor::from_data(TensorData::new(values, inner.shape()), &inner.device());
            Tensor::from_inner(value).require_grad()
        })
    }
}
