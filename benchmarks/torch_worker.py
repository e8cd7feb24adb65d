"""The other side of compare.py: does with PyTorch and transformers what examples/benchmark.rs does with ours.

usage: torch_worker.py MODEL_DIR BATCH.json default|tuned|tuned-bf16|sdpa|eager|sdpa-bf16

The ways that end with bf16 compute under autocast.
"""

import json
import sys
import time

import torch
from transformers import BertForMaskedLM, BertModel

directory, batch_file, way = sys.argv[1:4]
is_bf16, is_tuned = way.endswith("bf16"), way.startswith("tuned")
torch.set_num_threads(int(sys.argv[4]))
rows = json.load(open(batch_file))
longest = max(len(row["ids"]) for row in rows)
ids = torch.zeros(len(rows), longest, dtype=torch.long)
mask = torch.zeros(len(rows), longest, dtype=torch.long)
labels = torch.full((len(rows), longest), -100)
for index, row in enumerate(rows):
    ids[index, : len(row["ids"])] = torch.tensor(row["ids"])
    mask[index, : len(row["ids"])] = 1
    for place, label in zip(row["masked"], row["labels"]):
        labels[index, place] = label
whole = bool(mask.all())

model = encoder = optimizer = None


def parameters_of(model):
    decayed = [p for n, p in model.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n]
    others = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    return [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]


def train():
    global model, optimizer
    if model is None:
        attention = "eager" if way == "eager" else "sdpa"
        model = BertForMaskedLM.from_pretrained(directory, attn_implementation=attention).train()
        optimizer = torch.optim.AdamW(parameters_of(model), lr=1e-4, eps=1e-6, fused=is_tuned)
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        if is_tuned:
            hidden = model.bert(ids, attention_mask=None if whole else mask).last_hidden_state
            chosen = labels != -100
            logits = model.cls(hidden[chosen])
            loss = torch.nn.functional.cross_entropy(logits, labels[chosen])
        else:
            loss = model(ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - started) * 1e3, loss.item()


@torch.inference_mode()
def encode():
    global encoder
    if encoder is None:
        attention = "eager" if way == "eager" else "sdpa"
        encoder = BertModel.from_pretrained(directory, add_pooling_layer=False, attn_implementation=attention).eval()
    started = time.perf_counter()
    total = 0.0
    # Mixed lengths: batches of 32 in the order in which they come, each padded to its longest.
    for start in range(0, len(rows), 32):
        part = slice(start, start + 32)
        width = int(mask[part].sum(1).max())
        attention_mask = mask[part, :width]
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            hidden = encoder(ids[part, :width], attention_mask=None if whole else attention_mask).last_hidden_state
        weights = attention_mask[..., None].float()
        total += ((hidden * weights).sum(1) / weights.sum(1)).abs().sum().item()
    return (time.perf_counter() - started) * 1e3, total


def peak():
    status = open("/proc/self/status").read()
    return 0.0, int(status.split("VmHWM:")[1].split()[0]) / 1024


for line in sys.stdin:
    ms, value = {"train": train, "encode": encode, "peak": peak}[line.strip()]()
    print(json.dumps({"ms": ms, "value": value}), flush=True)
