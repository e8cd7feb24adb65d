//! The routes. [`ask`] is the way of every request that a model answers; the other files say what differs: [`embeddings`],
//! [`labels`] and [`heads`] by what is asked, [`inference`] for clients of Hugging Face's inference API. [`tokenize`] and
//! [`about`] need no model.

pub mod about;
pub mod ask;
pub mod embeddings;
pub mod heads;
pub mod inference;
pub mod labels;
pub mod one_or_many;
pub mod tokenize;
