//! Fine-tuning on several ranks is fine-tuning in one process, bit for bit.
//!
//! Needs `mpirun` of the MPI library that the program was built with. Without it, each test says so and passes.

use std::fs;
use std::path::Path;

use crate::mpirun::{has_mpirun, succeed_on};
use crate::program::{object, succeed};
use crate::{CHOICE, on_file, train, two_questions, workshop};

/// What a run prints and writes, without its time.
fn result(output: &str, run: &Path) -> (String, Vec<u8>) {
    let mut summary: serde_json::Value = serde_json::from_str(output).unwrap();
    let summary = summary.as_object_mut().unwrap();
    ["seconds", "tokens_per_second", "model", "models", "runs"].iter().for_each(|key| drop(summary.remove(*key)));
    (serde_json::to_string(summary).unwrap(), fs::read(run.join("model.safetensors")).unwrap_or_default())
}

#[test]
fn every_task_gives_the_model_and_the_figures_of_one_process() {
    if !has_mpirun() {
        return;
    }
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("questions.json"), two_questions()).unwrap();
    fs::write(at.join("choices.jsonl"), CHOICE.repeat(12)).unwrap();
    fs::write(at.join("tags.conll"), "a O\ngood B-X\nfilm I-X\n\nbad B-X\nbook O\n\n".repeat(8)).unwrap();
    fs::write(
        at.join("scores.csv"),
        format!("a,b,score\n{}", "a film,a book,0.5\ngood,fine,1\nbad,good,0\n".repeat(4)),
    )
    .unwrap();
    let lines: [fn(&str) -> String; 8] = [
        |name| train(name, ""),
        |name| train(name, "--lora 2 --optimizer lamb"),
        |name| on_file("questions.json", name, "--task question-answering --epochs 2 --max-seq-len 16 --doc-stride 4"),
        |name| {
            on_file("choices.jsonl", name, "--task multiple-choice --text text --choices a,b --label label --epochs 1")
        },
        |name| on_file("tags.conll", name, "--task tagging --epochs 2"),
        |name| train(name, "--task embedding --text text --text-pair label"),
        |name| train(name, "--task embedding --text text --text-pair label --mini-batch 4"),
        |name| on_file("scores.csv", name, "--task embedding --text a --text-pair b --label score --epochs 1"),
    ];
    for (number, line) in lines.into_iter().enumerate() {
        let alone = format!("{number}-alone");
        let expected = result(&succeed(&line(&alone), at), &at.join(&alone));
        // More ranks than parts split the batches otherwise than one process, but all in the same way.
        let parts = object(at.join(&alone).join("run.json"))["settings"]["parts"].as_u64().unwrap() as usize;
        let on = |ranks: usize, options: &str| {
            let name = format!("{number}-{ranks}{options}").replace(' ', "");
            result(&succeed_on(ranks, &format!("{} {options}", line(&name)), at), &at.join(&name))
        };
        let two = on(2, "");
        assert!(parts < 2 || two == expected, "{}: {} {}", line("two"), two.0, expected.0);
        assert!(on(2, "--shard-optimizer") == two, "{}", line("divided"));
        assert!(number > 0 || on(3, "") == on(3, "--shard-optimizer"), "on three ranks");
    }
}

#[test]
fn seeds_and_resumed_runs_are_those_of_one_process() {
    if !has_mpirun() {
        return;
    }
    let directory = workshop();
    let at = directory.path();
    let line = |name: &str| train(name, "--seeds 2 --keep 1");
    let expected = result(&succeed(&line("alone"), at), &at.join("alone"));
    assert_eq!(result(&succeed_on(2, &line("two"), at), &at.join("two")).0, expected.0);
    // A finished run is told again, on any number of ranks.
    assert_eq!(result(&succeed_on(2, "train --resume -o alone --quiet --json", at), &at.join("alone")).0, expected.0);
}
