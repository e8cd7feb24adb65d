//! The span of a text that answers a question (paper, sections 4.2 and 4.3; google-research/bert, `run_squad.py`).
//!
//! `[CLS] question [SEP] window of the text [SEP]`: windows begin `doc_stride` pieces apart. A window without the answer
//! points to `[CLS]`. Of all windows' spans the best one wins; a token counts in the window where it has most context.

use std::path::Path;

use bert_cli::input::kind::{Format, Input};
use bert_cli::input::read_inputs;
use bert_cli::input::table::{Row, TableOptions};
use bert_model::model::loss::cross_entropy;
use bert_model::text::Sequence;
use bert_model::{BertForQuestionAnswering, BertModel, Error, Result, Tokenizer};
use bert_train::report::Mark;
use burn::tensor::{Int, Tensor};
use serde_json::{Map, Value, json};

use super::{Examples, Query, Task};
use crate::data::squad::{CodePoints, Question, read_squad};
use crate::metrics::squad::{PredictedAnswer, normalize, squad_v1, squad_v2};
use crate::report::{Mistake, worst};

/// Longest question, in pieces.
const MAX_QUESTION: usize = 64;
/// Starts and ends of a window that are paired.
const N_BEST: usize = 20;
/// Longest answer, in pieces.
const MAX_ANSWER: usize = 30;

/// Extractive question answering.
#[derive(Debug, Clone)]
pub struct QuestionAnsweringTask {
    /// Longest window in tokens.
    pub max_seq_len: usize,
    /// Pieces between the beginnings of two windows.
    pub doc_stride: usize,
    /// "No answer" is said if it scores higher than the best span by more than this; `None` if every question has one.
    pub threshold: Option<f64>,
    /// Where a table has questions and the texts that they are about.
    pub columns: TableOptions,
    /// So many of the best answers are listed beside the one.
    pub n_best: usize,
    /// Text to pieces.
    pub tokenizer: Tokenizer,
}

/// A question with a stretch of its text.
#[derive(Debug, Clone)]
pub struct QaWindow {
    sequence: Sequence,
    /// Position of the first piece of the text.
    text_start: usize,
    /// For each piece of the text: its place in code points, and whether it has most context here.
    pieces: Vec<((usize, usize), bool)>,
    /// Positions of the answer's first and last piece; `[CLS]` if it is not here.
    target: (usize, usize),
}

/// Start and end scores of every position of a window.
pub type SpanScores = (Vec<f32>, Vec<f32>);

/// A stretch of a question's text, in code points.
#[derive(Debug, Clone, Copy)]
struct AnswerSpan {
    start: usize,
    end: usize,
    score: f32,
    probability: f64,
}

/// What a question's scores come to.
struct Ranked {
    /// Best first, at most [`N_BEST`]; none if the text has no piece.
    spans: Vec<AnswerSpan>,
    /// How much more "no answer" scores than the best span.
    no_answer_score: f64,
    /// Of "no answer"; 0 where every question has one.
    no_answer_probability: f64,
}

impl Ranked {
    /// The best span; an empty one if there is none.
    fn best_span(&self) -> AnswerSpan {
        self.spans.first().copied().unwrap_or(AnswerSpan { start: 0, end: 0, score: f32::MIN, probability: 0.0 })
    }
}

impl QuestionAnsweringTask {
    /// Whether "no answer" is the answer.
    fn predicts_no_answer(&self, ranked: &Ranked) -> bool {
        ranked.spans.is_empty() || self.threshold.is_some_and(|threshold| ranked.no_answer_score > threshold)
    }

    fn rank(&self, windows: &[QaWindow], scores: &[SpanScores]) -> Ranked {
        let mut spans = Vec::new();
        let mut null = f32::INFINITY;
        for (window, (start_scores, end_scores)) in windows.iter().zip(scores) {
            null = null.min(start_scores[0] + end_scores[0]);
            let positions = window.text_start..window.text_start + window.pieces.len();
            let (starts, ends) = (highest(start_scores, positions.clone()), highest(end_scores, positions));
            for &first in &starts {
                let ((start, _), has_most_context) = window.pieces[first - window.text_start];
                for &last in ends.iter().filter(|&&last| last >= first && last - first < MAX_ANSWER && has_most_context)
                {
                    let ((_, end), _) = window.pieces[last - window.text_start];
                    spans.push(AnswerSpan {
                        start,
                        end,
                        score: start_scores[first] + end_scores[last],
                        probability: 0.0,
                    });
                }
            }
        }
        spans.sort_by(|a, b| b.score.total_cmp(&a.score));
        let best = spans.first().map_or(f32::MIN, |span| span.score);
        // Softmax over the candidates and, where it is allowed, "no answer".
        let against = self.threshold.map(|_| null);
        let top = against.map_or(best, |null| null.max(best));
        let weight = |score: f32| f64::from(score - top).exp();
        let total: f64 = spans.iter().map(|span| weight(span.score)).chain(against.map(weight)).sum();
        spans.truncate(N_BEST);
        spans.iter_mut().for_each(|span| span.probability = weight(span.score) / total);
        Ranked {
            spans,
            no_answer_score: f64::from(null) - f64::from(best),
            no_answer_probability: against.map_or(0.0, |null| weight(null) / total),
        }
    }
}

/// Mean cross-entropy of a window's start and end, in nats.
fn window_loss((window, (start, end)): (&QaWindow, &SpanScores)) -> f64 {
    let cost = |scores: &[f32], target: usize| {
        let scores = &scores[..window.sequence.len()];
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = scores.iter().map(|score| f64::from(score - highest).exp()).sum();
        total.ln() - f64::from(scores[target] - highest)
    };
    (cost(start, window.target.0) + cost(end, window.target.1)) / 2.0
}

/// What stands in a span.
fn text_of(question: &Question, span: AnswerSpan) -> &str {
    CodePoints::new(&question.context).slice(&question.context, span.start, span.end)
}

/// The positions of the highest scores within a range, best first.
fn highest(scores: &[f32], positions: std::ops::Range<usize>) -> Vec<usize> {
    let mut positions: Vec<usize> = positions.collect();
    positions.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    positions.truncate(N_BEST);
    positions
}

/// How much context a piece has in the window `start..end` (Google's `_check_is_max_context`).
fn context(piece: usize, start: usize, end: usize) -> f64 {
    (piece - start).min(end - 1 - piece) as f64 + 0.01 * (end - start) as f64
}

impl Task for QuestionAnsweringTask {
    type Model = BertForQuestionAnswering;
    type Example = Question;
    type Input = QaWindow;
    type Scores = SpanScores;

    const READS_CLS_ALONE: bool = false;
    const OPTIONS: &'static [&'static str] = &["--question"];

    fn read(&self, path: &Path) -> Result<Vec<Question>> {
        read_squad(path)
    }

    /// SQuAD's `.json`, or else the columns of a table; in plain text a tab stands between question and context.
    fn questions(&self, input: &Input) -> Result<Examples<Question>> {
        if input.format == Some(Format::Json) {
            return Ok(Box::new(read_squad(&input.path)?.into_iter().map(Ok)));
        }
        let task = self.clone();
        Ok(Box::new(read_inputs(input, &self.columns)?.map(move |row| {
            let Row { text, pair, .. } = row?;
            task.question(&Query { text: pair.unwrap_or_default(), question: Some(text), ..Query::default() })
        })))
    }

    fn question(&self, query: &Query) -> Result<Question> {
        let Some(question) = query.question.clone() else {
            return Err(Error::Setting(
                "this model answers questions: give one with --question, its text with --context".into(),
            ));
        };
        Ok(Question {
            id: String::new(),
            title: String::new(),
            context: query.text.clone().into(),
            question,
            answers: Vec::new(),
            is_impossible: false,
        })
    }

    fn encode(&self, question: &Question) -> Result<Vec<QaWindow>> {
        let special = self.tokenizer.special();
        let mut query = self.tokenizer.pieces(&question.question)?;
        query.truncate(MAX_QUESTION.min(self.max_seq_len.saturating_sub(4) / 2));
        let (ids, places) = self.tokenizer.pieces_with_offsets(&question.context)?;
        let answer = question.answers.first().map(|answer| (answer.start, answer.start + answer.text.chars().count()));
        // The first and last pieces that the answer touches.
        let span = answer.and_then(|(from, to)| {
            let first = places.iter().position(|place| place.1 > from)?;
            let last = places.iter().rposition(|place| place.0 < to)?;
            (first <= last).then_some((first, last))
        });
        let room = self.max_seq_len.saturating_sub(query.len() + 3).max(1);
        // Windows begin a stride apart, without a gap, until one reaches the end of the text.
        let stride = self.doc_stride.clamp(1, room);
        let count = 1 + ids.len().saturating_sub(room).div_ceil(stride);
        let starts = (0..count).map(|window| window * stride);
        let bounds: Vec<(usize, usize)> = starts.map(|start| (start, (start + room).min(ids.len()))).collect();
        let best_window = |piece: usize| {
            let containing = bounds.iter().enumerate().filter(|(_, (start, end))| (*start..*end).contains(&piece));
            // The first of equals, as Google's loop keeps it.
            let best = containing.fold(None, |best: Option<(usize, f64)>, (index, &(start, end))| {
                let score = context(piece, start, end);
                if best.is_none_or(|best| score > best.1) { Some((index, score)) } else { best }
            });
            best.map(|best| best.0)
        };
        let window = |(index, &(start, end)): (usize, &(usize, usize))| {
            let text_start = query.len() + 2;
            let mut sequence = Sequence { ids: vec![special.cls], types: vec![0; text_start] };
            sequence.ids.extend(&query);
            sequence.ids.push(special.sep);
            sequence.ids.extend(&ids[start..end]);
            sequence.ids.push(special.sep);
            sequence.types.resize(sequence.ids.len(), 1);
            let target = match span {
                Some((first, last)) if first >= start && last < end => {
                    (first - start + text_start, last - start + text_start)
                }
                _ => (0, 0),
            };
            let pieces = (start..end).map(|piece| (places[piece], best_window(piece) == Some(index))).collect();
            QaWindow { sequence, text_start, pieces, target }
        };
        Ok(bounds.iter().enumerate().map(window).collect())
    }

    fn sequences<'a>(&self, window: &'a QaWindow) -> Vec<&'a Sequence> {
        vec![&window.sequence]
    }

    fn pad_id(&self) -> u32 {
        self.tokenizer.special().pad
    }

    fn bert<'a>(&self, model: &'a BertForQuestionAnswering) -> &'a BertModel {
        &model.bert
    }

    fn terms(&self, _window: &QaWindow) -> f64 {
        1.0
    }

    fn loss(&self, model: &Self::Model, hidden: Tensor<3>, windows: &[&QaWindow]) -> Tensor<1> {
        let (start, end) = model.head(hidden);
        let device = start.device();
        let target = |position: fn(&QaWindow) -> usize| {
            let positions: Vec<i32> = windows.iter().map(|window| position(window) as i32).collect();
            Tensor::<1, Int>::from_data(&positions[..], &device)
        };
        let (first, last) = (target(|window| window.target.0), target(|window| window.target.1));
        (cross_entropy(start, first).sum() + cross_entropy(end, last).sum()) / 2.0
    }

    fn scores(&self, model: &Self::Model, hidden: Tensor<3>, _windows: &[&QaWindow]) -> Vec<SpanScores> {
        let (start, end) = model.head(hidden);
        let [_, tokens] = start.dims();
        let host = |scores: Tensor<2>| scores.into_data().iter::<f32>().collect::<Vec<_>>();
        let (start, end) = (host(start), host(end));
        let rows = start.chunks(tokens).zip(end.chunks(tokens));
        rows.map(|(start, end)| (start.to_vec(), end.to_vec())).collect()
    }

    fn answer(&self, question: &Question, windows: &[QaWindow], scores: &[SpanScores]) -> Value {
        let ranked = self.rank(windows, scores);
        let found = |span: &AnswerSpan| {
            let answer = text_of(question, *span);
            json!({"answer": answer, "score": span.probability, "start": span.start, "end": span.end})
        };
        let none = json!({"answer": "", "score": ranked.no_answer_probability, "start": 0, "end": 0});
        let mut answer = if self.predicts_no_answer(&ranked) { none.clone() } else { found(&ranked.best_span()) };
        if self.n_best > 0 {
            let mut all: Vec<Value> = ranked.spans.iter().map(found).collect();
            if self.threshold.is_some() {
                let place = ranked.spans.partition_point(|span| span.probability >= ranked.no_answer_probability);
                all.insert(place, none);
            }
            all.truncate(self.n_best);
            answer["n_best"] = all.into();
        }
        answer
    }

    fn metrics(
        &self,
        questions: &[Question],
        windows: &[Vec<QaWindow>],
        scores: &[Vec<SpanScores>],
    ) -> Map<String, Value> {
        let ranked = windows.iter().zip(scores).map(|(windows, scores)| self.rank(windows, scores));
        let predicted: Vec<PredictedAnswer> = questions
            .iter()
            .zip(ranked)
            .map(|(question, ranked)| PredictedAnswer {
                prediction: text_of(question, ranked.best_span()),
                answers: question.answers.iter().map(|answer| answer.text.as_str()).collect(),
                no_answer_score: ranked.no_answer_score,
            })
            .collect();
        let is_v2 = self.threshold.is_some() || questions.iter().any(|question| question.is_impossible);
        let metrics = match is_v2 {
            true => json!(squad_v2(&predicted, self.threshold.unwrap_or(0.0))),
            false => json!(squad_v1(&predicted)),
        };
        let mut metrics = metrics.as_object().cloned().unwrap_or_default();
        let losses: Vec<f64> = windows.iter().zip(scores).flat_map(|(w, s)| w.iter().zip(s)).map(window_loss).collect();
        metrics.insert("loss".into(), (losses.iter().sum::<f64>() / losses.len().max(1) as f64).into());
        metrics
    }

    fn mistakes(&self, questions: &[Question], windows: &[Vec<QaWindow>], scores: &[Vec<SpanScores>]) -> Vec<Mistake> {
        let mistake = |((question, windows), scores): ((&Question, &Vec<QaWindow>), &Vec<SpanScores>)| {
            let ranked = self.rank(windows, scores);
            let (span, is_none) = (ranked.best_span(), self.predicts_no_answer(&ranked));
            let found = text_of(question, span);
            let is_right = match question.answers.is_empty() {
                true => is_none,
                false => !is_none && question.answers.iter().any(|answer| normalize(&answer.text) == normalize(found)),
            };
            let gold = question.answers.first().map(|answer| {
                (answer.start, answer.start + answer.text.chars().count(), "answer".to_string(), Mark::Missed)
            });
            let predicted = (!is_none).then(|| (span.start, span.end, "predicted".to_string(), Mark::Spurious));
            let lead = match is_none {
                true => format!("{} — said to have no answer", question.question),
                false => question.question.clone(),
            };
            let (text, spans) = (question.context.to_string(), gold.into_iter().chain(predicted).collect());
            (!is_right).then_some((span.probability, Mistake::Spans { lead: Some(lead), text, spans }))
        };
        worst(questions.iter().zip(windows).zip(scores).filter_map(mistake).collect())
    }

    fn main_metric(&self) -> &'static str {
        "f1"
    }

    fn tune(&mut self, metrics: &Map<String, Value>) -> bool {
        match (self.threshold, metrics.get("no_answer_threshold").and_then(Value::as_f64)) {
            (Some(_), Some(best)) => {
                self.threshold = Some(best);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use bert_cli::input::columns::Column;
    use bert_model::text::tokenizer::Normalization;

    use super::*;

    /// Whatever the stride, every piece of the text is in a window, in exactly one of them with most context.
    #[test]
    fn windows_leave_no_gap() {
        let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"].map(str::to_string);
        let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap();
        for (max_seq_len, doc_stride, words) in [(16, 128, 12), (16, 128, 13), (16, 4, 40), (128, 128, 300), (16, 4, 0)]
        {
            let task = QuestionAnsweringTask {
                max_seq_len,
                doc_stride,
                threshold: None,
                columns: TableOptions::texts(Column::Name("question".into())),
                n_best: 0,
                tokenizer: tokenizer.clone(),
            };
            let query = Query { text: "a ".repeat(words), question: Some("b".into()), ..Query::default() };
            let windows = task.encode(&task.question(&query).unwrap()).unwrap();
            let owned = |window: &QaWindow| window.pieces.iter().filter(|(_, is_best)| *is_best).count();
            assert_eq!(windows.iter().map(owned).sum::<usize>(), words, "{max_seq_len} {doc_stride} {words}");
            assert!(windows.iter().all(|window| window.sequence.len() <= max_seq_len));
        }
    }
}
