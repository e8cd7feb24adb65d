//! Learns a vocabulary from a corpus: [`word_counts`] counts words, and [`trainer`] builds WordPieces from them.

pub mod trainer;
pub mod word_counts;

use bert_model::Result;

use crate::corpus::Corpus;

pub use self::trainer::{WordPieceTrainer, write_vocab};
pub use self::word_counts::WordCounts;

/// Amount of text counted at a time, on all cores, in bytes.
const BATCH_BYTES: usize = 16 << 20;

/// Learns a WordPiece vocabulary of `size` pieces. The result, including its order, depends only on the corpus.
///
/// # Errors
/// If the corpus cannot be read or has no text, or `size` is too small for its characters.
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

/// Warns that a vocabulary has fewer pieces than requested; `None` if it does not.
pub fn fewer_than(requested: usize, learned: usize) -> Option<String> {
    (learned < requested)
        .then(|| format!("vocabulary: {requested} WordPieces requested, {learned} learned: the text yields no more"))
}
