"""transformers' Trainer on the data and with the settings of a bert-finetune run: is ours as good?

    cargo run --release -p bert-finetune -- train --preset mrpc --model M --train train.tsv --eval dev.tsv -o runs/mrpc
    python benchmarks/same_fine_tuning.py mrpc M train.tsv dev.tsv [SEED]

Knows sst2, mrpc and stsb (GLUE's own files); needs torch, transformers, accelerate, scikit-learn and scipy. Prints the
metrics of each epoch, as `metrics.jsonl` has ours.
"""

import json
import sys

import transformers
from scipy.stats import pearsonr
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

# Columns of the texts, then of the label.
COLUMNS = {"sst2": [0, 1], "mrpc": [3, 4, 0], "stsb": [7, 8, 9]}

task, model, train_file, eval_file = sys.argv[1:5]
seed = int(sys.argv[5]) if len(sys.argv) > 5 else 42
is_regression = task == "stsb"
tokenizer = AutoTokenizer.from_pretrained(model)


def read(path):
    examples = []
    for line in open(path, encoding="utf-8-sig").read().splitlines()[1:]:
        cells = line.split("\t")
        *texts, label = [cells[column] for column in COLUMNS[task]]
        label = float(label) if is_regression else int(label)
        examples.append({**tokenizer(*texts, truncation=True, max_length=128), "labels": label})
    return examples


def metrics(prediction):
    scores, gold = prediction.predictions, prediction.label_ids
    if is_regression:
        return {"pearson": float(pearsonr(scores.squeeze(), gold)[0])}
    labels = scores.argmax(1)
    return {"accuracy": float((labels == gold).mean()), "f1": float(f1_score(gold, labels))}


transformers.set_seed(seed)
trainer = Trainer(
    model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=1 if is_regression else 2),
    args=TrainingArguments(
        output_dir="/tmp/same_fine_tuning",
        num_train_epochs=3,
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
    train_dataset=read(train_file),
    eval_dataset=read(eval_file),
    processing_class=tokenizer,
    compute_metrics=metrics,
)
trainer.train()
print(json.dumps([record for record in trainer.state.log_history if "eval_loss" in record], indent=1))
