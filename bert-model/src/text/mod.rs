//! Text on its way to the model: WordPieces, batches.

pub mod batch;
pub mod tokenizer;
mod tokenizer_files;

pub use batch::{Sequence, collate};
pub use tokenizer::{SpecialTokens, Tokenizer};
