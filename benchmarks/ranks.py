"""Training on two ranks with a network of given speed between them: how much of the exchange is hidden, and at what cost.

    cargo build -p bert-pretrain --features mpi
    python3 benchmarks/ranks.py [STEPS]

Needs Linux, root, iproute2 and Open MPI. Each rank has a network namespace, a host name, and one core of its own; a pair of
virtual interfaces joins them, held to a rate in each direction. The first rank's directory is hidden from the second one,
so that they share no files. For every rate and option, prints the median speed over STEPS (default: 24) steps of mini with 16×128
tokens for each rank, the ratio to two processes that exchange nothing, and whether losses and weights are those of one
process. Nothing else should run on the machine.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/bert-pretrain"
CORES = sorted(os.sched_getaffinity(0))[:2]
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 24
OPTIONS = ["", "--bf16-exchange", "--shard-optimizer"]


def sh(command):
    subprocess.run(command, shell=True, check=True)


def network(rate):
    """Joins two namespaces by a link of `rate` (None: as fast as the machine)."""
    sh("for i in 0 1; do ip netns del rank$i 2>/dev/null; done; ip netns add rank0; ip netns add rank1")
    sh("ip link add link0 netns rank0 type veth peer name link1 netns rank1")
    for i in range(2):
        sh(f"ip -n rank{i} addr add 10.99.0.{i + 1}/24 dev link{i}; ip -n rank{i} link set link{i} up")
        sh(f"ip -n rank{i} link set lo up")
        if rate:
            sh(f"ip netns exec rank{i} tc qdisc add dev link{i} root tbf rate {rate} burst 512kb latency 50ms")


def train(directory, name, accumulate, options, start):
    """Tokens per second; the losses and a hash of the weights."""
    run = directory / name
    command = [
        *start, PROGRAM, "train", "--corpus", directory / "text.txt", "--config", directory / "mini.json",
        "--tokenizer", directory / "vocab.txt", "--batch-size", 16, "--accumulate", accumulate, "--max-seq-len", 128, "--steps", STEPS, "--eval-share", 0.01,
        "--save-every", 0, "--save-minutes", 0, "--device", "flex", "--quiet", "--json", "-o", run, *options.split(),
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd="/")
    if done.returncode:
        sys.exit(done.stderr)
    steps = [record for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in (record := json.loads(line))]
    # The first steps fill caches and buffers.
    speed = statistics.median(record["tokens_per_second"] for record in steps[4:])
    weights = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    return speed, ([record["loss"] for record in steps], weights)


def on_two_ranks(directory, scripts):
    """The start of a command that runs it on a rank in each namespace, each on its own core."""
    for name, body in {
        # With one core a machine, a batch has one part for each rank, as in a process that has one core.
        "rank": f'export SLURM_CPUS_ON_NODE=1; exec taskset -c $(({CORES[0]} + OMPI_COMM_WORLD_RANK)) "$@"',
        "agent": f'shift\nexec ip netns exec rank1 unshare -um sh -c "hostname rank1; mount -t tmpfs none {directory}; $*"',
    }.items():
        (scripts / name).write_text(f"#!/bin/sh\n{body}\n")
        (scripts / name).chmod(0o755)
    tcp = [word for name in ("btl", "oob") for word in ("--mca", f"{name}_tcp_if_include", "10.99.0.0/24")]
    return [
        "ip", "netns", "exec", "rank0", "unshare", "-u", "sh", "-c", 'hostname rank0; exec "$@"', "sh",
        "mpirun", "--allow-run-as-root", "--host", "10.99.0.1:1,10.99.0.2:1", "--mca", "plm_rsh_agent", scripts / "agent",
        "--mca", "btl", "tcp,self", *tcp, "--bind-to", "none", "-n", 2, scripts / "rank",
    ]  # fmt: skip


def main():
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as scripts:
        directory, scripts = Path(directory), Path(scripts)
        words = [f"word{number}" for number in range(30_517)]
        (directory / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
        lines = [" ".join(words[(line * 7919 + place**2) % len(words)] for place in range(40)) for line in range(5_000)]
        (directory / "text.txt").write_text("\n".join(lines))
        mini = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
        (directory / "mini.json").write_text(json.dumps({**mini, "vocab_size": 30522}))
        with ThreadPoolExecutor() as pool:
            both = pool.map(lambda core: train(directory, f"alone-{core}", 1, "", ["taskset", "-c", core])[0], CORES)
            alone = sum(both)
        _, expected = train(directory, "whole", 2, "", ["taskset", "-c", CORES[0]])
        print(f"Two processes that exchange nothing: {alone:.0f} tokens/s.\n")
        print("| link | options | tokens/s | of two that exchange nothing | same bits |\n|---|---|---|---|---|")
        for rate in (None, "10gbit", "2gbit", "1gbit"):
            network(rate)
            for number, options in enumerate(OPTIONS):
                speed, found = train(directory, f"{rate}-{number}", 2, options, on_two_ranks(directory, scripts))
                link = rate or "as fast as the machine"
                print(f"| {link} | {options} | {speed:.0f} | {speed / alone:.2f} | {found == expected} |", flush=True)
        sh("ip netns del rank0; ip netns del rank1")


if __name__ == "__main__":
    main()
