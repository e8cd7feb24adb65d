//! Whole runs: seeds, resuming, trainable parameters, reports, presets.

use std::fs;
use std::path::Path;

use crate::program::{fail, json, object, run, succeed, success, text};
use crate::{on_file, train, workshop};

#[test]
fn the_same_seed_gives_the_same_bytes_and_resuming_changes_none() {
    let directory = workshop();
    let at = directory.path();
    let options = "--max-seq-len 12 --save-every 2 --keep 2";
    for name in ["a", "b"] {
        succeed(&train(name, options), at);
    }
    let weights = |name: &str| fs::read(at.join(name).join("model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"), "two runs with one seed differ");
    let before = weights("a");
    succeed(&train("a", &format!("{options} --resume")), at);
    assert!(before == weights("a"), "resuming a finished run changed it");
    // Resumes from the checkpoint before a damaged one.
    let checkpoints = fs::read_dir(at.join("a/checkpoints")).unwrap();
    let newest = checkpoints.map(|entry| entry.unwrap().path()).max().unwrap();
    fs::write(newest.join("model.safetensors"), "no").unwrap();
    // It keeps its own settings.
    unfinish(&at.join("a"));
    let output = run("train --resume -o a --quiet", at);
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("skipped a damaged checkpoint"), "{message}");
    assert!(before == weights("a"), "resuming from the checkpoint before changed it");
}

#[test]
fn a_finished_run_keeps_no_checkpoints_and_a_refused_one_writes_nothing() {
    let directory = workshop();
    let at = directory.path();
    let summary = json(&train("run", "--max-seq-len 12"), at);
    assert_eq!(fs::read_dir(at.join("run/checkpoints")).unwrap().count(), 0);
    let output = run("train --resume -o run --json", at);
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("run is finished"), "{message}");
    let again: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!((&again["best_epoch"], &again["model"]), (&summary["best_epoch"], &summary["model"]));
    let before = fs::read(at.join("run/run.json")).unwrap();
    let message = fail("train --resume -o run --lr 1e-5 --epochs 3 --train films.tsv", at, 1);
    assert!(message.contains("learning_rate = 0.00001") || message.contains("learning_rate = 1e-5"), "{message}");
    assert!(message.contains("epochs = 3") && message.contains("epochs = 8"), "{message}");
    assert!(fs::read(at.join("run/run.json")).unwrap() == before);
    // A directory without a run does not start the built-in sample.
    let message = fail("train --resume -o nowhere", at, 1);
    assert!(message.contains("nowhere: found no run to resume"), "{message}");
    assert!(!at.join("runs").exists() && !at.join("nowhere").exists());
    // An unfinished run finds its files only where it was started.
    fs::remove_file(at.join("run/model.safetensors")).unwrap();
    let message = fail("train --resume -o .", &at.join("run"), 1);
    assert!(message.contains("found no such file here") && message.contains("where the run was started"), "{message}");
    // Runs with several seeds are resumed as a whole.
    let summary = json(&train("seeds", "--max-seq-len 12 --seeds 2"), at);
    fs::remove_file(at.join("seeds/model.safetensors")).unwrap();
    let again = json("train --resume -o seeds --quiet --json", at);
    assert_eq!((&again["best_seed"], &again["model"]), (&summary["best_seed"], &"seeds".into()));
}

/// Removes the result of a finished run, as if it had been stopped before it was written.
fn unfinish(run: &Path) {
    let mut described = object(run.join("run.json"));
    described.as_object_mut().unwrap().remove("result");
    fs::write(run.join("run.json"), described.to_string()).unwrap();
}

/// The state after a kill: the checkpoints after step `last` and the result are gone.
fn cut(run: &Path, last: u64) {
    for entry in fs::read_dir(run.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        let step: u64 = path.to_str().unwrap().rsplit_once("step-").unwrap().1.parse().unwrap();
        if step > last {
            fs::remove_dir_all(path).unwrap();
        }
    }
    unfinish(run);
}

/// Regression tests: the parts of a batch of one seed, and the model directory of an embedder, were lost on resume.
#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn runs_of_several_seeds_and_of_embeddings_can_be_resumed() {
    let directory = workshop();
    let at = directory.path();
    let weights = |run: &str| fs::read(at.join(run).join("model.safetensors")).unwrap();
    let options = "--max-seq-len 12 --seeds 2 --save-every 2 --keep 99";
    let summary = json(&train("whole", options), at);
    succeed(&train("cut", options), at);
    let second = |run: &str| format!("{run}/seed-43");
    for resumed in ["cut", "cut/seed-43"] {
        cut(&at.join("cut/seed-43"), 4);
        unfinish(&at.join("cut"));
        succeed(&format!("train --resume -o {resumed} --quiet"), at);
        assert!(weights(&second("cut")) == weights(&second("whole")), "resumed with -o {resumed}");
        succeed("train --resume -o cut --quiet", at);
        assert!(weights("cut") == weights("whole"), "resumed with -o {resumed}");
    }
    // A seed that is left from a run that was being overwritten is trained anew.
    let other = format!("{options} --warmup 0.5");
    succeed(&train("fresh", &other), at);
    succeed(&train("mixed", &other), at);
    fs::remove_dir_all(at.join("mixed/seed-43")).unwrap();
    fs::rename(at.join("cut/seed-43"), at.join("mixed/seed-43")).unwrap();
    unfinish(&at.join("mixed"));
    succeed("train --resume -o mixed --quiet", at);
    assert!(weights(&second("mixed")) == weights(&second("fresh")) && weights("mixed") == weights("fresh"));

    let seconds = |run: &str| object(at.join(run).join("run.json"))["result"]["seconds"].as_f64().unwrap();
    let sum = seconds("whole/seed-42") + seconds("whole/seed-43");
    assert!((summary["seconds"].as_f64().unwrap() - sum).abs() < 1e-6, "{summary}");

    let row = |i: usize| format!("a {} film,a {} book\n", crate::WORDS[i % 4], crate::WORDS[(i + 1) % 4]);
    fs::write(at.join("pairs.csv"), format!("a,b\n{}", (0..8).map(row).collect::<String>())).unwrap();
    let train =
        "train --task embedding --model model --train pairs.csv --eval pairs.csv --text a --text-pair b --epochs 3";
    for run in ["vectors", "again"] {
        let message = text(&self::run(&format!("{train} --batch-size 4 --save-every 1 --keep 9 -o {run}"), at).stderr);
        assert!(message.contains("next: bert-finetune similarity --model"), "{message}");
    }
    cut(&at.join("again"), 3);
    succeed("train --resume -o again --quiet", at);
    assert!(weights("vectors") == weights("again"), "a resumed embedding run");
}

/// Regression test: the run was removed before the new model's weights were read.
#[test]
fn a_run_is_overwritten_once_everything_that_the_new_one_reads_is_right() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train("run", "--max-seq-len 12"), at);
    let before = fs::read(at.join("run/model.safetensors")).unwrap();
    fs::create_dir(at.join("bad")).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(at.join("model").join(file), at.join("bad").join(file)).unwrap();
    }
    fs::write(at.join("bad/model.safetensors"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    for options in ["", "--seeds 2"] {
        let line = train("run", &format!("--max-seq-len 12 --overwrite {options}"));
        let message = text(&run(&line.replace("--model model", "--model bad"), at).stderr);
        assert!(message.contains("Git LFS pointer"), "{message}");
        assert!(fs::read(at.join("run/model.safetensors")).unwrap() == before, "{options}");
    }
    // What no run has written is not replaced by one.
    let message = fail(&train("model", "--overwrite"), at, 1);
    assert!(message.contains("an input inside the run directory"), "{message}");
    let message = fail(&train("bad", "--overwrite"), at, 1);
    assert!(message.contains("bad: found a directory that is not empty and holds no run"), "{message}");
    assert!(at.join("bad/config.json").exists());
}

#[test]
fn quiet_is_quiet() {
    let directory = workshop();
    let at = directory.path();
    let output = run(&train("run", "--max-seq-len 12").replace("--json", ""), at);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn features_adapters_weights_and_seeds() {
    let directory = workshop();
    let at = directory.path();
    let before = fs::read(at.join("model/model.safetensors")).unwrap();
    let encoder = |file: &Path| {
        let bytes = fs::read(file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensor("bert.encoder.layer.0.output.dense.weight").unwrap().data().to_vec()
    };
    let original = encoder(&at.join("model/model.safetensors"));
    // (options, whether the encoder changes)
    let cases = [
        ("frozen", "--freeze encoder --lr 3e-2 --epochs 30", false),
        ("embeddings", "--freeze embeddings --epochs 8", true),
        ("layer", "--freeze 1 --lr 1e-2 --epochs 30", false),
        ("lora", "--lora 4 --lr 1e-2 --epochs 12", true),
        ("weights", "--class-weights balanced --epochs 8", true),
    ];
    for (output, options, changes) in cases {
        let summary = json(&on_file("films.tsv", output, options), at);
        assert!(summary["eval"]["accuracy"].as_f64().unwrap() > 0.8, "{output}: {summary}");
        assert_eq!(encoder(&at.join(output).join("model.safetensors")) != original, changes, "{output}");
        let metrics = json(&format!("evaluate --model {output} --data films.tsv --json --quiet"), at);
        assert_eq!(metrics["accuracy"], summary["eval"]["accuracy"], "{output}: adapters are merged, all is saved");
    }
    assert_eq!(fs::read(at.join("model/model.safetensors")).unwrap(), before);

    let summary = json(&on_file("films.tsv", "seeds", "--seeds 3 --epochs 2"), at);
    let runs = summary["seeds"].as_array().unwrap();
    let accuracies: Vec<f64> = runs.iter().map(|run| run["eval"]["accuracy"].as_f64().unwrap()).collect();
    let mean = accuracies.iter().sum::<f64>() / 3.0;
    assert!((summary["mean"]["eval"]["accuracy"].as_f64().unwrap() - mean).abs() < 1e-12, "{summary}");
    assert!(accuracies.iter().all(|accuracy| *accuracy <= summary["eval"]["accuracy"].as_f64().unwrap()));
    assert_eq!(runs.iter().map(|run| run["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [42, 43, 44]);
    json("evaluate --model seeds --data films.tsv --json --quiet", at);
    // What is wrong with a command line or a file is told before anything is removed.
    for (options, expected) in [
        ("--seeds 2 --label nowhere", "nowhere"),
        ("--seeds 0", "--seeds: found 0"),
        ("--seeds 3 --seed 18446744073709551615", "--seeds: found 3"),
        ("--seeds 1000000000000", "--seeds: found 1000000000000"),
        ("--seeds 2 --model seeds/seed-43", "an input inside the run directory"),
    ] {
        let line = on_file("films.tsv", "seeds", &format!("--overwrite {options}"));
        let line = if options.contains("--model") { line.replace("--model model", "") } else { line };
        let message = text(&run(&line, at).stderr);
        assert!(message.contains(expected), "{options}: {message}");
        assert!(
            at.join("seeds/model.safetensors").exists() && at.join("seeds/seed-43/config.json").exists(),
            "{options}"
        );
    }
}

#[test]
fn the_report_shows_what_happened_and_can_be_written_again() {
    let directory = workshop();
    let at = directory.path();
    json(&on_file("films.tsv", "run", "--epochs 1 --lr 1e-5"), at);
    let page = fs::read_to_string(at.join("run/report.html")).unwrap();
    for part in ["Confusion matrix", "Classes", "Worst mistakes", "Loss", "Settings", "a good film"] {
        assert!(page.contains(part), "{part} is not in the report");
    }
    fs::remove_file(at.join("run/report.html")).unwrap();
    succeed("report --run run", at);
    assert_eq!(fs::read_to_string(at.join("run/report.html")).unwrap(), page);
    assert!(fail("report --run nowhere", at, 1).contains("nowhere"));
}

/// Regression test: the metrics of the test file were only printed on the terminal; they are recorded now.
#[test]
fn test_figures_are_in_the_record_and_the_report() {
    let directory = workshop();
    let at = directory.path();
    let summary = json(&train("run", "--max-seq-len 12"), at);
    assert_eq!(summary["test"]["examples"], 64, "{summary}");
    assert_eq!(object(at.join("run/evaluation.json"))["test"], summary["test"]);
    let page = fs::read_to_string(at.join("run/report.html")).unwrap();
    assert!(page.contains("Test examples") && page.contains("f1 of good"), "{page}");
    // Also without an evaluation.
    let alone = "train --model model --train films.tsv --test films.tsv --eval-share 0 --epochs 2 --max-seq-len 12";
    let summary = json(&format!("{alone} --device flex --quiet --json -o alone"), at);
    let record = object(at.join("alone/evaluation.json"));
    assert_eq!((&record["test"], &record["epoch"]), (&summary["test"], &2.into()));
    assert!(fs::read_to_string(at.join("alone/report.html")).unwrap().contains("Test examples"));
}

#[test]
fn a_run_ends_with_what_to_do_next() {
    let directory = workshop();
    let at = directory.path();
    // A third class, most of whose texts also occur with another class.
    let films = fs::read_to_string(at.join("films.tsv")).unwrap();
    fs::write(at.join("films.tsv"), films + &"a good film\trare\n".repeat(2)).unwrap();
    let options = "--model model --train films.tsv --eval films.tsv --epochs 8 --lr 3e-3 --device flex";
    let message = text(&run(&format!("train {options} -o run"), at).stderr);
    for part in
        ["next: bert-finetune predict --model run \"TEXT\"", "run/report.html", "hint: never predicted correctly: "]
    {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert!(message.contains("rare (2 examples)") && message.contains("device: flex (CPU)"), "{message}");
    let output = run(&format!("train {options} --quiet --overwrite -o run"), at);
    assert_eq!((success(&output), text(&output.stderr)), (String::new(), String::new()), "--quiet is silent");
}

#[test]
fn the_positive_of_two_classes_is_named() {
    let directory = workshop();
    let at = directory.path();
    let message = text(&run("train --model model --train films.tsv --epochs 1 --device flex -o run", at).stderr);
    assert!(message.contains("eval f1 of good "), "{message}");
    let metrics = succeed("evaluate --model run --data films.tsv --quiet", at);
    assert!(metrics.contains("recall of good ") && metrics.contains("\nexamples     64\n"), "{metrics}");
}

#[test]
fn presets_know_their_files() {
    let directory = workshop();
    let at = directory.path();
    let rows: String = (0..16).map(|i| format!("x\t{}\t\ta {} film\n", i % 2, ["good", "bad"][i % 2])).collect();
    fs::write(at.join("cola.tsv"), rows).unwrap();
    let summary = json(&on_file("cola.tsv", "cola", "--preset cola --epochs 8"), at);
    assert!(summary["eval"]["mcc"].as_f64().unwrap() > 0.9, "{summary}");
    let message = fail(&on_file("cola.tsv", "x", "--preset cola --task tagging"), at, 2);
    assert!(message.contains("the preset cola is for classification"), "{message}");
    let message = fail(&on_file("cola.tsv", "x", "--preset cola --metric pearson"), at, 2);
    assert!(message.contains("expected one of accuracy, f1, micro_f1, macro_f1, weighted_f1, mcc"), "{message}");
}
