//! Labelled data as it is found in the world, turned into plain rows; no file here knows of tokens.
//!
//! | file | reads |
//! |---|---|
//! | [`table`] | texts with classes, numbers or many labels, from `.csv`, `.tsv` and `.jsonl` |
//! | [`choices`] | multiple choice, from the same formats |
//! | [`conll`], [`tags`] | tagged words, and what tags say of entities |
//! | [`squad`] | questions about passages |
//! | [`input`] | texts to predict for |
//! | [`columns`], [`delimited`], [`lines`] | the layers under them: columns, records, lines |
//!
//! What is malformed is an error with file and line.

pub mod choices;
pub mod columns;
pub mod conll;
pub mod delimited;
pub mod input;
pub mod lines;
pub mod squad;
pub mod table;
pub mod tags;
