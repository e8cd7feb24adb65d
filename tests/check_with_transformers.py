"""Checks that a directory which we saved is the same model for Hugging Face transformers.

    python -m venv venv && venv/bin/pip install torch transformers safetensors
    cargo build && venv/bin/python tests/check_with_transformers.py runs/pretrain [target/debug]

Loads it as BertForPreTraining and with AutoTokenizer: no key may be missing or unexpected. Then compares what both say:
embeddings of every token, fill-mask, next sentence. Exits with 1 at the first difference above 1e-4.
"""

import json
import subprocess
import sys

import torch
from transformers import AutoModel, AutoTokenizer, BertForPreTraining

BOUND = 1e-4
TEXTS = ["Anna lives in Tavik, a city in Norland.", "Café 北京 👍 unknown!", "the [MASK] was delicious and the [MASK] was cosy."]


def ours(program, *arguments):
    """The JSON lines that one of our programs prints."""
    command = [f"{binaries}/{program}", *arguments, "--quiet", "--device", "flex"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def same(what, found, expected):
    difference = (torch.as_tensor(found) - expected).abs().max().item()
    print(f"{what}: largest difference {difference:.1e}")
    if not difference < BOUND:
        sys.exit(f"{what}: differs by more than {BOUND}")


directory, binaries = sys.argv[1], (sys.argv + ["target/debug"])[2]
model, report = BertForPreTraining.from_pretrained(directory, output_loading_info=True)
for kind in ["missing_keys", "unexpected_keys", "mismatched_keys"]:
    print(f"{kind}: {sorted(report[kind])}")
    if report[kind]:
        sys.exit(1)
AutoModel.from_pretrained(directory)
tokenizer = AutoTokenizer.from_pretrained(directory)
model.eval()

with torch.no_grad():
    for text, line in zip(TEXTS, ours("bert-finetune", "embed", "--model", directory, *TEXTS, "--pooling", "none")):
        batch = tokenizer(text, return_tensors="pt")
        tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
        assert line["tokens"] == tokens, (line["tokens"], tokens)
        same(f"embed {text!r}", line["embedding"], model.bert(**batch).last_hidden_state[0])

    [filled] = ours("bert-pretrain", "fill-mask", "--model", directory, TEXTS[2], "--json")
    probabilities = model(**tokenizer(TEXTS[2], return_tensors="pt")).prediction_logits[0].softmax(-1)
    for mask in filled["masks"]:
        ids = [prediction["id"] for prediction in mask["predictions"]]
        same(f"fill-mask {mask['position']}", [p["probability"] for p in mask["predictions"]], probabilities[mask["position"], ids])

    [next_sentence] = ours("bert-pretrain", "next-sentence", "--model", directory, "--first", TEXTS[0], "--second", TEXTS[1], "--json")
    logits = model(**tokenizer(TEXTS[0], TEXTS[1], return_tensors="pt")).seq_relationship_logits[0]
    same("next-sentence", next_sentence["is_next"], logits.softmax(-1)[0])
print("the same model")
