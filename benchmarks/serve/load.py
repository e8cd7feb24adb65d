"""Throughput, latency, memory and idle cost of bert-serve beside infinity and a FastAPI server.

    apt-get install wrk && cargo build --workspace
    python3 -m venv target/load && target/load/bin/pip install sentence-transformers fastapi uvicorn
    python3 -m venv target/infinity && target/infinity/bin/pip install "infinity-emb[server,torch]"
    python3 benchmarks/serve/load.py path/to/all-MiniLM-L6-v2 --python target/load --infinity target/infinity

`wrk` sends the same requests, one text of 12 words each, to every server, from 1, 8, 64 and 256 connections. All servers
and wrk share the same two cores. The servers take turns in every round, and those whose turn it is not are stopped. Then
bert-serve alone: its memory over 100,000 requests, its processor time while idle, and a single request beside the time of
its forward pass. Servers that are not installed are skipped with a note. `--quick` is a trial run of half a minute; its
figures mean nothing. Run it on an idle machine.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TEXT = "the film is a quiet and generous portrait of two old friends"
BODY = json.dumps({"model": "default", "input": TEXT})
CORES = sorted(os.sched_getaffinity(0))[:2]
ROUTE = "/v1/embeddings"

SCRIPT = """
wrk.method = "POST"
wrk.body = [[%s]]
wrk.headers["Content-Type"] = "application/json"
""" % BODY


class Server:
    def __init__(self, name, port, command, **environment):
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        environment = {**os.environ, "OMP_NUM_THREADS": str(len(CORES)), **environment}
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self):
        request = urllib.request.Request(self.url + ROUTE, BODY.encode(), {"content-type": "application/json"})
        for _ in range(300):
            if self.process.poll() is not None:
                return False
            try:
                return urllib.request.urlopen(request, timeout=60).status == 200
            except OSError:
                time.sleep(0.5)
        return False

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            self.process.wait()

    def resident_mb(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name):
        text = urllib.request.urlopen(self.url + "/metrics").read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(name + r"[{ ]", line))


def start_wrk(server, connections, seconds):
    script = Path(tempfile.gettempdir()) / "bert-serve-load.lua"
    script.write_text(SCRIPT)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency", "-s", script]
    return subprocess.Popen([*command, server.url + ROUTE], stdout=subprocess.PIPE, text=True)


def wrk(server, connections, seconds):
    """Requests per second, and the percentiles 50 and 99 in milliseconds."""
    process = start_wrk(server, connections, seconds)
    output = process.communicate()[0]
    if "Non-2xx" in output or "Socket errors" in output:
        print(f"note: {server.name}: {output.splitlines()[-4:]}", file=sys.stderr)
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
    percentile = {}
    for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)", output):
        percentile[share] = float(value) * scale[unit]
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), percentile["50"], percentile["99"]


def compare(servers, rounds, seconds):
    print("| connections | server | requests/s | p50 ms | p99 ms |\n|---|---|---|---|---|")
    for connections in (1, 8, 64, 256):
        found = {server.name: [] for server in servers}
        for _ in range(rounds):
            for server in servers:
                server.signal(signal.SIGCONT)
                wrk(server, connections, 1)
                found[server.name].append(wrk(server, connections, seconds))
                server.signal(signal.SIGSTOP)
        for name, results in found.items():
            rate, middle, slow = (statistics.median(column) for column in zip(*results))
            print(f"| {connections} | {name} | {rate:.0f} | {middle:.1f} | {slow:.1f} |", flush=True)
    memory = (f"{server.name} {server.resident_mb():.0f} MB" for server in servers)
    print(f"\nMedians of {rounds} rounds of {seconds} s. Resident afterwards: {', '.join(memory)}.\n")


def alone(server, requests, idle):
    """What concerns bert-serve only."""
    server.signal(signal.SIGCONT)
    answered = lambda: server.metric("bert_serve_inputs_total")  # noqa: E731
    memory, start, load = [], answered(), start_wrk(server, 64, 36_000)
    while len(memory) < 10:
        time.sleep(0.1)
        if answered() - start >= (len(memory) + 1) * requests / 10:
            memory.append(f"{server.resident_mb():.0f}")
    load.send_signal(signal.SIGINT)
    load.communicate()
    print(f"Resident MB after each {requests // 10:,} of {requests:,} requests: {', '.join(memory)}.")
    time.sleep(1)
    before = server.cpu_seconds()
    time.sleep(idle)
    print(f"Processor time in {idle} idle seconds: {server.cpu_seconds() - before:.2f} s.")
    names = [f"bert_serve_batch_duration_seconds_{part}" for part in ("sum", "count")]
    before = [server.metric(name) for name in names]
    _, middle, slow = wrk(server, 1, 5)
    total, count = (server.metric(name) - old for name, old in zip(names, before))
    print(f"A request alone: p50 {middle:.2f} ms, p99 {slow:.2f} ms; its forward pass {1e3 * total / count:.2f} ms.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--program", type=Path, default=ROOT / "target/debug/bert-serve")
    parser.add_argument("--python", type=Path, default=ROOT / "target/load", help="environment with sentence-transformers")
    parser.add_argument("--infinity", type=Path, default=ROOT / "target/infinity", help="environment with infinity-emb")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    if args.quick:
        args.rounds, args.seconds = 1, 1
    os.sched_setaffinity(0, CORES)
    model, port = args.model.resolve(), 8971
    commands = {
        "bert-serve": [args.program, "--model", f"default={model}", "--port", port, "--log", "warn"],
        "infinity": [args.infinity / "bin/infinity_emb", "v2", "--model-id", model, "--served-model-name", "default",
                     "--port", port + 1, "--url-prefix", "/v1", "--device", "cpu", "--engine", "torch",
                     "--no-bettertransformer", "--no-compile"],
        "FastAPI": [args.python / "bin/python", "-m", "uvicorn", "fastapi_server:app", "--app-dir", HERE,
                    "--port", port + 2, "--log-level", "warning"],
    }  # fmt: skip
    servers = []
    try:
        for place, (name, command) in enumerate(commands.items()):
            if not command[0].exists():
                print(f"skipped: {name}: {command[0]} is not there", file=sys.stderr)
                continue
            server = Server(name, port + place, command, MODEL=str(model))
            servers.append(server)
            if not server.wait():
                print(f"skipped: {name} did not start: {' '.join(map(str, command))}", file=sys.stderr)
                server.end()
                servers.pop()
                continue
            server.signal(signal.SIGSTOP)
        compare(servers, args.rounds, args.seconds)
        if servers and servers[0].name == "bert-serve":
            alone(servers[0], 1_000 if args.quick else 100_000, 2 if args.quick else 20)
    finally:
        for server in servers:
            server.end()


if __name__ == "__main__":
    main()
