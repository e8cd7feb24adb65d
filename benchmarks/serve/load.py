"""Throughput and latency of bert-serve, infinity, and a FastAPI server based on sentence-transformers.

    python3 -m venv target/load && target/load/bin/pip install sentence-transformers fastapi uvicorn "infinity-emb[all]"
    cargo install oha && cargo build --release -p bert-serve
    target/load/bin/python benchmarks/serve/load.py path/to/all-MiniLM-L6-v2 [SERVER…]

`oha` sends the same requests to each server in turn (all by default; servers that are not installed are skipped with a
note): one or eight texts of 12 words, from 1, 8, and 64 clients, for ten seconds after one second of warm-up. Run it on
an idle machine. Prints a Markdown table.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PORT = 8971
WORDS = "the film is a quiet and generous portrait of two old friends".split()
SECONDS = 10


def body(count):
    texts = [" ".join(WORDS[i % 5 :] + WORDS[: i % 5]) for i in range(count)]
    return json.dumps({"model": "default", "input": texts})


def servers(model):
    bin = Path(sys.executable).parent
    return {
        "bert-serve": [ROOT / "target/release/bert-serve", "--model", f"default={model}", "--port", PORT, "--log", "warn"],
        "infinity": [bin / "infinity_emb", "v2", "--model-id", model, "--served-model-name", "default", "--port", PORT,
                     "--url-prefix", "/v1", "--device", "cpu", "--engine", "torch", "--no-bettertransformer"],
        "fastapi": [bin / "uvicorn", "fastapi_server:app", "--app-dir", HERE, "--port", PORT, "--log-level", "warning"],
    }


def wait(process):
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/embeddings", body(1).encode(), {"content-type": "application/json"})
    for _ in range(600):
        if process.poll() is not None:
            return False
        try:
            return urllib.request.urlopen(request, timeout=30).status == 200
        except OSError:
            time.sleep(0.2)
    return False


def oha(count, clients, seconds):
    command = ["oha", "--no-tui", "--output-format", "json", "-z", f"{seconds}s", "-c", str(clients), "-m", "POST",
               "-T", "application/json", "-d", body(count), f"http://127.0.0.1:{PORT}/v1/embeddings"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    times = found["latencyPercentiles"]
    failed = sum(n for code, n in found["statusCodeDistribution"].items() if code != "200")
    return found["summary"]["requestsPerSec"] * count, times["p50"] * 1e3, times["p99"] * 1e3, failed


def resident_mb(process):
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main():
    if shutil.which("oha") is None:
        sys.exit("oha is not installed: cargo install oha")
    model, *names = sys.argv[1:]
    commands = servers(model)
    print("| server | texts a request | at once | texts/s | median ms | 99 % ms | failed | resident MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names or commands:
        command = [str(part) for part in commands[name]]
        if not Path(command[0]).exists():
            print(f"skipped: {name}: {command[0]} is not there", file=sys.stderr)
            continue
        process = subprocess.Popen(command, env={**os.environ, "MODEL": model}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not wait(process):
                print(f"skipped: {name} did not start", file=sys.stderr)
                continue
            for count in (1, 8):
                for clients in (1, 8, 64):
                    oha(count, clients, 1)
                    rate, median, slow, failed = oha(count, clients, SECONDS)
                    print(f"| {name} | {count} | {clients} | {rate:.0f} | {median:.1f} | {slow:.1f} | {failed} | {resident_mb(process):.0f} |", flush=True)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
