"""Embedding a file of texts with bert-finetune, sentence-transformers and fastembed (ONNX Runtime), in f32 and int8.

    cargo build --workspace
    python benchmarks/embed.py path/to/all-MiniLM-L6-v2 TEXTS [COUNT [ROUNDS]]

TEXTS is a file with a text in the first column of each line (ag_news/train.tsv); COUNT of them (default 5,000) are embedded
by each program in turn, ROUNDS times (default 3), each time in a process of its own on the same two cores. Needs
sentence-transformers; fastembed takes part if it is installed (with torch, onnx and onnxscript, which export the model).
Prints the median time of the whole process, of the embedding alone, and the greatest difference from
sentence-transformers' vectors.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).resolve().parent.parent / "target/debug/bert-finetune"
CORES = sorted(os.sched_getaffinity(0))[:2]


def ours(model, texts, output, precision):
    command = [PROGRAM, "embed", "--model", model, "--input", texts, "--device", "flex", "--quiet", "-o", output]
    command += ["--precision", precision]
    subprocess.run([str(part) for part in command], check=True)


def sentence_transformers(model, texts, output):
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(model, device="cpu")
    lines = Path(texts).read_text().splitlines()
    start = time.perf_counter()
    vectors = network.encode(lines)
    print(json.dumps(time.perf_counter() - start))
    np.save(output, vectors)


def export(model, directory):
    """Writes the encoder as fastembed reads it: `model.onnx` beside the tokenizer's files."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    tokenizer.save_pretrained(directory)
    network.config.save_pretrained(directory)
    example = dict(tokenizer(["a text", "another text"], return_tensors="pt", padding=True))
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.network(input_ids, attention_mask, token_type_ids).last_hidden_state

    dynamic = {name: {0: "batch", 1: "tokens"} for name in names}
    torch.onnx.export(
        Encoder(), tuple(example[name] for name in names), f"{directory}/model.onnx", input_names=names,
        output_names=["last_hidden_state"], dynamic_axes=dynamic, dynamo=False,
    )  # fmt: skip


def fastembed(model, texts, output):
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "benchmark/model"
    TextEmbedding.add_custom_model(
        model=name, pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf=name), dim=384,
        model_file="model.onnx",
    )  # fmt: skip
    network = TextEmbedding(name, specific_model_path=model, threads=len(CORES))
    lines = Path(texts).read_text().splitlines()
    start = time.perf_counter()
    vectors = np.stack(list(network.embed(lines)))
    print(json.dumps(time.perf_counter() - start))
    np.save(output, vectors)


def quantize(directory, output):
    """Copies an exported model with weights of 8 bits, as fastembed's own quantized models have."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    shutil.copytree(directory, output)
    quantize_dynamic(directory / "model.onnx", output / "model.onnx", weight_type=QuantType.QInt8, per_channel=True)


def run(name, model, texts, output):
    """Seconds of the process, and those of the embedding alone if it says so."""
    name, _, precision = name.partition(" ")
    command = [sys.executable, __file__, "--worker", name, model, texts, output]
    start = time.perf_counter()
    if name == "bert-finetune":
        ours(model, texts, output, precision or "f32")
        return time.perf_counter() - start, None
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start, json.loads(done.stdout.splitlines()[-1])


def main():
    if sys.argv[1] == "--worker":
        return {"sentence-transformers": sentence_transformers, "fastembed": fastembed}[sys.argv[2]](*sys.argv[3:])
    model, source = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    count, rounds = (int(value) for value in [*sys.argv[3:], *["5000", "3"][len(sys.argv) - 3 :]])
    os.sched_setaffinity(0, CORES)
    os.environ["OMP_NUM_THREADS"] = str(len(CORES))
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        lines = [line.split("\t")[0].strip() for line in source.read_text(encoding="utf-8").splitlines()]
        texts = [line for line in lines if line][:count]
        (directory / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
        models = {"bert-finetune": model, "bert-finetune int8": model, "sentence-transformers": model}
        try:
            import fastembed as _  # noqa: F401

            (directory / "onnx").mkdir()
            export(model, directory / "onnx")
            quantize(directory / "onnx", directory / "int8")
            models |= {"fastembed": directory / "onnx", "fastembed int8": directory / "int8"}
        except ImportError as error:
            print(f"skipped: fastembed: {error}", file=sys.stderr)
        times = {name: [] for name in models}
        for _round in range(rounds):
            for name, path in models.items():
                times[name].append(run(name, path, directory / "texts.txt", directory / f"{name}.npy"))
        expected = np.load(directory / "sentence-transformers.npy")
        print(f"{len(texts)} texts, medians of {rounds} rounds\n\n| | process s | embedding s | difference |\n|---|---|---|---|")
        for name, seconds in times.items():
            whole, alone = zip(*seconds)
            alone = "" if alone[0] is None else f"{statistics.median(alone):.1f}"
            difference = np.abs(np.load(directory / f"{name}.npy") - expected).max()
            print(f"| {name} | {statistics.median(whole):.1f} | {alone} | {difference:.1e} |")


if __name__ == "__main__":
    main()
