"""Ours against transformers on PyTorch, ONNX Runtime and candle, on this machine's CPU: training steps and encoding, in
one run, turn by turn.

    python3 -m venv target/bench
    target/bench/bin/pip install torch transformers onnx onnxscript onnxruntime openvino
    target/bench/bin/python benchmarks/compare.py          # builds ours and candle's worker with --release first

Every program has a process of its own and does one step when it is its turn; medians and ratios (above 1: ours is faster)
come as a table and as benchmarks.json. Before anything is timed, both sides compute the same loss (without dropout) and
the same encodings, and must agree.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = {"mini": (4, 256, 4), "small": (4, 512, 8), "base": (12, 768, 12)}
VOCABULARY = 30522
MASKED = 0.15


class Worker:
    """A process that answers one line of JSON for each line of work."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, work):
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker died; see its message above")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def make_model(directory, size, dropout, tokens):
    import torch
    from transformers import BertConfig, BertForMaskedLM

    layers, hidden, heads = SIZES[size]
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=max(512, tokens),
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertForMaskedLM(config).save_pretrained(directory)


def make_onnx(directory, shape):
    """The encoder as ONNX Runtime reads it, for any batch and length; `shape` is that of an example."""
    import torch
    from transformers import BertModel

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertModel.from_pretrained(directory, add_pooling_layer=False, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask):
            return self.bert(input_ids, attention_mask=attention_mask).last_hidden_state

    axes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask", "last_hidden_state")}
    example = torch.ones(shape, dtype=torch.long)
    torch.onnx.export(
        Encoder(),
        (example, example),
        str(directory / "model.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
        dynamic_axes=axes,
        dynamo=False,
    )


def make_batch(path, lengths):
    """Token ids with the frequencies of a language (Zipf's law), 15 % of them masked."""
    rng = random.Random(11)
    rows = []
    for length in lengths:
        ids = [101] + [min(int(1000 * 29.5 ** rng.random()), VOCABULARY - 1) for _ in range(length - 2)] + [102]
        masked = sorted(rng.sample(range(1, length - 1), max(1, round(MASKED * length))))
        rows.append({"ids": ids, "masked": masked, "labels": [ids[place] for place in masked]})
        for place in masked:
            rows[-1]["ids"][place] = 103
    path.write_text(json.dumps(rows))


def mixed_lengths():
    """2,000 texts, most of them short: log-normal, median 24 tokens, at most 256."""
    rng = random.Random(5)
    return [min(256, max(5, int(rng.lognormvariate(3.2, 0.8)))) for _ in range(2000)]


def compare(name, work, size, lengths, ways, options, folder):
    def command(way, *arguments):
        program = {"ours": [str(options.worker)], "candle": [str(options.candle)]}.get(way.removesuffix("-f32"))
        if program:
            return program + [str(argument) for argument in arguments]
        script = "onnx_worker.py" if way.startswith(("onnx", "openvino")) else "torch_worker.py"
        return [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments), way, str(options.threads)]

    batch = folder / "batch.json"
    make_batch(batch, lengths)
    agreement = {}
    for dropout in (0.0, 0.1):
        model = folder / f"{size}-{dropout}"
        if not model.exists():
            make_model(model, size, dropout, max(lengths))
        if any(way.startswith(("onnx", "openvino")) for way in ways) and not (model / "model.onnx").exists():
            make_onnx(model, (2, 16))
    # In a precision other than f32, "ours-f32" is our own program in f32, and the others choose theirs by their names.
    def work_of(way):
        return work if way == "ours" else work.split("-")[0]

    # The same work? Without dropout, the first loss or the encodings must agree.
    bound = 1e-4 if "-" not in work else 2e-2
    plain = [folder / f"{size}-0.0", batch]
    mine = Worker(command("ours", *plain))
    expected = mine.ask(work)["value"]
    mine.close()
    for way in ways:
        other = Worker(command(way, *plain))
        agreement[way] = abs(other.ask(work_of(way))["value"] - expected) / abs(expected)
        other.close()
        if agreement[way] > bound:
            raise SystemExit(f"{name}: {way} and ours do not compute the same: {agreement[way]:.1e} apart")
    timed = [folder / f"{size}-0.1", batch]
    workers = {}
    for way in ["ours", *ways]:
        workers[way] = Worker(command(way, *timed))
        workers[way].ask("peak")  # waits until it is ready: some write files next to the model
    times = {way: [] for way in workers}
    for turn in range(options.turns + options.warmup):
        for way, worker in workers.items():
            time.sleep(0.2)  # for the threads of the one before to fall asleep
            ms = worker.ask(work_of(way))["ms"]
            if turn >= options.warmup:
                times[way].append(ms)
    peak = {way: worker.ask("peak")["value"] for way, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    median = {way: statistics.median(values) for way, values in times.items()}
    result = {"name": name, "work": work, "ms": median, "peak_mb": peak, "difference": agreement, "times": times}
    result["ratio"] = {way: median[way] / median["ours"] for way in ways}
    cells = [f"{name:24} ours {median['ours']:8.0f} ms {peak['ours']:6.0f} MB"]
    for way in ways:
        cells.append(f"{way} {median[way]:8.0f} ms {peak[way]:6.0f} MB = {result['ratio'][way]:.2f}")
    print(" | ".join(cells), flush=True)
    return result


def without_padding(name, size, lengths, options, folder):
    """What the texts of all lengths would cost if none were padded: 32 texts of each length, by that length's share."""
    model, batch, many = folder / f"{size}-0.1", folder / "batch.json", 32

    def worker(lengths):
        make_batch(batch, lengths)
        started = Worker([str(options.worker), str(model), str(batch)])
        started.ask("encode")  # loads the model, and has read the batch before the next one is written
        return started

    if not model.exists():
        make_model(model, size, 0.1, max(lengths))
    mixed = worker(lengths)
    turns, ideal = [], 0.0
    for index, length in enumerate(sorted(set(lengths))):
        equal = worker([length] * many)
        ideal += min(equal.ask("encode")["ms"] for _ in range(2)) * lengths.count(length) / many
        equal.close()
        if index % 25 == 0:
            turns.append(mixed.ask("encode")["ms"])
    mixed.close()
    best = min(turns)
    print(f"{name:24} ours {best:8.0f} ms, without padding {ideal:8.0f} ms = {best / ideal:.2f}", flush=True)
    return {"name": name, "ms": {"ours": best, "without padding": ideal}, "times": turns}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=pathlib.Path, help="ours, already built (default: cargo build --release)")
    parser.add_argument("--candle", type=pathlib.Path, help="candle's worker, already built (default: as ours)")
    parser.add_argument("--turns", type=int, default=7, help="timed turns of each program")
    parser.add_argument("--warmup", type=int, default=2, help="turns before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--ways", default="sdpa,eager,onnx,candle", help="whom to compare encoding with")
    parser.add_argument("--only", default="", help="the comparisons whose names contain this")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("benchmarks.json"))
    options = parser.parse_args()
    if options.worker is None:
        build = ["cargo", "build", "--release", "-p", "bert-pretrain", "--example", "benchmark"]
        subprocess.run(build, cwd=ROOT, check=True)
        options.worker = ROOT / "target" / "release" / "examples" / "benchmark"
    encoders = options.ways.split(",")
    if options.candle is None:
        options.candle = ROOT / "benchmarks" / "candle" / "target" / "release" / "candle-worker"
        if "candle" in encoders and not options.only.startswith("train"):
            subprocess.run(["cargo", "build", "--release"], cwd=ROOT / "benchmarks" / "candle", check=True)
    shapes = [("mini", 32, 128), ("small", 32, 128), ("base", 8, 128), ("mini", 8, 512)]
    plan = [(f"train {s} {b}x{t}", "train", s, [t] * b, ["default", "tuned"]) for s, b, t in shapes]
    plan += [(f"encode {s} {b}x{t}", "encode", s, [t] * b, encoders) for s, b, t in shapes]
    plan += [(f"encode base 1x{t}", "encode", "base", [t], encoders) for t in (128, 16)]
    for precision, ways in [("bf16", ["ours-f32", "sdpa-bf16"]), ("int8", ["ours-f32", "onnx-int8", "openvino"])]:
        for b, t in [(8, 128), (1, 128), (1, 16)]:
            plan.append((f"{precision} base {b}x{t}", f"encode-{precision}", "base", [t] * b, ways))
    for s, b, t in shapes:
        plan.append((f"train bf16 {s} {b}x{t}", "train-bf16", s, [t] * b, ["ours-f32", "tuned-bf16"]))
    plan.append(("encode mini mixed", "encode", "mini", mixed_lengths(), encoders))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, work, size, lengths, ways in plan:
            if options.only in name:
                results.append(compare(name, work, size, lengths, ways, options, pathlib.Path(folder)))
                options.output.write_text(json.dumps(results, indent=1))
        name = "mini mixed, padding"
        if options.only in name:
            results.append(without_padding(name, "mini", mixed_lengths(), options, pathlib.Path(folder)))
            options.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
