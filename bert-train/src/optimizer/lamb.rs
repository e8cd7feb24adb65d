//! LAMB (You et al. 2020), for large batches: Adam's step, scaled by `‖p‖ / ‖step‖` for parameters that decay.
//! Implemented by [`bert_model::ops::optimizer::lamb`].

use bert_model::ops::optimizer::{Constants, Control, Parameter, lamb};

use super::UpdateRule;

/// The update rule of LAMB.
#[derive(Debug)]
pub(super) struct Lamb;

impl UpdateRule for Lamb {
    fn step(&self, parameters: Vec<Parameter>, control: &Control, constants: Constants) -> Vec<Parameter> {
        lamb(parameters, control, constants)
    }
}
