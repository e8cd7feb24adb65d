"""Time and memory of an exact search in a million vectors, and whether NumPy finds the same.

    cargo build --workspace
    python benchmarks/search.py path/to/all-MiniLM-L6-v2 [VECTORS [QUERIES…]]

Makes a corpus of random vectors (as wide as the model's) as `float32` and `float16`, with a line of text each, and runs
`bert-finetune search` on it for each number of queries (default: 1 and 1,000). Needs NumPy, and 2.5 GB of disk for a
million vectors. Prints a Markdown table; the memory is the peak of the whole process, model included, and the hits of the first 20 queries
are compared with NumPy's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).resolve().parent.parent / "target/debug/bert-finetune"
BLOCK = 50_000
CHECKED = 20


def vectors(rows, width, number):
    """A block of the corpus, from its own seed, so that it need not be kept."""
    generator = np.random.default_rng(number)
    return generator.standard_normal((rows, width), dtype=np.float32)


def blocks(count, width):
    for number, first in enumerate(range(0, count, BLOCK)):
        yield first, vectors(min(BLOCK, count - first), width, number)


def write(directory, count, width):
    for kind in ("float32", "float16"):
        matrix = np.lib.format.open_memmap(directory / f"{kind}.npy", "w+", kind, (count, width))
        for first, block in blocks(count, width):
            matrix[first : first + len(block)] = block
        matrix.flush()
    with open(directory / "corpus.txt", "w") as file:
        file.writelines(f"text {number}\n" for number in range(count))


def best(queries, path):
    """The indices of the five highest cosines of each query, from a product block by block."""
    matrix = np.load(path, mmap_mode="r")
    scores, indices = np.full((len(queries), 5), -2.0, np.float32), np.zeros((len(queries), 5), int)
    for first in range(0, len(matrix), BLOCK):
        block = np.asarray(matrix[first : first + BLOCK], np.float32)
        block = block / np.linalg.norm(block, axis=1, keepdims=True)
        scores = np.concatenate([scores, queries @ block.T], axis=1)
        new = np.broadcast_to(np.arange(first, first + len(block)), (len(queries), len(block)))
        indices = np.concatenate([indices, new], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        scores, indices = np.take_along_axis(scores, order, 1), np.take_along_axis(indices, order, 1)
    return indices


def run(command):
    """Output, seconds, and peak memory in MB."""
    with tempfile.TemporaryFile("w+") as output:
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen([str(part) for part in command], stdout=output)
        while process.poll() is None:
            # `ru_maxrss` would include the memory of this process, from the moment before `exec`.
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
            time.sleep(0.01)
        if process.returncode:
            sys.exit(f"failed: {command}")
        seconds = time.perf_counter() - start
        output.seek(0)
        return output.read(), seconds, peak / 1e3


def main():
    model = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    amounts = [int(amount) for amount in sys.argv[3:]] or [1, 1_000]
    width = json.loads((model / "config.json").read_text())["hidden_size"]
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory:
        directory = Path(directory)
        write(directory, count, width)
        texts = [f"question number {number} about nothing" for number in range(max(amounts))]
        (directory / "all.txt").write_text("".join(f"{text}\n" for text in texts))
        common = ["--model", model, "--quiet", "--device", "flex"]
        run([PROGRAM, "embed", *common, "--input", directory / "all.txt", "-o", directory / "queries.npy"])
        queries = np.load(directory / "queries.npy")
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        print("| vectors | numbers | queries | seconds | peak MB | as NumPy |\n|---|---|---|---|---|---|")
        for kind in ("float32", "float16"):
            for amount in amounts:
                (directory / "queries.txt").write_text("".join(f"{text}\n" for text in texts[:amount]))
                files = ["--corpus", directory / "corpus.txt", "--vectors", directory / f"{kind}.npy"]
                command = [PROGRAM, "search", *common, *files, "--queries", directory / "queries.txt", "--json"]
                output, seconds, memory = run(command)
                lines = output.splitlines()[:CHECKED]
                found = [[hit["index"] for hit in json.loads(line)["hits"]] for line in lines]
                same = np.mean(best(queries[: len(found)], directory / f"{kind}.npy") == np.array(found))
                print(f"| {count:,} | {kind} | {amount:,} | {seconds:.1f} | {memory:.0f} | {same:.2%} |", flush=True)


if __name__ == "__main__":
    main()
