"""ONNX Runtime's side of compare.py: encodes what torch_worker.py encodes, from the same model exported by PyTorch.

usage: onnx_worker.py MODEL_DIR BATCH.json onnx THREADS   (MODEL_DIR has model.onnx)
"""

import json
import sys
import time

import numpy
import onnxruntime

directory, batch_file, _, threads = sys.argv[1:5]
rows = json.load(open(batch_file))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(f"{directory}/model.onnx", options, providers=["CPUExecutionProvider"])


def encode():
    started = time.perf_counter()
    total = 0.0
    # Batches of 32 in the order in which they come, each padded to its longest.
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        width = max(len(row["ids"]) for row in part)
        ids, mask = numpy.zeros((2, len(part), width), dtype=numpy.int64)
        for index, row in enumerate(part):
            ids[index, : len(row["ids"])] = row["ids"]
            mask[index, : len(row["ids"])] = 1
        (hidden,) = session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})
        weights = mask[..., None].astype(numpy.float32)
        total += float(numpy.abs((hidden * weights).sum(1) / weights.sum(1)).sum())
    return (time.perf_counter() - started) * 1e3, total


def peak():
    status = open("/proc/self/status").read()
    return 0.0, int(status.split("VmHWM:")[1].split()[0]) / 1024


for line in sys.stdin:
    ms, value = {"encode": encode, "peak": peak}[line.strip()]()
    print(json.dumps({"ms": ms, "value": value}), flush=True)
