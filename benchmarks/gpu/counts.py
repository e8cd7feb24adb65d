"""Counts what one training step asks of a Vulkan driver, Mesa's software one (lavapipe) included; no GPU is needed.

usage: counts.py BENCHMARK LAYER_FOLDER [DEVICE]

BENCHMARK is `target/debug/examples/benchmark` (`cargo build -p bert-pretrain --features wgpu --example benchmark`), the
folder holds the layer that `benchmarks/gpu/pack` builds. Prints launches, uploads, reads, submissions and waits of a step
in the steady state, for models of two and of four layers, and the difference for one layer.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

SIZES = {"tiny": (2, 128, 2), "mini": (4, 256, 4), "base": (12, 768, 12)}
WANTED = ("dispatches", "copies", "uploads", "upload_bytes", "downloads", "submits", "waits")


def directory(size, batch, tokens, dropout):
    layers, hidden, heads = SIZES[size]
    work = pathlib.Path(tempfile.mkdtemp())
    config = dict(vocab_size=30522, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                  intermediate_size=4 * hidden, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    (work / "config.json").write_text(json.dumps(config))
    dice = random.Random(5)
    masked = max(1, tokens * 15 // 100)
    row = lambda: {"ids": [dice.randrange(1000, 30522) for _ in range(tokens)],
                   "masked": sorted(dice.sample(range(1, tokens - 1), masked)),
                   "labels": [dice.randrange(1000, 30522) for _ in range(masked)]}
    (work / "batch.json").write_text(json.dumps([row() for _ in range(batch)]))
    return work


def step(benchmark, folder, device, size, batch, tokens, dropout):
    """The counts of one step: those of five steps less those of three, over two."""
    work = directory(size, batch, tokens, dropout)

    def total(steps):
        counts = work / f"counts{steps}.txt"
        env = dict(os.environ, VK_ADD_LAYER_PATH=folder, VK_LAYER_PATH=folder, VK_INSTANCE_LAYERS="VK_LAYER_count",
                   VKCOUNT_FILE=str(counts))
        command = [benchmark, str(work), str(work / "batch.json"), device]
        done = subprocess.run(command, input=f"train {steps}\n", text=True, env=env, capture_output=True)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        last = [line for line in counts.read_text().splitlines() if line.startswith(("end", "exit"))][-1]
        return {key: int(value) for key, value in (part.split("=") for part in last.split()[2:])}

    few, many = total(3), total(5)
    return {key: (many[key] - few[key]) / 2 for key in WANTED}


def main():
    benchmark, folder = map(os.path.abspath, sys.argv[1:3])
    device = sys.argv[3] if len(sys.argv) > 3 else "wgpu"
    rows = {}
    for size, batch, tokens, dropout in (
        ("tiny", 2, 32, 0.1), ("mini", 2, 32, 0.1), ("mini", 2, 32, 0.0), ("mini", 32, 128, 0.1)
    ):
        name = f"{size} {batch}×{tokens}, dropout {dropout}"
        rows[name] = step(benchmark, folder, device, size, batch, tokens, dropout)
    print("| a step |", " | ".join(WANTED), "|")
    print("|---" * (len(WANTED) + 1) + "|")
    for name, counts in rows.items():
        print(f"| {name} |", " | ".join(f"{counts[key]:g}" for key in WANTED), "|")
    slope = (rows["mini 2×32, dropout 0.1"]["dispatches"] - rows["tiny 2×32, dropout 0.1"]["dispatches"]) / 2
    print(f"\nlaunches for a layer: {slope:g}")


if __name__ == "__main__":
    main()
