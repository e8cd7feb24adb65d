//! Muon (Jordan 2024): momentum whose singular values are set to about 1, for the matrices of encoder layers; AdamW for
//! the embeddings, biases, LayerNorm and heads. One learning rate serves both, since updates of matrices are scaled to
//! the size of AdamW's (Liu et al. 2025). Implemented by [`bert_model::ops::optimizer::muon()`].

use bert_model::ops::optimizer::{Constants, Control, Parameter, muon};

use super::UpdateRule;

/// The update rule of Muon.
#[derive(Debug)]
pub(super) struct Muon;

impl UpdateRule for Muon {
    fn step(&self, parameters: Vec<Parameter>, control: &Control, constants: Constants) -> Vec<Parameter> {
        muon(parameters, control, constants)
    }
}
