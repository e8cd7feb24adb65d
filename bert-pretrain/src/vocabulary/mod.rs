//! Learning a vocabulary from a corpus: [`word_counts`] count its words, [`trainer`] makes them into WordPieces.

pub mod trainer;
pub mod word_counts;

use bert_model::Result;

use crate::corpus::Corpus;

pub use self::trainer::{WordPieceTrainer, write_vocab};
pub use self::word_counts::WordCounts;

/// Text that is counted together, on all cores.
const BATCH_BYTES: usize = 16 << 20;

/// Learns a WordPiece vocabulary of `size` pieces; the same corpus gives the same pieces in the same order.
///
/// # Errors
/// If the corpus cannot be read or has no text, or `size` leaves no room for its letters.
pub fn learn(corpus: &Corpus, size: usize, cased: bool) -> Result<Vec<String>> {
    let mut counts = WordCounts::new(!cased);
    let (mut lines, mut bytes, mut documents) = (Vec::new(), 0, 0);
    for document in corpus.documents() {
        let mut document = document?;
        bytes += document.lines.iter().map(String::len).sum::<usize>();
        lines.append(&mut document.lines);
        documents += 1;
        if bytes >= BATCH_BYTES {
            counts.add_batch(&lines)?;
            lines.clear();
            bytes = 0;
        }
    }
    counts.add_batch(&lines)?;
    corpus.require_documents(documents)?;
    WordPieceTrainer::new(size).train(&counts)
}
