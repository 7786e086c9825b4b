"""Stands in for NVIDIA's `trtexec` in tests: the same options and files, over onnxruntime. It measures no TensorRT.

Its engine is a copy of the ONNX file. Options it does not know are an error, as they are to trtexec.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

BUILD = {"--onnx", "--saveEngine", "--shapes", "--fp16", "--int8", "--iterations", "--duration", "--warmUp"}
RUN = {"--loadEngine", "--loadInputs", "--exposeDMA", "--exportTimes", "--exportOutput", *BUILD - {"--onnx", "--int8"}}


def main(release: str, *words: str) -> None:
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{release}] # trtexec {' '.join(words)}")
    options = {name: value for name, _, value in (word.partition("=") for word in words)}
    unknown = [name for name in options if name not in {*BUILD, *RUN, "--help"}]
    if unknown:
        print(f"[11/21/2026-12:00:00] [E] Unknown option: {unknown[0]}")
        sys.exit(1)
    with Path(sys.argv[0]).with_name("calls.txt").open("a") as calls:
        calls.write(" ".join(words) + "\n")
    if "--onnx" in options:
        if Path(options["--onnx"]).stat().st_size < 100:
            print("[11/21/2026-12:00:00] [E] Failed to parse onnx file")
            sys.exit(1)
        shutil.copyfile(options["--onnx"], options["--saveEngine"])
    if "--loadEngine" in options:
        run(options)


def run(options: dict[str, str]) -> None:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(options["--loadEngine"], providers=["CPUExecutionProvider"])
    name, _, path = options["--loadInputs"].rpartition(":")
    name, _, shape = options["--shapes"].rpartition(":")
    dtype = {"tensor(uint8)": np.uint8}.get(session.get_inputs()[0].type, np.float32)
    image = np.fromfile(path, dtype).reshape([int(size) for size in shape.split("x")])
    calls, end, output = [], time.perf_counter() + float(options["--duration"]), None
    while len(calls) < int(options["--iterations"]) or time.perf_counter() < end:
        begin = time.perf_counter()
        output = session.run(None, {name.strip("'"): image})[0]
        calls.append({"latencyMs": (time.perf_counter() - begin) * 1e3})
    if "--exportTimes" in options:
        Path(options["--exportTimes"]).write_text(json.dumps(calls))
    if "--exportOutput" in options:
        values = {"name": session.get_outputs()[0].name, "values": [float(value) for value in output.ravel()]}
        found = [{**values, "dimensions": "x".join(map(str, output.shape))}]
        Path(options["--exportOutput"]).write_text(json.dumps(found))


main(*sys.argv[1:])
