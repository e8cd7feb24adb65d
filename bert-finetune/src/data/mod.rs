//! Labeled data as it is found in the world, turned into plain rows; no file here knows of tokens.
//!
//! | file | reads |
//! |---|---|
//! | [`bert_cli::input::table`] | texts with classes, numbers or many labels, from `.csv`, `.tsv` and `.jsonl` |
//! | [`choices`] | multiple choice, from the same formats |
//! | [`conll`] | tagged words |
//! | [`squad`] | questions about passages |
//!
//! What is malformed is an error with file and line.

pub mod choices;
pub mod conll;
pub mod squad;
