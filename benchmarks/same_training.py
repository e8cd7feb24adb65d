"""transformers' own training on the very examples, weights and hyper-parameters of a bert-pretrain run: losses side by side.

    cargo run --release -p bert-pretrain -- train --corpus C --steps 300 --lr 1e-3 --warmup 0.1 -o runs/ours
    cargo run --release -p bert-pretrain --example training_batches -- 300 \
        train --corpus C --steps 300 --lr 1e-3 --warmup 0.1 -o runs/batches
    python benchmarks/same_training.py runs/batches runs/ours

Dropout draws differ, everything else is the same; prints means over every tenth of the steps.
"""

import json
import pathlib
import statistics
import sys

import torch
from transformers import BertForPreTraining

batches, ours = map(pathlib.Path, sys.argv[1:3])
run = json.loads((ours / "run.json").read_text())
settings, steps = run["settings"], run["steps"]
adam = settings["optimizer"]
if adam["algorithm"] != "adamw":
    sys.exit(f"a run with {adam['algorithm']}: train with --optimizer adamw")
model = BertForPreTraining.from_pretrained(batches / "initial").train()
decayed = [p for n, p in model.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n]
others = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
optimizer = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": adam["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
    betas=(adam["beta1"], adam["beta2"]),
    eps=adam["epsilon"],
)
rates = [record["lr"] for record in map(json.loads, open(ours / "metrics.jsonl")) if "loss" in record]
mine = [record for record in map(json.loads, open(ours / "metrics.jsonl")) if "loss" in record]
theirs = []
for line, rate in zip(open(batches / "batches.jsonl"), rates):
    examples = json.loads(line)
    width = max(len(example["ids"]) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        length = len(example["ids"])
        ids[row, :length] = torch.tensor(example["ids"])
        types[row, example["first_segment"] : length] = 1
        mask[row, :length] = 1
        for place, token in example["masked"]:
            labels[row, place] = token
    is_random = torch.tensor([int(example["is_random_next"]) for example in examples])
    output = model(ids, token_type_ids=types, attention_mask=mask)
    mlm = torch.nn.functional.cross_entropy(output.prediction_logits[labels != -100], labels[labels != -100])
    nsp = torch.nn.functional.cross_entropy(output.seq_relationship_logits, is_random)
    (mlm + nsp).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"] or float("inf"))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    theirs.append({"mlm_loss": mlm.item(), "nsp_loss": nsp.item(), "grad_norm": norm.item()})
    if len(theirs) % 100 == 0:
        print(f"step {len(theirs)}", file=sys.stderr, flush=True)

part = max(1, len(theirs) // 10)
print("steps        mlm ours  theirs   nsp ours  theirs   norm ours  theirs")
for start in range(0, len(theirs) - part + 1, part):
    cells = []
    for name in ("mlm_loss", "nsp_loss", "grad_norm"):
        pair = [statistics.mean(record[name] for record in side[start : start + part]) for side in (mine, theirs)]
        cells.append(f"{pair[0]:9.4f} {pair[1]:7.4f}")
    print(f"{start + 1:5}-{start + part:5} " + "  ".join(cells))
