"""sentence-transformers' trainer on the data and with the settings of a bert-finetune run: is ours as good?

    cargo build --workspace
    python benchmarks/same_embedding_training.py scores MODEL train.tsv dev.tsv [EPOCHS [SEED]]      (STS-B's own files)
    python benchmarks/same_embedding_training.py pairs MODEL train.json dev.json [EPOCHS [SEED]]     (SQuAD: question, context)

Trains MODEL with both, one after the other, each in a process of its own: on scores with the mean squared error of cosines,
on pairs with in-batch negatives at scale 20; batches of 32, AdamW at 5e-5 with 10 % warmup. Needs sentence-transformers,
datasets and accelerate. Prints the metric on the second file before and after training (Spearman's correlation; MRR at 10
of a search among all contexts), the time of a step, and the peak memory of each process.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "target/debug/bert-finetune"
BATCH = 32
METRIC = {"scores": "spearman", "pairs": "mrr_at_10"}


def read(kind, path):
    """Rows of two texts and, for scores, a number from 0 to 5."""
    text = Path(path).read_text(encoding="utf-8-sig")
    if kind == "scores":
        rows = [line.split("\t") for line in text.splitlines()[1:]]
        return [[row[7], row[8], float(row[9])] for row in rows if len(row) > 9]
    paragraphs = [paragraph for article in json.loads(text)["data"] for paragraph in article["paragraphs"]]
    return [[question["question"], part["context"]] for part in paragraphs for question in part["qas"]]


def write(rows, path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["first", "second", "score"][: len(rows[0])], *rows])


def peak(command):
    """Output, seconds, and peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return output, time.perf_counter() - start, usage.ru_maxrss / 1e3


def ours(kind, model, epochs, seed, directory):
    score = ["--label", "score"] if kind == "scores" else []
    columns = ["--text", "first", "--text-pair", "second", *score]
    data = [directory / "train.csv", directory / "dev.csv"]
    evaluate = [PROGRAM, "evaluate", "--task", "embedding", "--model", model, "--data", data[1], *columns]
    before = json.loads(peak([*evaluate, "--json", "--quiet"])[0])[METRIC[kind]]
    train = [PROGRAM, "train", "--task", "embedding", "--model", model, "--train", data[0], "--eval", data[1], *columns]
    options = ["--epochs", epochs, "--batch-size", BATCH, "--seed", seed, "-o", directory / "run", "--json", "--quiet"]
    output, _, memory = peak([*train, *options, "--device", "flex"])
    lines = [json.loads(line) for line in (directory / "run/metrics.jsonl").read_text().splitlines()]
    steps = max(line["step"] for line in lines)
    summary = json.loads(output)
    return before, summary["eval"][METRIC[kind]], summary["seconds"] / steps, memory


def theirs(kind, model, epochs, seed, directory):
    command = [sys.executable, __file__, "--worker", kind, model, epochs, seed, directory]
    output, _, memory = peak(command)
    return *json.loads(output.splitlines()[-1]), memory


def worker(kind, model, epochs, seed, directory):
    import transformers
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator
    from sentence_transformers.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss
    from sentence_transformers.training_args import BatchSamplers

    transformers.set_seed(int(seed))
    network = SentenceTransformer(model, device="cpu")
    rows = {part: list(csv.DictReader(open(f"{directory}/{part}.csv", encoding="utf-8"))) for part in ("train", "dev")}
    first, second = ([row[name] for row in rows["dev"]] for name in ("first", "second"))
    if kind == "scores":
        scores = [float(row["score"]) for row in rows["dev"]]
        evaluator, name = EmbeddingSimilarityEvaluator(first, second, scores, main_similarity="cosine"), "spearman_cosine"
        loss = CosineSimilarityLoss(network)
    else:
        contexts = {text: str(number) for number, text in enumerate(dict.fromkeys(second))}
        questions = {text: str(number) for number, text in enumerate(dict.fromkeys(first))}
        relevant = {}
        for question, context in zip(first, second):
            relevant.setdefault(questions[question], set()).add(contexts[context])
        swapped = [{number: text for text, number in texts.items()} for texts in (questions, contexts)]
        evaluator, name = InformationRetrievalEvaluator(*swapped, relevant, mrr_at_k=[10]), "cosine_mrr@10"
        loss = MultipleNegativesRankingLoss(network, scale=20)
    data = {name: [row[name] for row in rows["train"]] for name in ("first", "second")}
    if kind == "scores":
        data["score"] = [float(row["score"]) / 5 for row in rows["train"]]
    before = evaluator(network)[name]
    trainer = SentenceTransformerTrainer(
        model=network,
        args=SentenceTransformerTrainingArguments(
            output_dir=f"{directory}/theirs",
            num_train_epochs=int(epochs),
            per_device_train_batch_size=BATCH,
            learning_rate=5e-5,
            warmup_steps=0.1,
            weight_decay=0.01,
            adam_epsilon=1e-6,
            batch_sampler=BatchSamplers.NO_DUPLICATES if kind == "pairs" else BatchSamplers.BATCH_SAMPLER,
            save_strategy="no",
            report_to=[],
            seed=int(seed),
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(data),
        loss=loss,
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    print(json.dumps([before, evaluator(network)[name], seconds / trainer.state.global_step]))


def main():
    if sys.argv[1] == "--worker":
        return worker(*sys.argv[2:])
    kind, model, train, dev, *rest = sys.argv[1:]
    epochs, seed = [*rest, *["1", "42"][len(rest) :]]
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        for part, path in (("train", train), ("dev", dev)):
            write(read(kind, path), directory / f"{part}.csv")
        print(f"| | {METRIC[kind]} before | after {epochs} epoch(s) | seconds a step | peak MB |\n|---|---|---|---|---|")
        for name, run in (("bert-finetune", ours), ("sentence-transformers", theirs)):
            before, after, step, memory = run(kind, model, epochs, seed, directory)
            print(f"| {name} | {before:.4f} | {after:.4f} | {step:.3f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
