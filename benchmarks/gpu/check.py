"""On a machine with an NVIDIA GPU, in at most 8 minutes: is ours right there, how fast beside PyTorch, and where does its
time go?

usage: check.py FOLDER [SECTION…]

FOLDER holds what `benchmarks/gpu/pack` made. Sections: golden (only where this repository is at the path at which it was
built), right, races, products, counts, memory; all of them by default. Results go to $OUT/gpu.jsonl line by line, as
they come, and a table to the standard output at the end. Needs PyTorch and transformers, and no network.
"""

import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import torch
from transformers import BertConfig, BertForMaskedLM

folder = pathlib.Path(sys.argv[1]).resolve()
sections = sys.argv[2:] or ["golden", "right", "races", "products", "counts", "memory"]
results = pathlib.Path(os.environ.get("OUT", "."))
out = open(results / "gpu.jsonl", "a")
end = time.time() + float(os.environ.get("GPU_CHECK_SECONDS", 470))
SIZES = {"tiny": (2, 128, 2), "mini": (4, 256, 4), "base": (12, 768, 12)}
# The device and the precision of ours, and the precision of PyTorch that it is held against.
WAYS = [("cuda", "bf16", "bf16"), ("cuda", "f32", "tf32"), ("vulkan", "f32", "tf32"), ("vulkan", "f16", "f16")]
if os.environ.get("GPU_CHECK_WAYS"):
    WAYS = [tuple(way.split(":")) for way in os.environ["GPU_CHECK_WAYS"].split(",")]
races = []


def note(**facts):
    out.write(json.dumps(facts) + "\n")
    out.flush()
    print(facts, flush=True)


def attempt(name, work):
    if time.time() > end:
        return note(skipped=name)
    try:
        work()
    except Exception as error:
        note(failed=name, error=repr(error)[:400])


def model(size, dropout):
    layers, hidden, heads = SIZES[size]
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=30522, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return BertForMaskedLM(config)


def rows(batch, tokens):
    dice = random.Random(5)
    row = lambda: [dice.randrange(1000, 30522) for _ in range(tokens)]
    masked = lambda: sorted(dice.sample(range(1, tokens - 1), tokens * 15 // 100))
    labels = lambda: [dice.randrange(1000, 30522) for _ in range(tokens * 15 // 100)]
    return [{"ids": row(), "masked": masked(), "labels": labels()} for _ in range(batch)]


def directory(size, batch, tokens, dropout):
    work = tempfile.mkdtemp()
    model(size, dropout).save_pretrained(work)
    json.dump(rows(batch, tokens), open(f"{work}/batch.json", "w"))
    return work


class Ours:
    """The example `benchmark`, one process for each run; it is killed after 90 seconds without an answer."""

    def __init__(self, work, device, precision, count=None):
        env = dict(os.environ)
        if count:
            env.update(VK_ADD_LAYER_PATH=str(folder), VK_LAYER_PATH=str(folder), VK_INSTANCE_LAYERS="VK_LAYER_count",
                       VKCOUNT_FILE=count)
        self.errors = open(results / "stderr.txt", "a+")
        self.start = self.errors.tell()
        command = [folder / "benchmark", work, f"{work}/batch.json", device, precision]
        self.process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=self.errors, text=True, env=env)

    def ask(self, what):
        guard = threading.Timer(90, self.process.kill)
        guard.start()
        line = ""
        try:
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            pass
        guard.cancel()
        if not line:
            self.errors.seek(self.start)
            lines = [line for line in self.errors.read().splitlines() if line.strip()]
            raise RuntimeError("the worker died: " + " | ".join(lines)[:300])
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


class Torch:
    """Masked positions only, sdpa, fused AdamW, clipping; weights in f32, operations in half precision by autocast."""

    def __init__(self, size, batch, dropout, precision):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.half = {"bf16": torch.bfloat16, "f16": torch.float16}.get(precision)
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        self.model = model(size, dropout).to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, eps=1e-6, fused=True)
        self.ids = torch.tensor([row["ids"] for row in batch], device=self.device)
        labels = torch.full_like(self.ids, -100)
        for index, row in enumerate(batch):
            labels[index, row["masked"]] = torch.tensor(row["labels"], device=self.device)
        self.chosen = (labels != -100).flatten().nonzero().squeeze(1)
        self.labels = labels.flatten()[self.chosen]

    def ask(self, what):
        """Some steps, of which the last one's number is waited for."""
        what, count = (what.split() + ["1"])[:2]
        started = time.perf_counter()
        for _ in range(int(count)):
            value = self.step(what)
        value = value.item()
        return {"ms": (time.perf_counter() - started) * 1e3 / int(count), "value": value}

    def step(self, what):
        half = torch.autocast(self.device, self.half or torch.bfloat16, enabled=self.half is not None)
        if what == "encode":
            self.model.eval()
            with torch.inference_mode(), half:
                return self.model.bert(self.ids).last_hidden_state.mean(1).abs().sum()
        with half:
            hidden = self.model.bert(self.ids).last_hidden_state.flatten(0, 1)[self.chosen]
            loss = torch.nn.functional.cross_entropy(self.model.cls(hidden).float(), self.labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def close(self):
        self.model = self.optimizer = None
        torch.cuda.empty_cache()


def steps(side, count, what="train"):
    return [side.ask(what) for _ in range(count)]


def right():
    """The losses of four steps: without dropout beside PyTorch in f32, with it beside our own CPU path."""
    for dropout in (0.0, 0.1):
        work = directory("mini", 8, 64, dropout)
        cpu = Ours(work, "flex", "f32")
        expected = [answer["value"] for answer in steps(cpu, 4)]
        cpu.close()
        worst = lambda got: max(abs(a["value"] - b) / b for a, b in zip(got, expected))
        if dropout == 0.0:
            theirs = Torch("mini", rows(8, 64), 0.0, "f32")
            note(check="torch f32", worst=worst(steps(theirs, 4)))
            theirs.close()
        for device, precision, _ in WAYS:
            def one():
                ours = Ours(work, device, precision)
                got = steps(ours, 4)
                ours.close()
                note(check=device, precision=precision, dropout=dropout, worst=worst(got), first_s=got[0]["ms"] / 1e3)
            attempt(f"right {device} {precision} {dropout}", one)


def golden():
    """The tests against other tools' numbers, with products of f32 that are not rounded to tf32."""
    env = dict(os.environ, NVIDIA_TF32_OVERRIDE="0")
    # One at a time: where all begin at once, NVIDIA's Vulkan driver loses the device.
    run = subprocess.run([folder / "golden_models", "--test-threads", "1"], capture_output=True, text=True, env=env, timeout=150)
    failures = [line for line in run.stdout.splitlines() if "panicked" in line or line.endswith("FAILED")]
    (results / "golden.txt").write_text(run.stdout + run.stderr)
    note(golden=[line for line in run.stdout.splitlines() if line.startswith("test result")], failures=failures)


def products():
    """Rates of each strategy for the products of BERT-base."""
    for device, precision, seconds in (("cuda", "bf16", 75), ("cuda", "f32", 30), ("vulkan", "f16", 30)):
        if (device, precision) in [way[:2] for way in WAYS] and time.time() < end:
            run = subprocess.run([folder / "product_rates", device, precision, str(seconds)], capture_output=True,
                                 text=True, timeout=seconds + 60)
            lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
            for line in lines:
                out.write(json.dumps({"products": device, "precision": precision, **line}) + "\n")
            out.flush()
            best = {}
            for line in lines:
                if line.get("tflops", 0) > best.get(line.get("product"), {"tflops": 0})["tflops"]:
                    best[line["product"]] = line
            for name, line in best.items():
                print(device, precision, name, line["strategy"], line["tflops"], line["us"], flush=True)
            if run.returncode:
                note(failed="products", error=run.stderr[-300:])


def counts():
    """What one Vulkan step asks of the driver; it must be what it asks of the software driver."""
    work = directory("mini", 8, 64, 0.1)
    file = tempfile.mktemp()
    ours = Ours(work, "vulkan", "f32", count=file)
    steps(ours, 4)
    ours.close()
    lines = [dict(part.split("=") for part in line.split()[1:]) for line in open(file)]
    wanted = ("dispatches", "submits", "uploads", "upload_bytes", "downloads", "waits")
    note(counts=[{key: line[key] for key in wanted} for line in lines[:12]])


def race(size, batch, tokens, what, way):
    device, precision, precision_of_torch = way
    work, data = directory(size, batch, tokens, 0.1), rows(batch, tokens)
    theirs, ours = Torch(size, data, 0.1, precision_of_torch), Ours(work, device, precision)
    our_what = "encode-bf16" if (what, precision) == ("encode", "bf16") else what
    steps(theirs, 5, what)
    warm = time.time()
    steps(ours, 8, our_what)
    warm = time.time() - warm
    a, b = [], []
    for _ in range(4):
        a.append(theirs.ask(f"{what} 8")["ms"])
        b.append(ours.ask(f"{our_what} 8")["ms"])
    peak = ours.ask("peak")["value"]
    ours.close()
    theirs.close()
    ratio = statistics.median(a) / statistics.median(b)
    fact = dict(race=what, size=size, batch=batch, tokens=tokens, device=device, precision=precision,
                torch=precision_of_torch, torch_ms=statistics.median(a), ours_ms=statistics.median(b), ratio=ratio,
                spread=[min(b), max(b)], warm_s=warm, host_peak_mb=peak)
    races.append(fact)
    note(**fact)


def all_races():
    for size, batch, tokens, what in (("base", 32, 128, "train"), ("mini", 32, 128, "train"), ("base", 32, 128, "encode"),
                                      ("base", 256, 128, "train")):
        # Encoders compute in f32 or bf16.
        for way in [way for way in WAYS if (what, way[1]) != ("encode", "f16")]:
            attempt(f"race {what} {size} {batch} {way[0]} {way[1]}", lambda: race(size, batch, tokens, what, way))


def memory():
    """Does not grow, and losses stay finite."""
    work = directory("mini", 32, 128, 0.1)
    ours = Ours(work, *WAYS[0][:2])
    query = "nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits"
    used = lambda: int(subprocess.getoutput(query).split()[0])
    steps(ours, 50)
    first = used()
    last = steps(ours, 400)[-1]["value"]
    note(memory_mb=[first, used()], loss=last)
    ours.close()


query = "nvidia-smi --query-gpu=name,driver_version,pcie.link.gen.max --format=csv,noheader"
note(gpu=subprocess.getoutput(query), torch=torch.__version__, host=os.cpu_count())
work = {"golden": golden, "right": right, "races": all_races, "products": products, "counts": counts, "memory": memory}
for section in sections:
    attempt(section, work[section])
print("\n| | size | batch | device | ours, ms | PyTorch, ms | ratio |\n|---|---|---|---|---|---|---|")
for fact in races:
    print(f"| {fact['race']} | {fact['size']} | {fact['batch']}×{fact['tokens']} | {fact['device']} {fact['precision']} | "
          f"{fact['ours_ms']:.1f} | {fact['torch']} {fact['torch_ms']:.1f} | {fact['ratio']:.2f} |")
