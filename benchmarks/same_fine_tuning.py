"""transformers' Trainer on the data and with the settings of a bert-finetune run: is ours as good?

    cargo run --release -p bert-finetune -- train --preset mrpc --model M --train train.tsv --eval dev.tsv -o runs/mrpc
    python benchmarks/same_fine_tuning.py mrpc M train.tsv dev.tsv [SEED [EPOCHS]]

Knows sst2, mrpc, stsb (GLUE's own files), conll2003 (two epochs), squad and squad2; needs torch, transformers, accelerate,
scikit-learn, scipy and seqeval. Prints the metrics of each epoch, as `metrics.jsonl` has ours. After the seed may stand a
number of epochs.
"""

import json
import sys

import transformers
from same_question_answering import question_metrics, read_windows
from scipy.stats import pearsonr
from sklearn.metrics import f1_score
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

# Columns of the texts, then of the label.
COLUMNS = {"sst2": [0, 1], "mrpc": [3, 4, 0], "stsb": [7, 8, 9]}

task, model, train_file, eval_file = sys.argv[1:5]
seed = int(sys.argv[5]) if len(sys.argv) > 5 else 42
is_regression, is_tagging, is_answering = task == "stsb", task == "conll2003", task.startswith("squad")
epochs = int(sys.argv[6]) if len(sys.argv) > 6 else 2 if is_tagging else 3
tokenizer = AutoTokenizer.from_pretrained(model)


TAGS = ["O"] + [f"{place}-{kind}" for kind in ("LOC", "MISC", "ORG", "PER") for place in "BI"]
IGNORED = -100


def read_sentences(path):
    """Words and tags as they stand."""
    words, tags = [], []
    for line in open(path, encoding="utf-8"):
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            words.append(columns[0])
            tags.append(columns[3])
        else:
            if words:
                yield words, tags
            words, tags = [], []
    if words:
        yield words, tags


def read_tagged(path):
    """The first piece of each word has its tag, the others none."""
    examples = []
    for words, tags in read_sentences(path):
        encoding = tokenizer(words, is_split_into_words=True, truncation=True, max_length=128)
        places = [None] + encoding.word_ids()
        labels = [
            IGNORED if word is None or word == before else TAGS.index(tags[word])
            for before, word in zip(places, places[1:])
        ]
        examples.append({**encoding, "labels": labels})
    return examples


def read(path):
    if is_tagging:
        return read_tagged(path)
    examples = []
    for line in open(path, encoding="utf-8-sig").read().splitlines()[1:]:
        cells = line.split("\t")
        *texts, label = [cells[column] for column in COLUMNS[task]]
        label = float(label) if is_regression else int(label)
        examples.append({**tokenizer(*texts, truncation=True, max_length=128), "labels": label})
    return examples


def metrics(prediction):
    scores, gold = prediction.predictions, prediction.label_ids
    if is_answering:
        return question_metrics(scores, eval_sources, eval_questions)
    if is_regression:
        return {"pearson": float(pearsonr(scores.squeeze(), gold)[0])}
    if is_tagging:
        from seqeval.metrics import f1_score as entity_f1

        kept = [(row != IGNORED, row, best) for row, best in zip(gold, scores.argmax(2))]
        names = lambda row: [TAGS[tag] for tag in row]  # noqa: E731
        return {
            "f1": float(
                entity_f1([names(row[keep]) for keep, row, _ in kept], [names(best[keep]) for keep, _, best in kept])
            )
        }
    labels = scores.argmax(1)
    return {"accuracy": float((labels == gold).mean()), "f1": float(f1_score(gold, labels))}


transformers.set_seed(seed)
if is_answering:
    train_examples = read_windows(train_file, tokenizer)[0]
    eval_examples, eval_sources, eval_questions = read_windows(eval_file, tokenizer)
else:
    train_examples, eval_examples = read(train_file), read(eval_file)
if is_answering:
    network, collator = AutoModelForQuestionAnswering.from_pretrained(model), None
elif is_tagging:
    network = AutoModelForTokenClassification.from_pretrained(model, num_labels=len(TAGS))
    collator = DataCollatorForTokenClassification(tokenizer)
else:
    network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1 if is_regression else 2)
    collator = None
trainer = Trainer(
    model=network,
    data_collator=collator,
    args=TrainingArguments(
        output_dir="/tmp/same_fine_tuning",
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        learning_rate=5e-5,
        warmup_steps=0.1,
        weight_decay=0.01,
        adam_epsilon=1e-6,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        seed=seed,
        use_cpu=True,
    ),
    train_dataset=train_examples,
    eval_dataset=eval_examples,
    processing_class=tokenizer,
    compute_metrics=metrics,
)
trainer.train()
print(json.dumps([record for record in trainer.state.log_history if "eval_loss" in record], indent=1))
