//! Every command, and errors in its arguments.

use std::fs;

use serde_json::Value;

use crate::pretraining::{corpus, short};
use crate::program::{
    command, converse, fail, failure, feed, json, lines, object, objects, run, spawn, succeed, success, text,
};

#[test]
fn a_run_leaves_a_model_directory_that_can_be_used() {
    let directory = corpus();
    let at = directory.path();
    let summary = json(&short("run", 6, ""), at);
    assert_eq!(summary["steps"], 6);
    for key in ["loss", "mlm_loss", "nsp_loss"] {
        assert!(summary["train"][key].as_f64().unwrap() > 0.0, "{summary}");
    }
    for key in ["mlm_loss", "perplexity", "mlm_accuracy", "nsp_accuracy"] {
        assert!(summary["eval"][key].is_f64(), "{summary}");
    }
    for file in ["config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "run.json"]
    {
        assert!(at.join("run").join(file).exists(), "{file}");
    }
    let metrics = lines(at.join("run/metrics.jsonl"));
    let steps: Vec<&Value> = metrics.iter().filter(|record| record["loss"].is_f64()).collect();
    assert_eq!(steps.len(), 6);
    for key in ["step", "epoch", "loss", "mlm_loss", "nsp_loss", "lr", "grad_norm", "tokens_per_second"] {
        assert!(steps.iter().all(|record| record[key].is_number()), "{key}: {metrics:?}");
    }
    assert!(metrics.iter().any(|record| record["eval"].is_object()));

    let filled = json("fill-mask --model run 'Anna lives in [MASK] , a [MASK] .' --top-k 3 --json --quiet", at);
    let masks = filled["masks"].as_array().unwrap();
    assert_eq!(masks.len(), 2);
    assert_eq!(masks[0]["position"], 4);
    assert_eq!(masks[0]["predictions"].as_array().unwrap().len(), 3);

    let next = json("next-sentence --model run --first a --second b --json --quiet", at);
    assert!((0.0..=1.0).contains(&next["is_next"].as_f64().unwrap()));

    let judged = json("evaluate --model run --corpus corpus.txt --max-seq-len 32 --json --quiet", at);
    assert!(judged["perplexity"].as_f64().unwrap() > 1.0);
}

/// Regression test: a vocabulary in the directory of the texts was trained on, as text.
#[test]
fn a_vocabulary_among_the_texts_is_no_text() {
    let directory = corpus();
    let at = directory.path();
    fs::create_dir(at.join("texts")).unwrap();
    fs::copy(at.join("corpus.txt"), at.join("texts/a.txt")).unwrap();
    let learn = "vocab --corpus texts --size 400 -o texts/vocab.txt --quiet";
    succeed(learn, at);
    let before = fs::read(at.join("texts/vocab.txt")).unwrap();
    succeed(learn, at);
    assert!(before == fs::read(at.join("texts/vocab.txt")).unwrap(), "learned again from the same texts");
    let documents = |tokenizer: &str| {
        let line = short("run", 2, &format!("--overwrite {tokenizer}")).replace("corpus.txt", "texts");
        succeed(&line, at);
        object(at.join("run/run.json"))["data"]["documents"].clone()
    };
    fs::copy(at.join("texts/vocab.txt"), at.join("vocab.txt")).unwrap();
    let with_text = documents("--tokenizer vocab.txt").as_u64().unwrap();
    assert_eq!(documents("--tokenizer texts/vocab.txt").as_u64().unwrap() + 1, with_text);
    fs::remove_file(at.join("texts/vocab.txt")).unwrap();
    assert_eq!(documents("--tokenizer vocab.txt").as_u64().unwrap() + 1, with_text);
}

/// Texts come from a file or from standard input, in any format.
#[test]
fn masks_are_filled_in_texts_from_anywhere() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 2, ""), at);
    let fill = "fill-mask --model run --json --quiet --top-k 1";
    let (text, tsv) = ("Anna [MASK]\n[MASK] lives\n", "id\twords\n1\tAnna [MASK]\n2\t[MASK] lives\n");
    let csv = "id,words\n1,Anna [MASK]\n2,[MASK] lives\n";
    let jsonl = "{\"text\": \"Anna [MASK]\"}\n{\"text\": \"[MASK] lives\"}\n";
    let expected = success(&feed(&format!("{fill} -"), at, text));
    let answers = objects(&expected);
    assert_eq!((answers.len(), &answers[0]["text"]), (2, &"Anna [MASK]".into()));
    assert_eq!([&answers[0]["row"], &answers[1]["row"]], [1, 2]);
    assert_eq!(answers[0]["masks"][0]["position"], 2);
    for (format, content, column) in
        [("txt", text, ""), ("jsonl", jsonl, ""), ("csv", csv, "--text words"), ("tsv", tsv, "--text words")]
    {
        let file = format!("texts.{format}");
        fs::write(at.join(&file), content).unwrap();
        let zipped = zstd::encode_all(content.as_bytes(), 1).unwrap();
        fs::write(at.join(format!("{file}.zst")), zipped).unwrap();
        for input in [&*file, &format!("{file}.zst")] {
            assert_eq!(succeed(&format!("{fill} --input {input} {column}"), at), expected, "{input}");
        }
        let line = format!("{fill} - --input-format {format} {column}");
        assert_eq!(success(&feed(&line, at, content)), expected, "{format} from stdin");
    }
    let message = fail(&format!("{fill} 'a [MASK]' --input-format csv"), at, 2);
    assert!(message.contains("--input-format: found texts as arguments"), "{message}");

    // Columns can be carried over to the output, and selected by number.
    let answers = objects(&succeed(&format!("{fill} --input texts.csv --text words --keep id"), at));
    assert_eq!([&answers[0]["id"], &answers[1]["id"]], ["1", "2"]);
    let numbered = "fill-mask --model run --top-k 1 - --input-format tsv --no-header --text 2 --keep 1 --quiet";
    let lines = success(&feed(numbered, at, "a\tAnna [MASK]\nb\t[MASK] lives\n"));
    let starts: Vec<&str> = lines.lines().filter_map(|line| line.split_once(" →")).map(|(start, _)| start).collect();
    assert_eq!(starts, ["a\tAnna [MASK]", "b\t[MASK] lives"]);

    // The error names the line of a text without a mask.
    fs::write(at.join("texts.txt"), "nothing\n").unwrap();
    let message = fail(&format!("{fill} --input texts.txt"), at, 1);
    assert!(message.contains("texts.txt:1: found no [MASK]"), "{message}");
}

/// A program that writes a text and waits for the answer receives it before the input ends.
#[test]
fn an_answer_comes_before_the_next_text() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 2, ""), at);
    converse("fill-mask --model run - --top-k 1 --quiet", at, &["Anna [MASK]", "[MASK] lives"]);
}

#[test]
fn a_vocabulary_makes_its_directory() {
    let directory = corpus();
    succeed("vocab --corpus corpus.txt --size 300 -o new/directory/vocab.txt --quiet", directory.path());
    assert!(directory.path().join("new/directory/vocab.txt").exists());
}

/// A bare vocabulary does not record whether it is cased; all other formats do.
#[test]
fn casing_is_as_asked_for_or_refused() {
    let directory = corpus();
    let at = directory.path();
    succeed("vocab --corpus corpus.txt --size 300 --cased -o vocab.txt", at);
    succeed(&short("cased", 6, "--tokenizer vocab.txt --cased"), at);
    let config = fs::read_to_string(at.join("cased/tokenizer_config.json")).unwrap();
    assert!(config.contains("\"do_lower_case\": false"), "{config}");
    succeed(&short("uncased", 6, "--tokenizer vocab.txt"), at);
    let message = fail(&short("x", 6, "--tokenizer uncased --cased"), at, 1);
    assert!(message.contains("--cased does not fit the uncased tokenizer of uncased"), "{message}");
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("empty.txt"), "").unwrap();
    fs::write(at.join("bad.jsonl"), "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    fs::write(at.join("strange.json"), "{\"hiden_size\": 128}").unwrap();
    fs::write(
        at.join("one.json"),
        "{\"type_vocab_size\": 1, \"hidden_size\": 24, \"num_attention_heads\": 3, \"num_hidden_layers\": 1}",
    )
    .unwrap();
    for (line, expected) in [
        ("train --corpus empty.txt -o x --device flex --quiet", "no text"),
        ("train --corpus nowhere.txt -o x --device flex --quiet", "nowhere.txt"),
        ("train --corpus bad.jsonl -o x --device flex --quiet", "bad.jsonl:2"),
        ("train --corpus corpus.txt", "-o DIR"),
        ("train --corpus corpus.txt -o x --device abacus", "device `abacus`: no such device"),
        ("train --corpus corpus.txt -o x --device rocm", "build with `--features rocm`"),
        ("train --corpus corpus.txt -o x --config huge", "expected one of tiny, mini"),
        ("train --corpus corpus.txt -o x --config strange.json --device flex", "`hiden_size` is an unknown key"),
        ("train --corpus corpus.txt -o x --config one.json --device flex", "a model with 1 token type"),
        ("train --corpus corpus.txt -o x --mask-prob 2", "--mask-prob: found 2"),
        (
            "train --corpus corpus.txt -o x --phase2-steps 1 --phase2-seq-len 2",
            "--phase2-seq-len: found 2, expected at least 8",
        ),
        ("fill-mask --model nowhere 'a [MASK]'", "nowhere"),
    ] {
        let code = if expected.starts_with('-') { 2 } else { 1 };
        let message = fail(line, at, code);
        assert!(message.contains(expected), "{line}: {message}");
        assert!(!at.join("x").exists(), "{line}: a run that never began left something behind");
    }
    for (line, expected) in [
        ("train --stepz 3", "--stepz"),
        ("train --dupe-factor 3", "--static-masking"),
        ("train --phase2-seq-len 64", "--phase2-steps"),
        ("train --phase2-seq-len 64 --phase2-steps 0", "--phase2-seq-len has no effect here"),
        ("train --keep 0", "--keep: found 0"),
        ("evaluate --model m --corpus corpus.txt --batch-size 0", "--batch-size: found 0"),
        ("train --optimizer sgd", "unknown optimizer `sgd`, expected adamw, lamb or muon"),
        ("train --budget 1h --steps 3", "--budget <TIME>' cannot be used with '--steps <N>'"),
        ("train --budget 1h --epochs 3", "--budget <TIME>' cannot be used with '--epochs <N>'"),
        ("train --budget 90", "found \"90\", expected a number with a unit, such as 90m, 1h or 3d"),
        ("train --precision f8", "unknown precision `f8`, expected f32, bf16 or f16"),
        ("fill-mask --model run - --input-format xlsx", "possible values: txt, tsv, csv, jsonl"),
    ] {
        let message = fail(line, at, 2);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

/// A launcher may start commands other than `train` independently of each other.
#[test]
fn a_command_of_one_process_tells_its_error_whatever_its_number() {
    let directory = corpus();
    let mut evaluate = command("evaluate --model nowhere --corpus corpus.txt", directory.path());
    let message = failure(&evaluate.env("SLURM_PROCID", "3").output().unwrap(), 1);
    assert!(message.contains("nowhere"), "{message}");
}

#[test]
fn the_same_corpus_gives_the_same_vocabulary() {
    let directory = corpus();
    let at = directory.path();
    let learn = |name: &str| {
        succeed(&format!("vocab --corpus corpus.txt --size 300 -o {name} --quiet"), at);
        fs::read(at.join(name)).unwrap()
    };
    let vocabulary = learn("0.txt");
    for process in 1..10 {
        assert_eq!(vocabulary, learn(&format!("{process}.txt")));
    }
    assert!(vocabulary.starts_with(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"));
    assert_eq!(vocabulary.iter().filter(|&&byte| byte == b'\n').count(), 300);
}

#[test]
fn quiet_is_quiet_and_a_run_ends_with_what_to_do_next() {
    let directory = corpus();
    let at = directory.path();
    let output = run(&short("quiet", 4, "").replace("--json", ""), at);
    assert_eq!((success(&output), text(&output.stderr)), (String::new(), String::new()));
    let output = run(&short("run", 4, "").replace("--json --quiet", "").replace("--quiet --json", ""), at);
    success(&output);
    let message = text(&output.stderr);
    for part in ["fill-mask --model run", "run/report.html", "word-frequency baseline", "held out: 12 documents, "] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(message.contains("little text") && message.contains("--init"), "{message}");
    let page = fs::read_to_string(at.join("run/report.html")).unwrap();
    for part in ["word-frequency baseline loss", "What the loss means", "not set", "none", "no</dd>"] {
        assert!(page.contains(part), "{part} is not in the report");
    }
    for raw in [">null<", ">[]<", "[{", "{&quot;"] {
        assert!(!page.contains(raw), "{raw} is in the report");
    }
}

#[test]
fn a_vocabulary_goes_into_a_new_directory_and_says_if_the_text_has_no_more() {
    let directory = corpus();
    let at = directory.path();
    let output = run("vocab --corpus corpus.txt --size 30522 -o new/deep/vocab.txt", at);
    success(&output);
    let pieces = fs::read_to_string(at.join("new/deep/vocab.txt")).unwrap().lines().count();
    let message = text(&output.stderr);
    let expected = format!("30522 WordPieces requested, {pieces} learned: the text yields no more");
    assert!(message.contains(&expected), "{message}");
    let output = run("vocab --corpus corpus.txt --size 300 -o vocab.txt", at);
    assert!(!text(&output.stderr).contains("requested"));
}

#[test]
fn a_corpus_of_one_next_sentence_label_is_told_with_advice_and_has_no_accuracy() {
    let directory = corpus();
    let at = directory.path();
    let sentences: Vec<String> =
        (0..60).map(|index| format!("Anna has {index} loaves and Emil has {} roses.", index % 7)).collect();
    fs::write(at.join("onedoc.txt"), sentences.join("\n")).unwrap();
    fs::write(at.join("onesent.txt"), sentences.join("\n\n")).unwrap();
    let options = "--vocab-size 120 --max-seq-len 32 --batch-size 4 --steps 2 --device flex --json";
    for (file, share, reason) in
        [("onedoc.txt", 0.5, "there is a single document"), ("onesent.txt", 0.5, "no document has a second sentence")]
    {
        let train =
            |more: &str| format!("train --corpus {file} --eval-share {share} {options} --overwrite -o run {more}");
        let output = run(&train(""), at);
        let summary: Value = serde_json::from_str(&success(&output)).unwrap();
        let message = text(&output.stderr);
        assert!(message.contains(reason) && message.contains("--no-nsp"), "{message}");
        assert!(summary["eval"]["mlm_loss"].is_f64() && summary["eval"]["nsp_accuracy"].is_null(), "{summary}");
        let output = run(&format!("evaluate --model run --corpus {file} --max-seq-len 32 --json --quiet"), at);
        let judged: Value = serde_json::from_str(&success(&output)).unwrap();
        assert!(judged["mlm_loss"].is_f64() && judged["nsp_accuracy"].is_null(), "{judged}");
        assert!(text(&output.stderr).contains("there is no next-sentence accuracy"), "{}", text(&output.stderr));
        let quiet = text(&run(&train("--no-nsp"), at).stderr);
        assert!(!quiet.contains("warning"), "{quiet}");
    }
    // A share too small for an evaluation is reported, too.
    let output = run(&format!("train --corpus onedoc.txt --eval-share 0.01 {options} --overwrite -o run"), at);
    let message = text(&output.stderr);
    assert!(message.contains("no evaluation: the corpus is a single short document"), "{message}");
}

/// Text like the books of Project Gutenberg: lines of about 70 characters, and an empty line between paragraphs.
#[test]
fn hard_wrapped_books_are_joined_and_a_file_is_a_document() {
    let directory = corpus();
    let at = directory.path();
    fs::create_dir(at.join("books")).unwrap();
    let paragraph = "It is a truth universally acknowledged, that a single man in\npossession of a good fortune, must be in \
        want of a wife. However\nlittle known the feelings or views of such a man may be on his\nfirst entering a \
        neighbourhood, this truth is so well fixed in\nthe minds of the surrounding families. He is considered.\n\n";
    for book in ["a.txt", "b.txt"] {
        fs::write(at.join("books").join(book), format!("CHAPTER I\n\n{}", paragraph.repeat(10))).unwrap();
    }
    let options = "--corpus books --vocab-size 200 --max-seq-len 32 --steps 1 --device flex --overwrite -o run";
    for (mode, documents, sentences, is_told) in [("", 2, 62, true), ("--sentences unicode", 22, 142, false)] {
        let output = run(&format!("train {options} {mode}"), at);
        success(&output);
        let data = &object(at.join("run/run.json"))["data"];
        assert_eq!((&data["documents"], &data["sentences"]), (&documents.into(), &sentences.into()), "{mode}");
        let message = text(&output.stderr);
        assert_eq!(message.contains("lines end within sentences"), is_told, "{message}");
    }
}

#[test]
fn a_picture_is_no_corpus_and_is_not_to_be_converted() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("picture.txt"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0").unwrap();
    let message = fail("train --corpus picture.txt -o x --device flex --quiet", at, 1);
    assert!(
        message.contains("picture.txt:1: found binary data (a PNG image)") && !message.contains("iconv"),
        "{message}"
    );
}

/// A line of 9 MB used to take 1.1 GB, over 120 bytes per character.
#[cfg(target_os = "linux")]
#[test]
fn a_line_of_nine_megabytes_takes_at_most_thirty_bytes_a_character() {
    let directory = corpus();
    let at = directory.path();
    succeed("vocab --corpus corpus.txt --size 300 -o vocab.txt --quiet", at);
    let peak = |name: &str, text: &str| {
        fs::write(at.join(name), format!("{text}\nAnd more.\n\nAnother text.\nIt ends.\n")).unwrap();
        let options =
            "--tokenizer vocab.txt --max-seq-len 32 --steps 1 --eval-share 0 --device flex --quiet --overwrite";
        let mut child = spawn(&format!("train --corpus {name} {options} -o run"), at);
        let peak = crate::program::peak_until_end(&mut child);
        assert!(child.wait().unwrap().success());
        peak
    };
    let short = peak("short.txt", "Anna lives in Tavik");
    for (name, words) in [("words.txt", "Anna lives in Tavik "), ("endless.txt", "AnnalivesinTavik")] {
        let text = words.repeat(9_200_000 / words.len());
        let peak = peak(name, &text);
        let each = peak.saturating_sub(short) as f64 * 1024.0 / text.len() as f64;
        assert!(each <= 30.0, "{name}: {each:.1} bytes a character, {peak} KiB");
    }
}
