//! The routes. [`ask`] is the way of every request that a model answers; the files after it say what differs, and
//! [`inference`] has the forms of Hugging Face's inference API. [`tokenize`] and [`about`] need no model's answer.

pub mod about;
pub mod ask;
pub mod choices;
pub mod embeddings;
pub mod inference;
pub mod labels;
pub mod masks;
pub mod one_or_many;
pub mod questions;
pub mod tags;
pub mod tokenize;
