//! Readers of labeled data, which return plain rows, before any tokenization.
//!
//! | file | reads |
//! |---|---|
//! | [`bert_cli::input::table`] | texts with classes, numbers or many labels, from `.csv`, `.tsv` and `.jsonl` |
//! | [`choices`] | multiple choice, from the same formats |
//! | [`pairs`] | pairs of texts, with negatives or scores, from the same formats |
//! | [`conll`] | tagged words |
//! | [`squad`] | questions about passages |
//!
//! Malformed input is an error that names file and line.

pub mod choices;
pub mod conll;
pub mod pairs;
pub mod squad;
