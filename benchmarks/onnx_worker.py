"""The side of ONNX Runtime and OpenVINO in compare.py: encodes what torch_worker.py encodes, from the same model exported
by PyTorch.

usage: onnx_worker.py MODEL_DIR BATCH.json onnx|onnx-int8|openvino THREADS   (MODEL_DIR has model.onnx)

onnx-int8 is ONNX Runtime's dynamic quantization of the matrix products, with a scale for each output channel; openvino
runs the same quantized model.
"""

import json
import pathlib
import sys
import time

import numpy
import onnxruntime

directory, batch_file, way, threads = sys.argv[1:5]
rows = json.load(open(batch_file))
model = f"{directory}/model.onnx"


def quantized():
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = f"{directory}/model-int8.onnx"
    if not pathlib.Path(target).exists():
        # Not Gather: the embeddings stay in f32, as in ours.
        quantize_dynamic(
            model, target, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
        )
    return target


if way == "openvino":
    import openvino

    settings = {"INFERENCE_NUM_THREADS": int(threads), "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.compile_model(quantized(), "CPU", settings)

    def run(feed):
        return compiled(feed)["last_hidden_state"]

else:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    path = quantized() if way == "onnx-int8" else model
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(feed):
        return session.run(["last_hidden_state"], feed)[0]


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
        hidden = run({"input_ids": ids, "attention_mask": mask})
        weights = mask[..., None].astype(numpy.float32)
        total += float(numpy.abs((hidden * weights).sum(1) / weights.sum(1)).sum())
    return (time.perf_counter() - started) * 1e3, total


def peak():
    status = open("/proc/self/status").read()
    return 0.0, int(status.split("VmHWM:")[1].split()[0]) / 1024


for line in sys.stdin:
    ms, value = {"encode": encode, "peak": peak}[line.strip()]()
    print(json.dumps({"ms": ms, "value": value}), flush=True)
