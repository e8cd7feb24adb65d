//! The HTTP routes. [`ask`] handles every request that needs a model's answer, and the modules after it define what
//! differs between routes. [`inference`] implements Hugging Face's inference API. [`tokenize`] and [`about`] do not run
//! a model.

pub mod about;
pub mod ask;
pub mod choices;
pub mod embeddings;
pub mod inference;
pub mod labels;
pub mod masks;
pub mod one_or_many;
pub mod questions;
pub mod ranks;
pub mod tags;
pub mod tokenize;
