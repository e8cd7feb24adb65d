//! Visits the parameters of a model by their Hugging Face names.

use bert_model::pretrained::names::hugging_face_name;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Where a parameter stands in its model: the names of the modules around it, outermost first.
#[derive(Debug, Clone, Copy)]
pub struct ParameterPath<'a>(&'a [String]);

impl ParameterPath<'_> {
    /// The parameter's Hugging Face name.
    pub fn name(self) -> String {
        hugging_face_name(self.0)
    }
}

/// A visitor that reads parameters.
pub trait Visit {
    /// Handles one parameter.
    fn visit<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: &Param<Tensor<D>>);
}

/// A visitor that changes parameters.
pub trait Change {
    /// Handles one parameter.
    fn change<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Calls `visitor` with every parameter, in the order of the modules.
pub fn visit_parameters<M: Module>(model: &M, visitor: &mut impl Visit) {
    model.visit(&mut WithPath { path: Vec::new(), inner: visitor });
}

/// Replaces every parameter by the result of `changer`, in the order of the modules.
pub fn change_parameters<M: Module>(model: M, changer: &mut impl Change) -> M {
    model.map(&mut WithPath { path: Vec::new(), inner: changer })
}

/// Reshapes a tensor of any rank to a matrix of rows along its last dimension.
pub fn as_matrix<const D: usize>(tensor: Tensor<D>) -> Tensor<2> {
    let columns = tensor.dims()[D - 1];
    let rows = tensor.shape().num_elements() / columns.max(1);
    tensor.reshape([rows, columns])
}

/// Tracks the path of module names during a visit.
struct WithPath<'a, I> {
    path: Vec<String>,
    inner: &'a mut I,
}

impl<I: Visit> ModuleVisitor for WithPath<'_, I> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.inner.visit(ParameterPath(&self.path), parameter);
    }
}

impl<I: Change> ModuleMapper for WithPath<'_, I> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.inner.change(ParameterPath(&self.path), parameter)
    }
}
