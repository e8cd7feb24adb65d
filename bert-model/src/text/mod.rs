//! From text to model input: WordPiece tokenization and padded batches.

pub mod batch;
mod code_points;
mod encoding;
mod loading;
mod long;
mod saving;
mod template;
pub mod tokenizer;
mod tokenizer_files;

pub use batch::{Sequence, collate};
pub use code_points::{CodePoints, slices};
pub use tokenizer::{SpecialTokens, Tokenizer};
