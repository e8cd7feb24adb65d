//! From text to model input: WordPiece tokenization and padded batches.

pub mod batch;
pub mod tokenizer;
mod tokenizer_files;

pub use batch::{Sequence, collate};
pub use tokenizer::{SpecialTokens, Tokenizer};
