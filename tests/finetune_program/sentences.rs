//! Sentence embeddings: sentence-transformers directories, similarity, search, ranking, training.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json as value};
use tempfile::TempDir;

use crate::program::{fail, json, lines, object, objects, run, succeed, text};
use crate::workshop;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sentence-transformers").join(path)
}

/// A directory with the golden encoder as `mean` (plain) and as `cls` (a sentence-transformers directory: normalized,
/// six tokens, prompts), a cross-encoder as `cross`, and a corpus.
fn library() -> TempDir {
    let directory = TempDir::new().unwrap();
    for (model, name) in [("encoder", "mean"), ("encoder", "cls"), ("cross-encoder", "cross")] {
        let target = directory.path().join(name);
        fs::create_dir_all(target.join("1_Pooling")).unwrap();
        for file in fs::read_dir(golden(model)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    let class = |name: &str| format!("sentence_transformers.models.{name}");
    for (path, content) in [
        (
            "modules.json",
            value!([
                {"idx": 0, "name": "0", "path": "", "type": class("Transformer")},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": class("Pooling")},
                {"idx": 2, "name": "2", "path": "2_Normalize", "type": class("Normalize")}]),
        ),
        ("1_Pooling/config.json", value!({"word_embedding_dimension": 16, "pooling_mode_cls_token": true})),
        ("sentence_bert_config.json", value!({"max_seq_length": 6})),
        ("config_sentence_transformers.json", value!({"prompts": {"query": "query : ", "passage": "passage : "}})),
    ] {
        fs::write(directory.path().join("cls").join(path), content.to_string()).unwrap();
    }
    let texts = TEXTS.map(|text| format!("{text}\n")).concat();
    fs::write(directory.path().join("corpus.txt"), texts).unwrap();
    directory
}

const TEXTS: [&str; 7] =
    ["the cat sleeps", "a dog runs", "the river", "over the bank", "the cat sleeps", "quick quick quick", ""];

fn vector(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn vectors(line: &str, directory: &Path) -> Vec<Vec<f32>> {
    objects(&succeed(line, directory)).iter().map(|line| vector(&line["embedding"])).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The indices and scores of hits.
fn hits(line: &Value) -> Vec<(usize, f64)> {
    let hit = |hit: &Value| (hit["index"].as_u64().unwrap() as usize, hit["score"].as_f64().unwrap());
    line["hits"].as_array().unwrap().iter().map(hit).collect()
}

#[test]
fn a_directory_is_obeyed_and_options_that_override_it_say_so() {
    let directory = library();
    let at = directory.path();
    let embed = |more: &str| {
        let output = run(&format!("embed --model cls 'the cat runs over the bank .' --device flex {more}"), at);
        (vector(&objects(&text(&output.stdout))[0]["embedding"]), text(&output.stderr))
    };
    let (own, said) = embed("");
    assert!((own.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(!said.contains("overrides"), "{said}");
    let (mean, said) = embed("--pooling mean");
    assert!(said.contains("--pooling mean: overrides cls (pooling: cls)"), "{said}");
    let (long, said) = embed("--max-seq-len 20");
    assert!(said.contains("--max-seq-len 20: overrides cls (6 tokens)"), "{said}");
    let (prompted, _) = embed("--prompt query");
    let others = [mean, long, prompted.clone(), embed("--windows mean").0];
    assert!(others.iter().all(|other| cosine(&own, other) < 0.9999));
    assert_eq!(embed("--prompt-text 'query : '").0, prompted);
    let (same, said) = embed("--pooling cls --normalize --max-seq-len 6");
    assert_eq!(same, own);
    assert!(said.contains("1 text longer than 6 tokens was truncated") && !said.contains("overrides"), "{said}");
    let message = fail("embed --model cls a --prompt question", at, 2);
    assert!(message.contains("--prompt: found no prompt `question`, expected one of passage, query"), "{message}");
    let modules = at.join("cls/modules.json");
    let changed = fs::read_to_string(&modules).unwrap().replace("models.Normalize", "models.LSTM");
    fs::write(modules, changed).unwrap();
    let message = fail("embed --model cls a --quiet", at, 1);
    assert!(message.contains("\"sentence_transformers.models.LSTM\""), "{message}");
}

#[test]
fn similarity_is_the_cosine_of_two_vectors() {
    let directory = library();
    let at = directory.path();
    let found = vectors("embed --model mean 'the cat' 'a dog' --device flex --quiet", at);
    let similarity = json("similarity --model mean 'the cat' 'a dog' --json --quiet", at);
    assert!((similarity["similarity"].as_f64().unwrap() - cosine(&found[0], &found[1])).abs() < 1e-5, "{similarity}");
    let plain = succeed("similarity --model mean 'the cat' 'the cat' --quiet", at);
    assert_eq!(plain, "1.0000\n");
    fail("similarity --model mean 'the cat'", at, 2);
    let message = fail("similarity --model mean a b --pooling none", at, 2);
    assert!(message.contains("--pooling none: found a vector for each token"), "{message}");
}

#[test]
fn search_is_exact_with_and_without_vectors() {
    let directory = library();
    let at = directory.path();
    let corpus = vectors("embed --model mean --input corpus.txt --device flex --quiet", at);
    let queries = ["a cat", "the bank of the river"];
    fs::write(at.join("queries.jsonl"), queries.map(|query| value!({"q": query}).to_string() + "\n").concat()).unwrap();
    let asked = vectors(&format!("embed --model mean '{}' '{}' --device flex --quiet", queries[0], queries[1]), at);
    let line =
        "search --model mean --corpus corpus.txt --queries queries.jsonl --queries-text q --top-k 4 --json --quiet";
    let found = objects(&succeed(line, at));
    for (place, line) in found.iter().enumerate() {
        let mut expected: Vec<(usize, f64)> =
            corpus.iter().map(|vector| cosine(&asked[place], vector)).enumerate().collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        assert_eq!((&line["query"], &line["row"]), (&value!(queries[place]), &value!(place + 1)));
        let found = hits(line);
        assert_eq!(found.len(), 4);
        for ((index, score), (other, expected)) in found.iter().zip(&expected) {
            assert!(index == other && (score - expected).abs() < 1e-5, "{line}");
            assert_eq!(
                line["hits"].as_array().unwrap().iter().find(|hit| hit["index"] == *index).unwrap()["text"],
                TEXTS[*index]
            );
        }
    }
    // Equal texts have equal scores, and the first one comes first.
    let same = json("search --model mean --corpus corpus.txt --query 'the cat sleeps' --json --quiet", at);
    assert_eq!(hits(&same)[..2].iter().map(|hit| hit.0).collect::<Vec<_>>(), [0, 4], "{same}");
    assert!((hits(&same)[0].1 - 1.0).abs() < 1e-6 && hits(&same)[0].1 == hits(&same)[1].1 && same.get("row").is_none());

    succeed("embed --model mean --input corpus.txt -o corpus.npy --quiet", at);
    assert_eq!(objects(&succeed(&format!("{line} --vectors corpus.npy"), at)), found);
    let plain = succeed("search --model mean --corpus corpus.txt --query 'the cat sleeps' --top-k 1 --quiet", at);
    assert_eq!(plain, "the cat sleeps\n  1.0000\t0\tthe cat sleeps\n");

    for (arguments, code, expected) in [
        (
            "--corpus corpus.txt --query a --vectors short.npy",
            1,
            "short.npy: found 1 vectors, expected 7, one for each text of corpus.txt",
        ),
        (
            "--corpus one.txt --query a --vectors corpus.npy",
            1,
            "corpus.npy: found 7 vectors, expected 1, one for each text of one.txt",
        ),
        (
            "--corpus corpus.txt --query a --vectors wide.npy",
            1,
            "wide.npy: found vectors with 32 dimensions, expected 16",
        ),
        ("--corpus corpus.txt", 2, "--query"),
        ("--corpus corpus.txt --query a --text body", 2, "--text has no effect here"),
        ("--corpus corpus.txt --query a --top-k 0", 2, "--top-k: found 0"),
        ("--corpus corpus.pdf --query a", 1, "corpus.pdf: found the extension `pdf`"),
        ("--corpus corpus.txt --query a --candidates 9", 2, "--rerank"),
    ] {
        fs::write(at.join("one.txt"), "the cat\n").unwrap();
        succeed("embed --model mean 'the cat' -o short.npy --quiet", at);
        succeed("embed --model mean --input corpus.txt --layers -2,-1 -o wide.npy --quiet", at);
        let message = fail(&format!("search --model mean {arguments}"), at, code);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn queries_and_corpus_have_the_prompts_of_the_model() {
    let directory = library();
    let at = directory.path();
    let corpus = vectors("embed --model cls --prompt passage --input corpus.txt --device flex --quiet", at);
    let query = vectors("embed --model cls --prompt query 'the cat' --device flex --quiet", at);
    let found = json("search --model cls --corpus corpus.txt --query 'the cat' --top-k 7 --json --quiet", at);
    for (index, score) in hits(&found) {
        assert!((score - cosine(&query[0], &corpus[index])).abs() < 1e-5, "{found}");
    }
}

#[test]
fn a_cross_encoder_ranks_texts_and_hits() {
    let directory = library();
    let at = directory.path();
    let ranked = objects(&succeed("rank --model cross --query 'a cat' --input corpus.txt --json --quiet", at));
    let scores: Vec<f64> = ranked.iter().map(|line| line["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    let mut indices: Vec<u64> = ranked.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert!(ranked.iter().all(|line| line["text"] == TEXTS[line["index"].as_u64().unwrap() as usize]));
    assert_eq!(ranked[0]["row"], ranked[0]["index"].as_u64().unwrap() + 1);
    indices.sort_unstable();
    assert_eq!(indices, (0..7).collect::<Vec<_>>());
    let some = objects(&succeed("rank --model cross --query 'a cat' 'the river' 'a dog' --top-k 1 --json --quiet", at));
    assert!(some.len() == 1 && some[0].get("row").is_none(), "{some:?}");

    // Ten candidates per hit: in this case, the whole corpus.
    let reranked =
        json("search --model mean --corpus corpus.txt --query 'a cat' --top-k 3 --rerank cross --json --quiet", at);
    for (hit, line) in hits(&reranked).iter().zip(&ranked) {
        assert!((hit.1 - line["score"].as_f64().unwrap()).abs() < 1e-6, "{reranked}");
    }
    let few = "search --model mean --corpus corpus.txt --query 'a cat' --top-k 3 --rerank cross --candidates 3 --json --quiet";
    let own = json("search --model mean --corpus corpus.txt --query 'a cat' --top-k 3 --json --quiet", at);
    let sorted = |line: &Value| {
        let mut indices: Vec<usize> = hits(line).into_iter().map(|hit| hit.0).collect();
        indices.sort_unstable();
        indices
    };
    assert_eq!(sorted(&json(few, at)), sorted(&own));
    fail("rank --model mean --query a b", at, 1);
    // A column that is named is read from a tab-separated `.txt`, too, or refused.
    fs::write(at.join("table.txt"), "id\tbody\n1\tthe river\n2\ta dog\n").unwrap();
    let ranked = objects(&succeed("rank --model cross --query x --input table.txt --text body --json --quiet", at));
    assert!(ranked.len() == 2 && ranked.iter().all(|line| line["text"] == "the river" || line["text"] == "a dog"));
    for line in ["rank --model cross --query x --input table.txt", "search --model mean --query x --corpus table.txt"] {
        assert!(fail(&format!("{line} --text nosuch"), at, 1).contains("no column `nosuch`"), "{line}");
    }
    let lines = "search --model mean --corpus corpus.txt --queries corpus.txt --queries-text nosuch";
    assert!(fail(lines, at, 2).contains("--queries-text has no effect here"));
    fs::write(at.join("corpus.jsonl"), "{\"text\": \"the river\"}\n").unwrap();
    fs::write(at.join("queries.csv"), "1,a cat\n2,a dog\n").unwrap();
    let headless =
        "search --model mean --corpus corpus.jsonl --queries queries.csv --queries-text 2 --no-header --json";
    assert_eq!(objects(&succeed(&format!("{headless} --text text --quiet"), at)).len(), 2);
    // Columns are those of the file that has some.
    for line in [
        "--corpus queries.csv --text 2 --no-header --queries corpus.txt",
        "--corpus corpus.txt --queries queries.csv --queries-text 2 --no-header",
        "--corpus table.txt --text body --queries corpus.txt",
    ] {
        succeed(&format!("search --model mean {line} --json --quiet"), at);
    }
}

/// Words as questions, each with the texts that belong to it.
fn pairs(at: &Path) {
    let answers = [
        ("good", "a film", "a book"),
        ("fine", "a book .", "film"),
        ("bad", "book film", "a"),
        ("poor", ". .", "a film"),
    ];
    let rows: String = answers.iter().map(|(q, a, n)| format!("{q},{a},{n}\n")).collect::<String>().repeat(8);
    fs::write(at.join("pairs.csv"), format!("question,answer,wrong\n{rows}")).unwrap();
    let scores: String = (0..32)
        .map(|i| {
            let (first, second) = (crate::WORDS[i % 4], crate::WORDS[i / 4 % 4]);
            format!("{first}\ta {second}\t{}\n", if (i % 4) / 2 == (i / 4 % 4) / 2 { 5 } else { 1 })
        })
        .collect();
    fs::write(at.join("scores.tsv"), format!("a\tb\tscore\n{scores}")).unwrap();
}

fn train(output: &str, more: &str) -> String {
    format!(
        "train --task embedding --model model --train pairs.csv --eval pairs.csv --text question --text-pair answer \
         --batch-size 8 --lr 3e-3 --device flex --quiet --json -o {output} {more}"
    )
}

#[test]
fn pairs_are_learned_and_the_run_is_a_directory_of_sentence_transformers() {
    let directory = workshop();
    let at = directory.path();
    pairs(at);
    let summary = json(&train("run", "--epochs 25 --pooling cls --normalize --test pairs.csv"), at);
    assert_eq!(
        (&summary["eval"]["accuracy_at_1"], &summary["test"]["ndcg_at_10"]),
        (&value!(1.0), &value!(1.0)),
        "{summary}"
    );
    let metrics = json("evaluate --model run --data pairs.csv --json --quiet", at);
    assert_eq!(metrics, summary["eval"], "the columns are remembered");
    assert_eq!(metrics["examples"], 32);
    for name in ["accuracy_at_1", "mrr_at_10", "ndcg_at_10", "recall_at_10"] {
        assert!(metrics[name].is_number(), "{metrics}");
    }
    let types: Vec<Value> =
        object(at.join("run/modules.json")).as_array().unwrap().iter().map(|m| m["type"].clone()).collect();
    let class = |name: &str| value!(format!("sentence_transformers.models.{name}"));
    assert_eq!(types, [class("Transformer"), class("Pooling"), class("Normalize")]);
    assert_eq!(object(at.join("run/1_Pooling/config.json"))["pooling_mode_cls_token"], true);
    assert_eq!(object(at.join("run/config.json"))["architectures"], value!(["BertModel"]));
    let found = json("search --model run --corpus pairs.csv --text answer --query bad --top-k 1 --json --quiet", at);
    assert_eq!(found["hits"][0]["text"], "book film", "{found}");
    let message = fail("predict --model run good --quiet", at, 1);
    assert!(message.contains("use `embed`, `similarity` or `search`"), "{message}");
    // Training continues with negatives, low-rank adapters, and several seeds.
    let more = "--epochs 2 --negative wrong --lora 2 --seeds 2 --early-stop 1";
    let summary = json(&train("more", more).replace("--model model", "--model run"), at);
    assert!(summary["best_seed"].is_number() && at.join("more/1_Pooling/config.json").exists(), "{summary}");
    assert_eq!(vectors("embed --model more good --quiet", at)[0].len(), 32);
    let page = fs::read_to_string(at.join("more/report.html")).unwrap();
    assert!(page.contains("ndcg"), "the report has the metric");
    // A model that was trained on pairs may be evaluated with scores.
    fs::write(at.join("scores.tsv"), "a\tb\tscore\ngood\tfilm\t1\nbad\tbook\t2\ngood\tbook\t4\n").unwrap();
    let scored = "evaluate --model more --data scores.tsv --text a --text-pair b --label score --json --quiet";
    assert!(json(scored, at)["spearman"].is_number());
}

#[test]
fn mini_batches_have_the_gradients_of_the_whole_batch() {
    let directory = workshop();
    let at = directory.path();
    pairs(at);
    for (output, more) in [("whole", ""), ("one", "--mini-batch 1"), ("three", "--mini-batch 3")] {
        json(&train(output, &format!("--epochs 2 --negative wrong {more}")), at);
    }
    let steps = |output: &str| -> Vec<(f64, f64)> {
        let steps = lines(at.join(output).join("metrics.jsonl"));
        let number = |step: &Value, name: &str| step[name].as_f64();
        steps.iter().filter_map(|step| Some((number(step, "loss")?, number(step, "grad_norm")?))).collect()
    };
    let whole = steps("whole");
    assert_eq!(whole.len(), 8);
    for output in ["one", "three"] {
        for (step, (found, expected)) in steps(output).iter().zip(&whole).enumerate() {
            // By later steps, the weights have diverged by rounding errors.
            let bound = if step == 0 { 1e-5 } else { 1e-3 };
            let close = |a: f64, b: f64| (a / b - 1.0).abs() < bound;
            assert!(close(found.0, expected.0) && close(found.1, expected.1), "{output}: {found:?} {expected:?}");
        }
    }
}

#[test]
fn scores_of_pairs_are_learned() {
    let directory = workshop();
    let at = directory.path();
    pairs(at);
    let line = train("run", "--label score --epochs 25").replace("pairs.csv", "scores.tsv");
    let line = line.replace("--text question --text-pair answer", "--text a --text-pair b");
    let summary = json(&line, at);
    assert!(summary["eval"]["spearman"].as_f64().unwrap() > 0.7, "{summary}");
    assert_eq!(object(at.join("run/finetune.json"))["embedding"]["score_range"], value!([1.0, 5.0]));
    let metrics = json("evaluate --model run --data scores.tsv --json --quiet --predictions p.jsonl", at);
    assert_eq!(
        (&metrics["spearman"], &metrics["pearson"]),
        (&summary["eval"]["spearman"], &summary["eval"]["pearson"])
    );
    assert!(lines(at.join("p.jsonl"))[0]["similarity"].is_number());
    // A row without a score counts for nothing, wherever it stands.
    let scores = fs::read_to_string(at.join("scores.tsv")).unwrap();
    let (header, rows) = scores.split_once('\n').unwrap();
    fs::write(at.join("gap.tsv"), format!("{header}\na film\ta soup\t\n{rows}")).unwrap();
    let gap = json("evaluate --model run --data gap.tsv --json --quiet", at);
    assert_eq!(
        [&gap["spearman"], &gap["pearson"], &gap["loss"]],
        ["spearman", "pearson", "loss"].map(|name| &metrics[name])
    );
    // A third-party directory can be evaluated, with scores or with pairs.
    fs::remove_file(at.join("run/finetune.json")).unwrap();
    let metrics = json("evaluate --model run --data scores.tsv --text a --text-pair b --json --quiet", at);
    assert!(metrics["recall_at_10"].is_number(), "{metrics}");
    let metrics =
        json("evaluate --model run --data scores.tsv --text a --text-pair b --label score --json --quiet", at);
    assert_eq!(metrics["pearson"], summary["eval"]["pearson"], "{metrics}");
}

/// Older directories of sentence-transformers have the encoder in a folder.
#[test]
fn an_encoder_in_a_folder_is_evaluated_and_trained() {
    let directory = library();
    let at = directory.path();
    let folder = at.join("old/0_Transformer");
    fs::create_dir_all(&folder).unwrap();
    for file in fs::read_dir(at.join("cls")).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    fs::create_dir_all(at.join("old/1_Pooling")).unwrap();
    fs::copy(at.join("cls/1_Pooling/config.json"), at.join("old/1_Pooling/config.json")).unwrap();
    let mut modules = object(folder.join("modules.json"));
    modules[0]["path"] = "0_Transformer".into();
    fs::write(at.join("old/modules.json"), modules.to_string()).unwrap();
    // The oldest versions wrote a file with only their own version beside it.
    fs::write(at.join("old/config.json"), value!({"__version__": "0.3.8"}).to_string()).unwrap();
    let rows: String = TEXTS[..6].iter().zip(&TEXTS[1..]).map(|(a, b)| format!("{a}\t{b}.\t{}\n", a.len())).collect();
    fs::write(at.join("pairs.tsv"), format!("text\tother\tlabel\n{rows}")).unwrap();
    let evaluate =
        |model: &str| json(&format!("evaluate --model {model} --data pairs.tsv --text-pair other --json --quiet"), at);
    assert_eq!(evaluate("old"), evaluate("cls"));
    for options in ["--task embedding --text-pair other", "--task regression"] {
        let train = |model: &str| {
            let data = "--train pairs.tsv --eval pairs.tsv --epochs 1 --max-seq-len 8 --device flex";
            json(&format!("train {options} --model {model} {data} --json --quiet -o run --overwrite"), at);
            (
                fs::read(at.join("run/model.safetensors")).unwrap(),
                json("evaluate --model run --data pairs.tsv --json --quiet", at),
            )
        };
        assert!(train("old") == train("cls"), "{options}");
    }
}

/// Compares with the evaluators of sentence-transformers on the same pairs.
#[test]
fn metrics_are_those_of_sentence_transformers() {
    let directory = library();
    let at = directory.path();
    fs::write(at.join("cls/1_Pooling/config.json"), value!({"pooling_mode": "mean"}).to_string()).unwrap();
    fs::write(at.join("cls/sentence_bert_config.json"), "{}").unwrap();
    let golden = &object(golden("golden.json"))["evaluation"];
    let column = |name: &str| golden[name].as_array().unwrap().clone();
    let rows = column("first").into_iter().zip(column("second")).zip(column("scores"));
    let rows = rows.map(|((a, b), score)| format!("{}\t{}\t{score}\n", a.as_str().unwrap(), b.as_str().unwrap()));
    fs::write(at.join("pairs.tsv"), format!("a\tb\tscore\n{}", rows.collect::<String>())).unwrap();
    for (more, part) in [("", "retrieval"), ("--label score", "similarity")] {
        let line = format!("evaluate --model cls --data pairs.tsv --text a --text-pair b {more} --json --quiet");
        let found = json(&line, at);
        for (name, expected) in golden[part].as_object().unwrap().iter().filter(|(name, _)| *name != "recall_at_2") {
            let difference = (found[name].as_f64().unwrap() - expected.as_f64().unwrap()).abs();
            assert!(difference < 1e-5, "{name}: {found} {golden}");
        }
        assert_eq!(found["examples"], 7);
    }
}

#[test]
fn what_cannot_be_learned_is_refused() {
    let directory = workshop();
    let at = directory.path();
    pairs(at);
    for (more, code, expected) in [
        ("--freeze encoder", 2, "--freeze: embeddings come from the encoder"),
        ("--label wrong --negative wrong", 2, "--negative has no effect here: pairs with scores"),
        ("--label wrong --scale 5", 2, "--scale has no effect here: pairs with scores"),
        ("--label wrong", 1, "found \"a book\" in column `wrong`, expected a number"),
        ("--metric spearman", 2, "--metric: found spearman, expected one of accuracy_at_1"),
        ("--scale 0", 2, "--scale: found 0"),
        ("--mini-batch 0", 2, "--mini-batch: found 0"),
        ("--class-weights balanced", 2, "--class-weights"),
    ] {
        let message = fail(&train("run", more), at, code);
        assert!(message.contains(expected), "{more}: {message}");
    }
    let other = "train --task classification --model model --train films.tsv -o run --mini-batch 4";
    assert!(fail(other, at, 2).contains("--mini-batch has no effect here: the task is classification"));
}
