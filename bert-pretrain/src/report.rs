//! Writes `report.html`: figures, curves, filled masks, settings and corpus of a run.

use std::path::Path;

use bert_model::pipeline::best_pieces;
use bert_model::{BertForPreTraining, Result, Tokenizer};
use bert_train::report::{Chart, MaskedSentence, Report, facts, points};
use bert_train::run_directory::{read_metrics, read_run};
use burn::tensor::activation::softmax;

use crate::batch::PretrainingBatch;
use crate::examples::PretrainingExample;
use crate::masking::MASK_PROB;

/// Number of held-out examples from which a mask is shown.
const SHOWN: usize = 12;
/// Number of tokens shown on either side of a mask.
const CONTEXT: usize = 14;

/// Writes the report of a finished run from its `run.json` and `metrics.jsonl`.
///
/// # Errors
/// If one of them cannot be read, or the report cannot be written.
pub fn write(directory: &Path, masks: &[MaskedSentence]) -> Result<()> {
    let run = read_run(directory)?;
    let metrics = read_metrics(directory)?;
    let steps = |name: &str| points(&metrics, |record| record[name].as_f64());
    let evals = |name: &str| points(&metrics, |record| record["eval"][name].as_f64());

    let baseline = run["data"]["held_out_unigram_loss"].as_f64();
    let mut report = Report::new("bert-pretrain", directory.display().to_string());
    let last = metrics.iter().rev().find(|record| record["eval"].is_object());
    if let Some(last) = last {
        let figure =
            |name: &'static str| Some((name.replace('_', " "), format!("{:.3}", last["eval"][name].as_f64()?)));
        let names = ["perplexity", "mlm_accuracy", "nsp_accuracy", "mlm_loss"];
        let mut figures: Vec<(String, String)> = names.into_iter().filter_map(figure).collect();
        figures.extend(baseline.map(|loss| ("word-frequency baseline loss".to_string(), format!("{loss:.3}"))));
        report.figures("Held-out text", &figures);
    }
    if let Some(loss) = baseline {
        report.note("What the loss means", &meaning(loss, run["settings"]["mask_prob"].as_f64()));
    }
    let mut losses = Chart::new("Masked-LM loss", "step", "nats")
        .smoothed()
        .series("training", steps("mlm_loss"))
        .series("held out", evals("mlm_loss"));
    if let (Some(loss), logged) = (baseline, steps("mlm_loss")) {
        let ends = [logged.first(), logged.last()].into_iter().flatten();
        losses = losses.series("word-frequency baseline", ends.map(|(step, _)| (*step, loss)).collect());
    }
    report.chart(losses);
    if !steps("nsp_loss").is_empty() {
        report.chart(
            Chart::new("Next-sentence loss", "step", "nats")
                .smoothed()
                .series("training", steps("nsp_loss"))
                .series("held out", evals("nsp_loss")),
        );
    }
    if evals("mlm_accuracy").len() > 1 {
        report.chart(
            Chart::new("Accuracy on held-out text", "step", "share")
                .bounded(0.0, 1.0)
                .series("masked tokens", evals("mlm_accuracy"))
                .series("next sentence", evals("nsp_accuracy")),
        );
    }
    report.optimizer_charts(&metrics);
    report
        .chart(Chart::new("Speed", "step", "tokens per second").smoothed().series("speed", steps("tokens_per_second")));
    report.filled_masks("Filled masks of held-out text", masks);
    for (title, part) in [("Corpus and vocabulary", "data"), ("Model", "model"), ("Settings", "settings")] {
        report.facts(title, &facts(&run[part]));
    }
    report.write(directory.join("report.html"))
}

/// Explains what the loss of the frequency baseline says about the model's.
fn meaning(baseline: f64, mask_prob: Option<f64>) -> String {
    let masked = mask_prob.filter(|share| *share != MASK_PROB).map(|share| {
        format!(
            " Training masks {:.0} % of the tokens and held-out text {:.0} %, so their losses cannot be compared.",
            100.0 * share,
            100.0 * MASK_PROB
        )
    });
    let text = format!(
        "The loss is the mean cross-entropy of the masked tokens, in nats; its exponential is the perplexity. Guessing \
         every masked token by its frequency in the training text, without looking at the context, has a loss of \
         {baseline:.3} (perplexity {:.0}) on the held-out text. A model that has learned to use the context has a \
         lower loss.",
        baseline.exp()
    );
    text + &masked.unwrap_or_default()
}

/// The model's predictions for one mask of each of the first held-out examples, with some context.
pub fn filled_masks(
    model: &BertForPreTraining,
    tokenizer: &Tokenizer,
    held_out: &[PretrainingExample],
) -> Vec<MaskedSentence> {
    let Ok(mask) = tokenizer.mask() else { return Vec::new() };
    let device = model.bert.embeddings.word.weight.val().device();
    let shown =
        held_out.iter().filter(|example| example.masked.iter().any(|token| example.ids[token.position] == mask));
    let fill = |example: &PretrainingExample| {
        let (place, token) =
            example.masked.iter().enumerate().find(|(_, token)| example.ids[token.position] == mask)?;
        let batch = PretrainingBatch::new(std::slice::from_ref(example), tokenizer.special().pad, 0, &device);
        let (logits, _) = model.forward(batch.input, batch.positions);
        let probabilities: Vec<f32> =
            softmax(logits.slice_dim(0, place..place + 1), 1).into_data().iter::<f32>().collect();
        let guesses = best_pieces(&probabilities, 3, tokenizer);
        let start = token.position.saturating_sub(CONTEXT);
        let end = (token.position + CONTEXT).min(example.ids.len());
        let pieces: Vec<String> = (start..end).map(|at| shown_piece(example, at, token.position, tokenizer)).collect();
        let text = pieces.join(" ").replace(" ##", "");
        let guesses = guesses.into_iter().map(|guess| (guess.token, guess.probability)).collect();
        Some(MaskedSentence::new(text).mask(guesses).expected(tokenizer.piece(token.id)))
    };
    shown.take(SHOWN).filter_map(fill).collect()
}

/// The WordPiece at a position; masks other than `blank` show the original token.
fn shown_piece(example: &PretrainingExample, at: usize, blank: usize, tokenizer: &Tokenizer) -> String {
    let hidden = example.masked.iter().find(|token| token.position == at && at != blank);
    tokenizer.piece(hidden.map_or(example.ids[at], |token| token.id))
}
