//! Text on its way to the model: sentences, WordPieces, batches.

pub mod batch;
pub mod sentences;
pub mod tokenizer;
pub mod word_counts;
pub mod wordpiece;

pub use batch::{Sequence, collate};
pub use sentences::{SentenceMode, split_sentences};
pub use tokenizer::{SpecialTokens, Tokenizer};
pub use word_counts::WordCounts;
pub use wordpiece::WordPieceTrainer;
