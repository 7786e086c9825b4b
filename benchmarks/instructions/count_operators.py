"""Runs inside the emulated board: ONNX files one after another, each as it is timed elsewhere, then profiled.

usage: count_operators.py WORKER.pyz INPUTS.npy CALLS FILE...

A mark for the plugin comes before and after each of CALLS inferences, and before and after one that ONNX Runtime
profiles, reading a clock where each operator begins and ends. A line of JSON for each file names the operators of that
one, in the order they ran.
"""

import ctypes
import itertools
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import numpy as np

from edgeprune.worker.onnx_session import CPU, calls_of, load_onnxruntime, node_events, open_session

FIRST_MARK = 777000  # as in armcount.c
image, calls = np.load(sys.argv[2])[:1], int(sys.argv[3])
library, numbers = ctypes.CDLL(None), itertools.count(FIRST_MARK)


def mark():
    library.getpriority(0, next(numbers))


def told(event):
    outputs = [next(iter(one.values())) for one in event["args"]["output_type_shape"]]
    kind, place = event["args"]["op_name"], event["args"]["provider"]
    return {"name": event["name"], "kind": kind, "place": place, "shape": outputs[0]}


for path in sys.argv[4:]:
    model = load_onnxruntime(path, 1)
    feed = model.prepare(image)
    model.run(feed)  # what a runtime prepares in its first call is not counted
    mark()
    for _ in range(calls):
        model.run(feed)
        mark()
    with tempfile.TemporaryDirectory() as folder:
        session, version = open_session(path, 1, CPU, Path(folder) / "profile")
        prepare, run = calls_of(session)
        feed = prepare(image)
        run(feed)
        mark()
        run(feed)
        mark()
        events = node_events(Path(session.end_profiling()))
    print(json.dumps({"version": version, "operators": [told(one) for one in events[len(events) // 2 :]]}))
