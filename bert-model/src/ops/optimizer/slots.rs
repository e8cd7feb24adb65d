//! The running means that an optimizer keeps of a parameter.

use std::collections::BTreeMap;

use burn::prelude::*;

/// An optimizer's running means of a parameter, by name; each has the parameter's shape `[R, C]`.
#[derive(Debug, Clone, Default)]
pub struct Slots(BTreeMap<String, Tensor<2>>);

impl Slots {
    /// Removes a running mean, so that it can be updated in place. If there is none yet: zeros of the shape of `like`.
    pub fn take(&mut self, name: &str, like: &Tensor<2>) -> Tensor<2> {
        self.0.remove(name).unwrap_or_else(|| like.zeros_like())
    }

    /// Sets a running mean.
    pub fn set(&mut self, name: &str, mean: Tensor<2>) {
        self.0.insert(name.to_string(), mean);
    }

    /// Whether there are no running means yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The running means with their names, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<2>)> {
        self.0.iter().map(|(name, mean)| (name.as_str(), mean))
    }
}
