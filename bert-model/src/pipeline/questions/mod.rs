//! Question answering: finds the span of a text that answers a question (Devlin et al. 2018, §4.2 and §4.3;
//! google-research/bert, `run_squad.py`).
//!
//! The input is `[CLS] question [SEP] window of the text [SEP]`, with windows that start `stride` WordPieces apart. The
//! best span of all windows wins; a span is considered only in the window where its first WordPiece has the most
//! context.

mod ranking;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::{Builder, Checkpoint, FromCheckpoint, HeadProcessor, Pipeline, Processor};
use crate::error::Result;
use crate::model::{BertForQuestionAnswering, BertInput, BertModel};
use crate::text::tokenizer::Offsets;
use crate::text::{Sequence, Tokenizer};

pub use ranking::{AnswerSpan, RankedSpans, SpanScores};

/// Maximum length of a question, in WordPieces.
const MAX_QUESTION: usize = 64;

/// Answers questions about texts.
///
/// ```no_run
/// use bert_model::pipeline::QuestionAnswerer;
///
/// # fn main() -> bert_model::Result<()> {
/// let answerer = QuestionAnswerer::open("DIR")?;
/// let answers = answerer.answer(&[("Who wrote it?", "The letter was written by Ada Lovelace in 1843.")])?;
/// println!("{} {:.3}", answers[0].text, answers[0].score);
/// # Ok(())
/// # }
/// ```
pub type QuestionAnswerer = Pipeline<QuestionProcessor>;

/// The answer to a question.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The text of the answer; empty for "no answer".
    pub text: String,
    /// Its probability among all candidates, from 0 to 1.
    pub score: f64,
    /// Start of the answer, in code points.
    pub start: usize,
    /// End of the answer, in code points, exclusive.
    pub end: usize,
    /// The best candidates, best first, as many as set by [`Builder::candidates`]; they include "no answer" if that is
    /// allowed.
    pub candidates: Vec<Candidate>,
}

/// A possible answer to a question.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The text of the answer; empty for "no answer".
    pub text: String,
    /// Its probability among all candidates, from 0 to 1.
    pub score: f64,
    /// Start of the answer, in code points.
    pub start: usize,
    /// End of the answer, in code points, exclusive.
    pub end: usize,
}

/// Options of question answering. `stride` and `no_answer_threshold` are those of the model directory if they are
/// `None`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct QuestionOptions {
    /// WordPieces between the starts of consecutive windows.
    pub stride: Option<usize>,
    /// The margin by which "no answer" must outscore the best span.
    pub no_answer_threshold: Option<f64>,
    /// The number of best candidates to list.
    pub candidates: usize,
}

impl Builder<QuestionProcessor> {
    /// Sets the number of WordPieces between the starts of consecutive windows of a long text. Default: that of
    /// training if recorded, otherwise 128.
    pub fn stride(mut self, pieces: usize) -> Self {
        self.options.stride = Some(pieces);
        self
    }

    /// Sets the threshold for "no answer", which is the answer if it scores higher than the best span by more than
    /// `threshold`, in logits. Default: the value tuned in training; without one, every question gets an answer.
    pub fn no_answer_threshold(mut self, threshold: f64) -> Self {
        self.options.no_answer_threshold = Some(threshold);
        self
    }

    /// Sets how many of the best candidates are listed with each answer, at most 20. Default: none.
    pub fn candidates(mut self, count: usize) -> Self {
        self.options.candidates = count;
        self
    }
}

/// The [`Processor`] of a [`QuestionAnswerer`].
#[derive(Debug, Clone)]
pub struct QuestionProcessor {
    tokenizer: Tokenizer,
    max_length: usize,
    stride: usize,
    no_answer_threshold: Option<f64>,
    candidates: usize,
}

/// A question with a window of its text.
#[derive(Debug, Clone)]
pub struct QuestionWindow {
    sequence: Sequence,
    /// The index in the text of the window's first WordPiece.
    first_piece: usize,
    /// The position of that WordPiece in the sequence.
    text_start: usize,
    /// For each WordPiece of the window, whether this window gives it the most context.
    has_most_context: Vec<bool>,
    /// The offsets in the text of all its WordPieces, which its windows share.
    places: Arc<[Offsets]>,
}

impl QuestionAnswerer {
    /// Answers each question, given as pairs of question and text. Texts of any length are read in windows; questions
    /// are truncated to 64 WordPieces.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn answer<Q: AsRef<str>, C: AsRef<str>>(&self, questions: &[(Q, C)]) -> Result<Vec<Answer>> {
        self.run(&questions.iter().map(|(question, text)| (question.as_ref(), text.as_ref())).collect::<Vec<_>>())
    }
}

impl QuestionWindow {
    /// The window's tokens.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// The indices in the text of this window's WordPieces.
    pub fn pieces(&self) -> Range<usize> {
        self.first_piece..self.first_piece + self.has_most_context.len()
    }

    /// The offsets in the text of this window's WordPieces, in code points.
    pub fn places(&self) -> &[Offsets] {
        &self.places[self.pieces()]
    }

    /// The position in the sequence of the text's `piece`-th WordPiece, which must be one of
    /// [`QuestionWindow::pieces`].
    pub fn position(&self, piece: usize) -> usize {
        piece - self.first_piece + self.text_start
    }
}

impl QuestionProcessor {
    /// Builds a processor for windows of at most `max_length` tokens that start `stride` WordPieces apart.
    pub fn new(tokenizer: Tokenizer, max_length: usize, stride: usize) -> Self {
        Self { tokenizer, max_length, stride, no_answer_threshold: None, candidates: 0 }
    }

    /// Sets the threshold for "no answer"; with `None`, every question gets an answer.
    pub fn with_no_answer_threshold(self, threshold: Option<f64>) -> Self {
        Self { no_answer_threshold: threshold, ..self }
    }

    /// Sets how many candidates are listed with each answer.
    pub fn with_candidates(self, candidates: usize) -> Self {
        Self { candidates, ..self }
    }

    /// The margin by which "no answer" must outscore the best span; `None` if every question gets an answer.
    pub fn no_answer_threshold(&self) -> Option<f64> {
        self.no_answer_threshold
    }

    /// The number of candidates listed with each answer.
    pub fn candidates(&self) -> usize {
        self.candidates
    }
}

/// The amount of context of a WordPiece in the window `start..end` (Google's `_check_is_max_context`).
fn context(piece: usize, start: usize, end: usize) -> f64 {
    (piece - start).min(end - 1 - piece) as f64 + 0.01 * (end - start) as f64
}

/// The window in which a WordPiece has the most context; the first one among equals, as in Google's code.
fn best_window(piece: usize, windows: &[(usize, usize)]) -> Option<usize> {
    let first = windows.partition_point(|(_, end)| *end <= piece);
    let last = windows.partition_point(|(start, _)| *start <= piece);
    let containing = windows[..last].iter().enumerate().skip(first);
    let best = containing.fold(None, |best: Option<(usize, f64)>, (index, &(start, end))| {
        let score = context(piece, start, end);
        if best.is_none_or(|best| score > best.1) { Some((index, score)) } else { best }
    });
    best.map(|best| best.0)
}

impl FromCheckpoint for QuestionProcessor {
    type Options = QuestionOptions;

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, options: &Self::Options) -> Result<Self> {
        checkpoint.check_head::<BertForQuestionAnswering>()?;
        checkpoint.tokenizer.check_fits_pairs(&checkpoint.config)?;
        let usage = checkpoint.usage()?;
        let stride = options.stride.or(usage.doc_stride).unwrap_or(128);
        let processor = Self::new(checkpoint.tokenizer.clone(), checkpoint.max_length(max_length)?, stride)
            .with_no_answer_threshold(options.no_answer_threshold.or(usage.no_answer_threshold));
        Ok(processor.with_candidates(options.candidates))
    }
}

impl Processor for QuestionProcessor {
    type Model = BertForQuestionAnswering;
    /// A question and the text that it is about.
    type Request<'a> = (&'a str, &'a str);
    type Input = QuestionWindow;
    type Output = SpanScores;
    type Answer = Answer;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn preprocess(&self, &(question, text): &(&str, &str)) -> Result<Vec<QuestionWindow>> {
        let special = self.tokenizer.special_tokens_of_a_pair();
        let mut question = self.tokenizer.pieces(question)?;
        question.truncate(MAX_QUESTION.min(self.max_length.saturating_sub(4) / 2));
        let (ids, places) = self.tokenizer.pieces_with_offsets(text)?;
        let places: Arc<[Offsets]> = places.into();
        let room = self.max_length.saturating_sub(question.len() + special).max(1);
        // Windows start a stride apart and leave no gap, until one reaches the end of the text.
        let stride = self.stride.clamp(1, room);
        let count = 1 + ids.len().saturating_sub(room).div_ceil(stride);
        let starts = (0..count).map(|window| window * stride);
        let bounds: Vec<(usize, usize)> = starts.map(|start| (start, (start + room).min(ids.len()))).collect();
        let window = |(index, &(start, end)): (usize, &(usize, usize))| {
            let (sequence, text_start) = self.tokenizer.pair_sequence(&question, &ids[start..end]);
            let has_most_context = (start..end).map(|piece| best_window(piece, &bounds) == Some(index)).collect();
            QuestionWindow { sequence, first_piece: start, text_start, has_most_context, places: places.clone() }
        };
        Ok(bounds.iter().enumerate().map(window).collect())
    }

    fn sequences(window: &QuestionWindow) -> &[Sequence] {
        std::slice::from_ref(&window.sequence)
    }

    fn forward(&self, model: &Self::Model, batch: BertInput, windows: &[&QuestionWindow]) -> Vec<SpanScores> {
        self.head(model, model.bert.encode(batch), windows)
    }

    fn postprocess(&self, &(_, text): &(&str, &str), windows: &[QuestionWindow], scores: &[SpanScores]) -> Answer {
        let ranked = self.rank(windows, scores);
        let best = self.decide(&ranked).map_or_else(|| ranked.no_answer(), |span| span.of(text));
        let candidates = self.best_candidates(text, &ranked);
        let Candidate { text, score, start, end } = best;
        Answer { text, score, start, end, candidates }
    }
}

impl HeadProcessor for QuestionProcessor {
    const READS_CLS_ONLY: bool = false;

    fn bert(model: &BertForQuestionAnswering) -> &BertModel {
        &model.bert
    }

    fn head(&self, model: &Self::Model, hidden: Tensor<3>, _windows: &[&QuestionWindow]) -> Vec<SpanScores> {
        let (start, end) = model.head(hidden);
        let [_, tokens] = start.dims();
        let host = |scores: Tensor<2>| scores.into_data().iter::<f32>().collect::<Vec<_>>();
        let (start, end) = (host(start), host(end));
        let rows = start.chunks(tokens).zip(end.chunks(tokens));
        rows.map(|(start, end)| (start.to_vec(), end.to_vec())).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::BertConfig;
    use crate::text::tokenizer::Normalization;

    fn tokenizer() -> Tokenizer {
        let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"].map(str::to_string);
        Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap()
    }

    /// Regression test: a window had BERT's special tokens and types whatever the tokenizer's template was.
    #[test]
    fn windows_follow_the_template_of_the_tokenizer() {
        let windows = |tokenizer| {
            let windows = QuestionProcessor::new(tokenizer, 8, 2).preprocess(&("b", "a a a a a")).unwrap();
            let described = |window: QuestionWindow| (window.sequence.ids, window.sequence.types, window.text_start);
            windows.into_iter().map(described).collect::<Vec<_>>()
        };
        let bert = (vec![2, 6, 3, 5, 5, 5, 5, 3], vec![0, 0, 0, 1, 1, 1, 1, 1], 3);
        assert_eq!(windows(tokenizer())[0], bert);
        let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let (cls, sep) = (special("[CLS]"), special("[SEP]"));
        let mut file: Value = serde_json::from_str(&tokenizer().to_json().unwrap()).unwrap();
        file["normalizer"] = Value::Null;
        file["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [cls, text("A"), sep],
            "pair": [cls, text("A"), sep, sep, text("B"), sep],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        });
        let turned = Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap();
        assert_eq!(windows(turned)[0], (vec![2, 6, 3, 3, 5, 5, 5, 3], vec![0; 8], 4));
        file["post_processor"]["pair"] = json!([cls, text("A"), sep]);
        let without = Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap();
        let error = without.check_fits_pairs(&BertConfig::default().with_vocab_size(7)).unwrap_err().to_string();
        assert!(error.contains("without both texts"), "{error}");
    }

    /// Whatever the stride, every WordPiece of the text is in some window, and has the most context in exactly one.
    #[test]
    fn windows_leave_no_gap() {
        let tokenizer = tokenizer();
        for (length, stride, words) in [(16, 128, 12), (16, 128, 13), (16, 4, 40), (128, 128, 300), (16, 4, 0)] {
            let processor = QuestionProcessor::new(tokenizer.clone(), length, stride);
            let windows = processor.preprocess(&("b", "a ".repeat(words).as_str())).unwrap();
            let owned = |window: &QuestionWindow| window.has_most_context.iter().filter(|is_best| **is_best).count();
            assert_eq!(windows.iter().map(owned).sum::<usize>(), words, "{length} {stride} {words}");
            assert!(windows.iter().all(|window| window.sequence.len() <= length));
        }
    }
}
