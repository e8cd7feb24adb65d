//! Determines which options have an effect, by command, task and kind of file. All others are rejected.

use std::path::Path;

use bert_cli::args::{column_rules, refuse_file_as_text};
use bert_cli::given::{Rule, only_if};
use bert_cli::input::kind::{FileKind, Format};
use bert_cli::input::source::Input;
use bert_model::Result;

use crate::args::{EmbedArgs, EvaluateArgs, Pooling, PredictArgs, TrainArgs};
use crate::tasks::kind::TaskKind;

/// Options that apply to some tasks only; [`crate::tasks::kind::TaskSpec::options`] lists those of each task.
const OF_SOME_TASKS: [&str; 17] = [
    "text-pair",
    "choices",
    "token-column",
    "tag-column",
    "doc-stride",
    "class-weights",
    "pair",
    "question",
    "context",
    "choice",
    "n-best",
    "no-answer-threshold",
    "negative",
    "scale",
    "pooling",
    "normalize",
    "mini-batch",
];

/// Options that describe labeled files.
const OF_FILES: [&str; 14] = [
    "task",
    "preset",
    "eval",
    "eval-share",
    "test",
    "predictions",
    "text",
    "text-pair",
    "choices",
    "no-header",
    "label",
    "token-column",
    "tag-column",
    "doc-stride",
];

/// Options that name columns of labeled tables.
const OF_TABLES: [&str; 5] = ["text", "text-pair", "choices", "no-header", "label"];

/// Options that name columns of tables of texts.
const OF_TEXTS: [&str; 5] = ["text", "text-pair", "choices", "no-header", "keep"];

/// Rejects options of `train` that have no effect.
///
/// # Errors
/// [`bert_model::Error::Usage`] for the first such option.
pub fn check_train(args: &TrainArgs, task: TaskKind) -> Result<()> {
    let files = || [&args.train, &args.eval, &args.test].into_iter().flatten();
    let evaluates = args.eval.is_some() || args.eval_share > 0.0;
    let is_json = files().count() > 0 && files().all(|file| is_json_lines(file));
    let mut rules = vec![
        only_if(args.train.is_some(), &OF_FILES, "without --train FILE, the run uses the built-in sample"),
        only_if(args.eval.is_none(), &["eval-share"], "--eval FILE replaces the held-out examples"),
        only_if(evaluates, &["early-stop", "metric"], "no examples are held out for evaluation"),
        only_if(
            evaluates || args.test.is_some(),
            &["predictions"],
            "there are no examples to evaluate; pass --test FILE",
        ),
    ];
    if task.labeled_metric.is_some() {
        let reason = "pairs with scores (--label) are compared with their scores, not with other pairs";
        rules.push(only_if(args.label.is_none(), &["negative", "scale"], reason));
    }
    let reason = task_reason(task);
    rules.extend(task_rules(task, &reason));
    rules.extend(labeled_rules(task, is_json, &reason));
    args.given.check(&rules)
}

/// Rejects options of `evaluate` that have no effect.
///
/// # Errors
/// [`bert_model::Error::Usage`] for the first such option.
pub fn check_evaluate(args: &EvaluateArgs, task: TaskKind, data: &Input) -> Result<()> {
    let is_json = data.format.is_some_and(Format::has_objects);
    let is_squad = task.options.contains(&"question");
    let mut rules = vec![
        only_if(
            args.predictions.is_some(),
            &["keep"],
            "columns are copied into the file of predictions; pass --predictions OUT",
        ),
        only_if(task.reads_tables || is_json, &["keep"], "the file has no named columns"),
        only_if(!is_squad, &["input-format"], "the format of questions is recognized by their first line"),
    ];
    let reason = task_reason(task);
    rules.extend(task_rules(task, &reason));
    rules.extend(labeled_rules(task, is_json, &reason));
    args.given.check(&rules)
}

/// Rejects options of `predict` that have no effect, and files in place of texts; `source` is `None` for texts given as
/// arguments.
///
/// # Errors
/// [`bert_model::Error::Usage`] for the first such option.
pub fn check_predict(args: &PredictArgs, task: TaskKind, source: Option<&Input>) -> Result<()> {
    let reason = task_reason(task);
    let in_columns = "for texts from a file, it is read from the file's columns (--text-pair, --choices)";
    let mut rules: Vec<Rule> = task_rules(task, &reason).collect();
    rules.extend(column_rules(source.is_some(), table_format(task, source), &OF_TEXTS));
    rules.push(only_if(source.is_none(), &["pair", "choice", "question", "context"], in_columns));
    rules.push(only_if(args.common.json, &["n-best"], "only the best answer is printed without --json"));
    rules.push(only_if(
        args.texts.texts.is_empty(),
        &["question", "context"],
        "--context is the text; omit other texts",
    ));
    args.given.check(&rules)?;
    let mut texts = [&args.question, &args.context, &args.pair].into_iter().flatten().chain(&args.choice);
    texts.try_for_each(|text| refuse_file_as_text(text))
}

/// Rejects options of `embed` that have no effect; `layers` is the number of layers to combine.
///
/// # Errors
/// [`bert_model::Error::Usage`] for the first such option.
pub fn check_embed(args: &EmbedArgs, source: Option<&Input>, layers: usize) -> Result<()> {
    let format = source.and_then(Input::table_format);
    let has_lines = args.output.as_deref().is_none_or(is_json_lines);
    let mut rules = Vec::from(column_rules(source.is_some(), format, &["text", "no-header", "keep"]));
    rules.extend([
        only_if(has_lines, &["keep"], ".npy and .safetensors hold only vectors; write .jsonl"),
        only_if(
            args.embedder.pooling != Some(Pooling::None),
            &["windows"],
            "--pooling none keeps every token's vector",
        ),
        only_if(
            args.embedder.pooling != Some(Pooling::Pooler),
            &["layers", "combine"],
            "the pooler reads the last layer",
        ),
        only_if(layers > 1, &["combine"], "there is only one layer; select several with --layers"),
    ]);
    args.given.check(&rules)
}

/// The format of the table that `predict` reads; `None` if it reads lines, sentences or SQuAD's JSON.
pub fn table_format(task: TaskKind, source: Option<&Input>) -> Option<Format> {
    let input = source?;
    match task.reads_tables && task.options.contains(&"choices") {
        // Choices are always in columns; the first line determines the format.
        true => input.format.or(Some(Format::Tsv)),
        false => input.table_format(),
    }
}

fn is_json_lines(file: &Path) -> bool {
    FileKind::of(file).format.is_some_and(Format::has_objects)
}

fn task_reason(task: TaskKind) -> String {
    format!("the task is {task}")
}

fn task_rules<'a>(task: TaskKind, reason: &'a str) -> impl Iterator<Item = Rule<'a>> {
    let rule = move |option: &'static &'static str| {
        only_if(task.options.contains(option), std::slice::from_ref(option), reason)
    };
    OF_SOME_TASKS.iter().map(rule)
}

/// Rules for the columns of labeled files.
fn labeled_rules(task: TaskKind, is_json: bool, reason: &str) -> [Rule<'_>; 3] {
    [
        only_if(task.reads_tables, &OF_TABLES, reason),
        only_if(!is_json, &["no-header"], "JSON lines and Parquet rows have named fields"),
        only_if(!is_json, &["token-column", "tag-column"], "JSON lines and Parquet rows have `words` and `tags`"),
    ]
}
