//! Gradients by parameter name: summed over micro-batches, measured and clipped by their global norm.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use crate::ops;
use crate::pretrained::names::hugging_face_name;

/// The sum of the gradients of some micro-batches, each as a matrix (a vector is one row).
#[derive(Debug, Default)]
pub struct GradientSum {
    by_name: BTreeMap<String, Tensor<2>>,
}

impl GradientSum {
    /// Adds what `backward` left for the parameters of `model`.
    pub fn add<M: Module>(&mut self, model: &M, gradients: Gradients) {
        model.visit(&mut Collector { path: Vec::new(), gradients, sum: &mut self.by_name });
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Self) {
        for (name, gradient) in other.by_name {
            add(&mut self.by_name, name, gradient);
        }
    }

    /// √Σ‖g‖² over all parameters.
    pub fn global_norm(&self) -> f64 {
        let squares: Vec<Tensor<1>> = self.by_name.values().cloned().map(sum_of_squares).collect();
        if squares.is_empty() {
            return 0.0;
        }
        let squares = Tensor::cat(squares, 0).into_data();
        squares.iter::<f32>().map(f64::from).sum::<f64>().sqrt()
    }

    /// Takes out the gradient of one parameter.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<2>> {
        self.by_name.remove(name)
    }
}

struct Collector<'a> {
    path: Vec<String>,
    gradients: Gradients,
    sum: &'a mut BTreeMap<String, Tensor<2>>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.base().grad_remove(&mut self.gradients) else { return };
        let gradient = ops::widened(as_matrix(gradient));
        let name = hugging_face_name(&self.path);
        add(self.sum, name, gradient);
    }
}

fn add(sums: &mut BTreeMap<String, Tensor<2>>, name: String, gradient: Tensor<2>) {
    let sum = match sums.remove(&name) {
        Some(sum) if ops::is_fast(&sum) => ops::adam::accumulate(sum, gradient),
        Some(sum) => sum + gradient,
        None => gradient,
    };
    sums.insert(name, sum);
}

/// Shape: `[1]`.
fn sum_of_squares(gradient: Tensor<2>) -> Tensor<1> {
    match ops::is_fast(&gradient) {
        true => ops::adam::sum_of_squares(gradient),
        false => gradient.powi_scalar(2).sum_dim(1).sum(),
    }
}

/// A tensor of any rank as a matrix of rows along its last dimension.
pub(super) fn as_matrix<const D: usize>(tensor: Tensor<D>) -> Tensor<2> {
    let columns = tensor.dims()[D - 1];
    let rows = tensor.shape().num_elements() / columns.max(1);
    tensor.reshape([rows, columns])
}
