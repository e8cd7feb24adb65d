"""Measures what a training step costs the host on CUDA, with a driver that does nothing, so that no GPU is needed.

usage: host_time.py BENCHMARK…

BENCHMARK is the example of that name, built for CUDA (`benchmarks/gpu/pack` does); several are compared turn by turn.
Prints the milliseconds of a step in bf16 for mini and base at 32×128: medians of five times 50 steps.
"""

import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from counts import directory

here = pathlib.Path(__file__).parent
libraries = pathlib.Path(tempfile.mkdtemp())
subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", libraries / "libcuda.so", here / "null_cuda.c"], check=True)
for name in ("libnvrtc.so", "libcublas.so"):
    shutil.copy(libraries / "libcuda.so", libraries / name)
for size in ("mini", "base"):
    work = directory(size, 32, 128, 0.1)
    workers = []
    for program in sys.argv[1:]:
        command = [program, work, work / "batch.json", "cuda", "bf16"]
        env = {"LD_LIBRARY_PATH": str(libraries), "CUDA_PATH": "/usr"}
        workers.append(subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-3, text=True, env=env))
    times = [[] for _ in workers]
    for turn in range(6):
        for worker, milliseconds in zip(workers, times):
            worker.stdin.write("train 50\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
            if turn > 0:
                milliseconds.append(float(answer.split(":")[1].split(",")[0]))
    for worker, program, milliseconds in zip(workers, sys.argv[1:], times):
        worker.stdin.close()
        worker.wait()
        print(f"{program}: {size} {statistics.median(milliseconds):.2f} ms", flush=True)
