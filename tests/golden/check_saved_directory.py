"""Checks that Hugging Face transformers reads a directory which our programs saved as the same model.

    python -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tests/golden/check_saved_directory.py DIR [--outputs FILE]

Loads DIR as the class that its config.json names (BertForPreTraining where it names none), with AutoModel and with
AutoTokenizer. No key may be missing, unexpected or of another shape, and the tokenizer must fit the model and come back
the same after it is saved and after a text is decoded. Needs no network, and none of our programs:
tests/check_with_transformers.py is the one that runs them and compares what they print.

FILE is a safetensors file with `input_ids`, `token_type_ids` and `attention_mask` ([rows, tokens], i64; multiple choice
[rows, choices, tokens]) and with any of the outputs that our program computed for them: `mlm_logits`, `nsp_logits`, `logits`,
`start_logits`, `end_logits`, `last_hidden_state`, `pooler_output` (f32). Each must agree within 1e-4; the largest difference
of each is printed.

Exits with 0 if all is the same, else with 1 after everything was looked at.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # a file that DIR lacks must be an error, never a download

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

BOUND = 1e-4
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
TEXTS = ["a", "The quick brown fox.", "Café naïve 北京 👍 don't [MASK] 3.14", "", "x" * 300]

failures = []


def check(holds, what):
    """Prints what is wrong and goes on, so that one run names every fault."""
    if not holds:
        print(f"WRONG: {what}")
        failures.append(what)


def load(kind, directory, allowed_missing=()):
    # Mismatched shapes are reported with the rest instead of ending the run at the first.
    model, report = kind.from_pretrained(
        directory, output_loading_info=True, ignore_mismatched_sizes=True, attn_implementation="eager", dtype=torch.float32
    )
    print(f"{type(model).__name__}: {sum(parameter.numel() for parameter in model.parameters())} parameters")
    for key, found in report.items():
        found = sorted(map(str, found))
        if key == "missing_keys":
            found = [name for name in found if not name.startswith(tuple(allowed_missing))]
        if kind is AutoModel and key == "unexpected_keys":
            continue  # AutoModel is the bare encoder: the heads are left over by design
        print(f"  {key}: {found}")
        check(not found, f"{type(model).__name__}: {key}: {found}")
    for name, parameter in model.named_parameters():
        check(bool(torch.isfinite(parameter).all()), f"{name} is not finite")
    return model.eval()


def check_tokenizer(directory, configuration):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    print(f"{type(tokenizer).__name__}: {len(tokenizer)} tokens")
    check(len(tokenizer) <= configuration.vocab_size,
          f"the tokenizer has {len(tokenizer)} tokens, the model only {configuration.vocab_size}")
    for role in ["pad", "unk", "cls", "sep", "mask"]:
        check(getattr(tokenizer, f"{role}_token_id") is not None, f"the tokenizer has no {role}_token")
    if tokenizer.pad_token_id is not None:
        check(tokenizer.pad_token_id == configuration.pad_token_id,
              f"pad_token_id: tokenizer {tokenizer.pad_token_id}, model {configuration.pad_token_id}")
    with tempfile.TemporaryDirectory() as copy:
        tokenizer.save_pretrained(copy)
        again = AutoTokenizer.from_pretrained(copy)
    for text in TEXTS:
        encoded = tokenizer(text, "second", max_length=64, truncation="only_first")
        ids = encoded["input_ids"]
        check(ids[0] == tokenizer.cls_token_id and ids.count(tokenizer.sep_token_id) == 2 and ids[-1] == tokenizer.sep_token_id,
              f"not [CLS] A [SEP] B [SEP]: {text!r} is {tokenizer.convert_ids_to_tokens(ids)}")
        check(sorted(set(encoded["token_type_ids"])) == [0, 1], f"token types of a pair: {encoded['token_type_ids']}")
        check(again(text)["input_ids"] == tokenizer(text)["input_ids"], f"saved again, the tokenizer splits {text!r} otherwise")
        # Decoding loses case and accents, so it is what was decoded that must come back the same. Text with [UNK] does too.
        once = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=False)
        bare = once.removeprefix(tokenizer.cls_token).removesuffix(tokenizer.sep_token).strip()
        check(tokenizer(bare)["input_ids"] == tokenizer(text)["input_ids"], f"{text!r} decodes to {bare!r}, which is split otherwise")


def compare(model, file):
    tensors = load_file(file)
    absent = [name for name in INPUTS if name not in tensors]
    check(not absent, f"{file}: no tensor {absent}")
    if absent:
        return
    batch = {name: tensors.pop(name).long() for name in INPUTS}
    with torch.no_grad():
        output = model(**batch)
        # Multiple choice has a dimension more, of which the encoder knows nothing.
        encoder = getattr(model, "bert", model)(**{name: ids.flatten(0, -2) for name, ids in batch.items()})
    expected = {
        "mlm_logits": getattr(output, "prediction_logits", None),
        "nsp_logits": getattr(output, "seq_relationship_logits", None),
        "logits": getattr(output, "logits", None),
        "start_logits": getattr(output, "start_logits", None),
        "end_logits": getattr(output, "end_logits", None),
        "last_hidden_state": encoder.last_hidden_state,
        "pooler_output": encoder.pooler_output,
    }
    check(tensors, f"{file}: no outputs to compare")
    for name, found in sorted(tensors.items()):
        wanted = expected.get(name)
        if wanted is None:
            check(False, f"{file}: {type(model).__name__} gives no {name}")
        elif found.shape != wanted.shape:
            check(False, f"{name}: shape {list(found.shape)}, transformers {list(wanted.shape)}")
        else:
            difference = (found.float() - wanted).abs().max().item()
            print(f"{name}: largest difference {difference:.2e}")
            check(difference <= BOUND, f"{name}: differs by {difference:.2e}, more than {BOUND}")  # NaN is refused too


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--outputs", type=Path, help="safetensors file with inputs and what our program computed for them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")

    if not (arguments.directory / "config.json").is_file():
        sys.exit(f"{arguments.directory} has no config.json")
    configuration = json.loads((arguments.directory / "config.json").read_text())
    name = (configuration.get("architectures") or ["BertForPreTraining"])[0]
    if not name.startswith("Bert") or not hasattr(transformers, name):
        sys.exit(f"config.json: architectures names {name}, which is no BERT model of transformers")
    model = load(getattr(transformers, name), arguments.directory)
    # Transformers builds these heads without a pooler, so AutoModel, which has one, may miss it.
    has_pooler = getattr(getattr(model, "bert", model), "pooler", None) is not None
    load(AutoModel, arguments.directory, allowed_missing=() if has_pooler else ("pooler.",))
    check_tokenizer(arguments.directory, model.config)
    if arguments.outputs:
        compare(model, arguments.outputs)
    print("the same model" if not failures else f"{len(failures)} thing(s) wrong")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
