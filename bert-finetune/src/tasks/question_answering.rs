//! The span of a text that answers a question (paper, sections 4.2 and 4.3; google-research/bert, `run_squad.py`).
//!
//! A window without the answer points to `[CLS]`.

use std::path::Path;

use bert_cli::input::kind::{Format, Input};
use bert_cli::input::read_inputs;
use bert_cli::input::table::{Row, TableOptions};
use bert_model::model::loss::cross_entropy;
use bert_model::pipeline::{Answer, AnswerSpan, QuestionProcessor, QuestionWindow, SpanScores};
use bert_model::text::CodePoints;
use bert_model::{BertForQuestionAnswering, Error, Pretrained, Result, Tokenizer};
use bert_train::report::Mark;
use burn::tensor::{Int, Tensor};
use serde_json::{Map, Value, json};

use super::any::AnyTask;
use super::kind::Facts;
use super::{Examples, Query, Task};
use crate::data::squad::{Question, read_squad};
use crate::description::Description;
use crate::metrics::squad::{PredictedAnswer, normalize, squad_v1, squad_v2};
use crate::report::{Mistake, worst};

/// The span of a text that answers a question.
pub const QUESTION_ANSWERING: Facts = Facts {
    name: "question-answering",
    about: "The span of a text that answers a question",
    architecture: BertForQuestionAnswering::ARCHITECTURE,
    problem_type: None,
    main_metric: "f1",
    labeled_metric: None,
    metrics: &["f1"],
    max_seq_len: 384,
    columns: ("question", Some("context")),
    label: Some("label"),
    reads_pairs: true,
    check_columns: |_| Ok(()),
    learn_labels,
    open,
};

fn open(description: &Description, _labels: Vec<String>, tokenizer: &Tokenizer) -> Result<AnyTask> {
    let Description { max_seq_len, doc_stride, no_answer_threshold, .. } = *description;
    Ok(AnyTask::QuestionAnswering(QuestionAnsweringTask {
        columns: description.inputs()?,
        processor: QuestionProcessor::new(tokenizer.clone(), max_seq_len, doc_stride)
            .with_no_answer_threshold(no_answer_threshold),
    }))
}

/// Such a head has no labels; whether some questions have no answer goes into the description.
fn learn_labels(description: &mut Description, training: &Path) -> Result<Vec<String>> {
    let can_be_impossible = read_squad(training)?.iter().any(|question| question.is_impossible);
    description.no_answer_threshold = can_be_impossible.then_some(0.0);
    Ok(Vec::new())
}

/// Extractive question answering.
#[derive(Debug, Clone)]
pub struct QuestionAnsweringTask {
    /// Where a table has questions and the texts that they are about.
    pub columns: TableOptions,
    /// Cuts texts into windows and reads answers off them.
    pub processor: QuestionProcessor,
}

/// Mean cross-entropy of a window's start and end, in nats.
fn window_loss(window: &QuestionWindow, target: (usize, usize), (start, end): &SpanScores) -> f64 {
    let cost = |scores: &[f32], target: usize| {
        let scores = &scores[..window.sequence().len()];
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = scores.iter().map(|score| f64::from(score - highest).exp()).sum();
        total.ln() - f64::from(scores[target] - highest)
    };
    (cost(start, target.0) + cost(end, target.1)) / 2.0
}

/// What stands in a span.
fn text_of(question: &Question, span: AnswerSpan) -> &str {
    CodePoints::new(&question.context).slice(&question.context, span.start, span.end)
}

impl Task for QuestionAnsweringTask {
    type Processor = QuestionProcessor;
    type Example = Question;
    /// Positions of the answer's first and last piece in the window; `[CLS]`, 0, if the answer is not all in it.
    type Target = (usize, usize);

    const OPTIONS: &'static [&'static str] = &["--question"];

    fn processor(&self) -> &QuestionProcessor {
        &self.processor
    }

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

    fn request<'a>(&self, question: &'a Question) -> (&'a str, &'a str) {
        (&question.question, &question.context)
    }

    fn targets(&self, question: &Question, windows: &[QuestionWindow]) -> Vec<(usize, usize)> {
        let answer = question.answers.first().map(|answer| (answer.start, answer.start + answer.text.chars().count()));
        // The first and last pieces that the answer touches, in whichever windows they are.
        let span = answer.and_then(|(from, to)| {
            let places = || windows.iter().flat_map(|window| window.pieces().zip(window.places()));
            let first = places().filter(|(_, place)| place.1 > from).map(|(piece, _)| piece).min()?;
            let last = places().filter(|(_, place)| place.0 < to).map(|(piece, _)| piece).max()?;
            (first <= last).then_some((first, last))
        });
        let target = |window: &QuestionWindow| match span {
            Some((first, last)) if window.pieces().contains(&first) && window.pieces().contains(&last) => {
                (window.position(first), window.position(last))
            }
            _ => (0, 0),
        };
        windows.iter().map(target).collect()
    }

    fn loss(
        &self,
        model: &BertForQuestionAnswering,
        hidden: Tensor<3>,
        _windows: &[&QuestionWindow],
        targets: &[&(usize, usize)],
    ) -> Tensor<1> {
        let (start, end) = model.head(hidden);
        let device = start.device();
        let target = |position: fn(&(usize, usize)) -> usize| {
            let positions: Vec<i32> = targets.iter().map(|target| position(target) as i32).collect();
            Tensor::<1, Int>::from_data(&positions[..], &device)
        };
        let (first, last) = (target(|target| target.0), target(|target| target.1));
        (cross_entropy(start, first).sum() + cross_entropy(end, last).sum()) / 2.0
    }

    fn json(&self, answer: &Answer) -> Value {
        let found = |text: &str, score: f64, start: usize, end: usize| json!({"answer": text, "score": score, "start": start, "end": end});
        let mut json = found(&answer.text, answer.score, answer.start, answer.end);
        if self.processor.candidates() > 0 {
            let candidates = answer.candidates.iter().map(|c| found(&c.text, c.score, c.start, c.end));
            json["n_best"] = candidates.collect();
        }
        json
    }

    fn metrics(
        &self,
        questions: &[Question],
        windows: &[Vec<QuestionWindow>],
        scores: &[Vec<SpanScores>],
    ) -> Map<String, Value> {
        let ranked = windows.iter().zip(scores).map(|(windows, scores)| self.processor.rank(windows, scores));
        let predicted: Vec<PredictedAnswer> = questions
            .iter()
            .zip(ranked)
            .map(|(question, ranked)| PredictedAnswer {
                prediction: text_of(question, ranked.best_span()),
                answers: question.answers.iter().map(|answer| answer.text.as_str()).collect(),
                no_answer_score: ranked.no_answer_score,
            })
            .collect();
        let is_v2 =
            self.processor.no_answer_threshold().is_some() || questions.iter().any(|question| question.is_impossible);
        let metrics = match is_v2 {
            true => json!(squad_v2(&predicted, self.processor.no_answer_threshold().unwrap_or(0.0))),
            false => json!(squad_v1(&predicted)),
        };
        let mut metrics = metrics.as_object().cloned().unwrap_or_default();
        let losses = questions.iter().zip(windows).zip(scores).flat_map(|((question, windows), scores)| {
            let targets = self.targets(question, windows).into_iter();
            windows
                .iter()
                .zip(targets)
                .zip(scores)
                .map(|((window, target), scores)| window_loss(window, target, scores))
        });
        let losses: Vec<f64> = losses.collect();
        metrics.insert("loss".into(), (losses.iter().sum::<f64>() / losses.len().max(1) as f64).into());
        metrics
    }

    fn mistakes(
        &self,
        questions: &[Question],
        windows: &[Vec<QuestionWindow>],
        scores: &[Vec<SpanScores>],
    ) -> Vec<Mistake> {
        let mistake = |((question, windows), scores): ((&Question, &Vec<QuestionWindow>), &Vec<SpanScores>)| {
            let ranked = self.processor.rank(windows, scores);
            let (span, is_none) = (ranked.best_span(), self.processor.is_unanswered(&ranked));
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
        let best = metrics.get("no_answer_threshold").and_then(Value::as_f64);
        let is_tuned = self.processor.no_answer_threshold().is_some() && best.is_some();
        if is_tuned {
            self.processor = self.processor.clone().with_no_answer_threshold(best);
        }
        is_tuned
    }
}
