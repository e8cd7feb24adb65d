//! Question answering: finds the span of a text that answers a question (Devlin et al. 2018, §4.2 and §4.3;
//! google-research/bert, `run_squad.py`).
//!
//! The target of a window that does not contain the answer is `[CLS]`.

use bert_cli::input::kind::Format;
use bert_cli::input::read_inputs;
use bert_cli::input::source::Input;
use bert_cli::input::table::{Row, TableOptions};
use bert_model::model::loss::cross_entropy;
use bert_model::pipeline::{Answer, AnswerSpan, QuestionProcessor, QuestionWindow, SpanScores};
use bert_model::text::CodePoints;
use bert_model::{BertForQuestionAnswering, Error, Pretrained, Result, Tokenizer};
use bert_train::report::Mark;
use burn::tensor::{Int, Tensor};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::any::AnyTask;
use super::kind::TaskSpec;
use super::{Defect, Examples, Query, Task};
use crate::data::Files;
use crate::data::squad::{Answer as SquadAnswer, Question, read_squad};
use crate::description::Description;
use crate::metrics::squad::{PredictedAnswer, normalize, squad_v1, squad_v2};
use crate::report::{Mistake, worst};

/// The description of the question-answering task.
pub const QUESTION_ANSWERING: TaskSpec = TaskSpec {
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
    reads_tables: false,
    options: &["text-pair", "doc-stride", "question", "context", "n-best", "no-answer-threshold"],
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

/// Determines whether some questions have no answer; the head has no labels.
fn learn_labels(description: &mut Description, files: &Files) -> Result<Vec<String>> {
    for file in files.all() {
        if read_squad(file)?.iter().any(Question::is_impossible) {
            description.no_answer_threshold = Some(UNTUNED);
        }
    }
    Ok(Vec::new())
}

/// The no-answer threshold before tuning: the default of `run_squad.py`.
const UNTUNED: f64 = 0.0;

/// The task of extractive question answering.
#[derive(Debug, Clone)]
pub struct QuestionAnsweringTask {
    /// The columns of questions and contexts in a table.
    pub columns: TableOptions,
    /// Splits texts into windows, and converts their scores to answers.
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

/// The text of a span; empty without a span.
fn text_of(question: &Question, span: Option<AnswerSpan>) -> &str {
    let place = span.map_or((0, 0), |span| (span.start, span.end));
    CodePoints::new(&question.context).slice(&question.context, place.0, place.1)
}

/// A labeled question with its annotated answers, its windows and their scores.
type Labeled<'a> = (&'a Question, &'a [SquadAnswer], &'a [QuestionWindow], &'a [SpanScores]);

/// Selects the labeled questions.
fn labeled<'a>(
    questions: &'a [Question],
    windows: &'a [Vec<QuestionWindow>],
    scores: &'a [Vec<SpanScores>],
) -> impl Iterator<Item = Labeled<'a>> {
    let all = questions.iter().zip(windows).zip(scores);
    all.filter_map(|((question, windows), scores)| {
        Some((question, question.answers.as_deref()?, windows.as_slice(), scores.as_slice()))
    })
}

impl QuestionAnsweringTask {
    /// The answer to a labeled question, for comparison with the annotated ones.
    fn predicted<'a>(&self, (question, answers, windows, scores): Labeled<'a>) -> PredictedAnswer<'a> {
        let ranked = self.processor.rank(windows, scores);
        PredictedAnswer {
            prediction: text_of(question, ranked.best_span()),
            is_unanswered: self.processor.decide(&ranked).is_none(),
            answers: answers.iter().map(|answer| answer.text.as_str()).collect(),
            no_answer_score: ranked.no_answer_score,
        }
    }
}

impl Task for QuestionAnsweringTask {
    type Processor = QuestionProcessor;
    type Example = Question;
    /// Positions of the answer's first and last WordPiece in the window; 0, `[CLS]`, if the window does not contain the
    /// whole answer.
    type Target = (usize, usize);

    fn processor(&self) -> &QuestionProcessor {
        &self.processor
    }

    fn read(&self, input: &Input) -> Result<Vec<Question>> {
        read_squad(&input.path)
    }

    fn defect(&self, question: &Question) -> Option<Defect> {
        match question.answers {
            None => Some(Defect::Unlabeled),
            Some(_) => (!question.is_placed()).then_some(Defect::Misplaced),
        }
    }

    fn prepare(&mut self, questions: &[Question]) {
        if self.processor.no_answer_threshold().is_none() && questions.iter().any(Question::is_impossible) {
            self.processor = self.processor.clone().with_no_answer_threshold(Some(UNTUNED));
        }
    }

    /// Reads SQuAD's `.json`, or else the columns of a table; in plain text, a tab separates question and context.
    fn unlabeled(&self, input: &Input) -> Result<Examples<Question>> {
        if input.format == Some(Format::Json) {
            return Ok(Box::new(read_squad(&input.path)?.into_iter().map(Ok)));
        }
        let task = self.clone();
        Ok(Box::new(read_inputs(input, &self.columns)?.map(move |row| {
            let Row { text, pair, .. } = row?;
            task.example_of(&Query { text: pair.unwrap_or_default(), question: Some(text), ..Query::default() })
        })))
    }

    fn example_of(&self, query: &Query) -> Result<Question> {
        let Some(question) = query.question.clone() else {
            return Err(Error::Usage(
                "this model answers questions: pass one with --question and its text with --context".into(),
            ));
        };
        Ok(Question { id: String::new(), context: query.text.clone().into(), question, answers: None })
    }

    fn request<'a>(&self, question: &'a Question) -> (&'a str, &'a str) {
        (&question.question, &question.context)
    }

    fn targets(&self, question: &Question, windows: &[QuestionWindow]) -> Vec<(usize, usize)> {
        // The first and last WordPieces that overlap the answer, whichever windows they are in.
        let span = question.first_place().and_then(|(from, to)| {
            let places = || windows.iter().flat_map(|window| window.pieces().zip(window.places().iter().copied()));
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

    fn json<'a>(&'a self, answer: &'a Answer) -> impl Serialize + 'a {
        let found = |text: &str, score: f64, start: usize, end: usize| json!({"answer": text, "score": score, "start": start, "end": end});
        let mut json = found(&answer.text, answer.score, answer.start, answer.end);
        if self.processor.candidates() > 0 {
            let candidates = answer.candidates.iter().map(|c| found(&c.text, c.score, c.start, c.end));
            json["n_best"] = candidates.collect();
        }
        json
    }

    fn labeled(&self, question: &Question) -> Map<String, Value> {
        let Question { id, question, context, answers, .. } = question;
        let texts = |answers: &Vec<SquadAnswer>| -> Value {
            answers.iter().map(|answer| answer.text.as_str()).collect::<Vec<_>>().into()
        };
        let expected: Value = answers.as_ref().map(texts).into();
        Map::from_iter([
            ("id".into(), id.as_str().into()),
            ("question".into(), question.as_str().into()),
            ("context".into(), Value::from(&**context)),
            ("expected".into(), expected),
        ])
    }

    fn metrics(
        &self,
        questions: &[Question],
        windows: &[Vec<QuestionWindow>],
        scores: &[Vec<SpanScores>],
    ) -> Map<String, Value> {
        let predicted: Vec<PredictedAnswer> =
            labeled(questions, windows, scores).map(|labeled| self.predicted(labeled)).collect();
        let metrics = match self.processor.no_answer_threshold() {
            Some(_) => json!(squad_v2(&predicted)),
            None => json!(squad_v1(&predicted)),
        };
        let mut metrics = metrics.as_object().cloned().unwrap_or_default();
        let placed = labeled(questions, windows, scores).filter(|labeled| labeled.0.is_placed());
        let losses: Vec<f64> = placed
            .flat_map(|(question, _, windows, scores)| {
                let targets = self.targets(question, windows).into_iter();
                let inputs = windows.iter().zip(targets).zip(scores);
                inputs.map(|((window, target), scores)| window_loss(window, target, scores))
            })
            .collect();
        // Answers without a position have no loss.
        let loss = (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64);
        metrics.insert("loss".into(), loss.into());
        metrics
    }

    fn mistakes(
        &self,
        questions: &[Question],
        windows: &[Vec<QuestionWindow>],
        scores: &[Vec<SpanScores>],
    ) -> Vec<Mistake> {
        let mistake = |(question, answers, windows, scores): Labeled<'_>| {
            let ranked = self.processor.rank(windows, scores);
            let decided = self.processor.decide(&ranked);
            let found = text_of(question, decided);
            let is_right = match decided {
                None => answers.is_empty(),
                Some(_) => answers.iter().any(|answer| normalize(&answer.text) == normalize(found)),
            };
            let gold = question.first_place().map(|(start, end)| (start, end, "answer".to_string(), Mark::Missed));
            let predicted = decided.map(|span| (span.start, span.end, "predicted".to_string(), Mark::Spurious));
            let lead = match decided {
                None => format!("{} — predicted to have no answer", question.question),
                Some(_) => question.question.clone(),
            };
            let (text, spans) = (question.context.to_string(), gold.into_iter().chain(predicted).collect());
            let probability = decided.map_or(ranked.no_answer_probability, |span| span.probability);
            (!is_right).then_some((probability, Mistake::Spans { lead: Some(lead), text, spans }))
        };
        worst(labeled(questions, windows, scores).filter_map(mistake).collect())
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
