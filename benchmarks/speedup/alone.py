"""Are whole networks foretold better from layers timed in place, or from the same layers timed alone?

    python benchmarks/speedup/plans.py FOLDER mobilenet_v2 onnxruntime     # first: the table, and plans to foretell
    python benchmarks/speedup/alone.py FOLDER mobilenet_v2

`edgeprune profile` asks the runtime what each layer takes within cut variants of the network. Others time each layer as
a network of its own. Here every layer of the table, at every width it has there, is written as an ONNX file of its own
(with the activation that follows it, which ONNX Runtime fuses), and timed with one thread, all in turns: the median of
`PASSES` passes of `SECONDS` each. These times take the places of those in the table, all else stays: what is no layer,
and the line from the sum to the time of whole calls, fitted to the same variants. Both foretell the random plans of
plans.py, which neither has seen.
"""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from boards import NETWORKS, opened, table_of
from onnx import TensorProto, helper, numpy_helper
from plans import LOG, random_plans, told

from edgeprune.files import whole_lines
from edgeprune.latency import LatencyTable, Network
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times
from edgeprune.target import load_target

PASSES = 5
SECONDS = 0.02

Key = tuple[str, int, int]
"""Shape as `edgeprune.prune.shapes.LayerAt` tells it, channels in, channels out."""


def layer_file(key: Key) -> bytes:
    """One layer and its activation, as an ONNX file for one image."""
    shape, inputs, outputs = key
    random = np.random.default_rng(0)
    if shape.startswith("linear"):
        weight = random.standard_normal((outputs, inputs)).astype(np.float32)
        nodes, image = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], [1, inputs]
    else:
        taps, places = re.findall(r"\d+x\d+", shape)[:2]
        before, after = int(places.split("x")[0]), re.search(r"to (\d+)x", shape)
        stride = round(before / int(after[1])) if after else 1
        depthwise = " depthwise " in shape
        group = outputs if depthwise else 1
        kernel = [int(tap) for tap in taps.split("x")]
        weight = random.standard_normal((outputs, inputs, *kernel)).astype(np.float32)
        pads = [tap // 2 for tap in kernel] * 2
        nodes = [
            helper.make_node(
                "Conv", ["x", "w", "b"], ["y"], group=group, strides=[stride] * 2, pads=pads, kernel_shape=kernel
            )
        ]
        image = [1, group * inputs, before, before]
    stored = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(outputs, np.float32), "b")]
    last = "y"
    if "relu6" in shape or "hardtanh" in shape:
        stored += [numpy_helper.from_array(np.float32(limit), name) for name, limit in (("low", 0), ("high", 6))]
        nodes.append(helper.make_node("Clip", ["y", "low", "high"], ["z"]))
        last = "z"
    elif "relu" in shape:
        nodes.append(helper.make_node("Relu", ["y"], ["z"]))
        last = "z"
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found: bytes = onnx.shape_inference.infer_shapes(model).SerializeToString()
    return found


def alone(keys: list[Key]) -> dict[Key, float]:
    """Milliseconds of each layer as a network of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {key: onnxruntime.InferenceSession(layer_file(key), options) for key in keys}
    feeds = {
        key: {"x": np.random.default_rng(1).standard_normal(one.get_inputs()[0].shape).astype(np.float32)}
        for key, one in sessions.items()
    }
    taken: dict[Key, list[float]] = {key: [] for key in keys}
    for number in range(1 + PASSES):  # the first warms up
        for key, session in sessions.items():
            begin, calls = time.perf_counter(), []
            while len(calls) < 3 or time.perf_counter() - begin < SECONDS:
                start = time.perf_counter()
                session.run(None, feeds[key])
                calls.append(time.perf_counter() - start)
            if number:
                taken[key].append(float(np.median(calls)))
    return {key: 1e3 * float(np.median(each)) for key, each in taken.items()}


def with_times(found: Network, ms: dict[Key, float]) -> Network:
    """The same variants, with each layer's time as it is alone."""
    return replace(
        found,
        variants=tuple(
            replace(
                one,
                layers=tuple(replace(layer, ms=ms[layer.shape, layer.inputs, layer.outputs]) for layer in one.layers),
            )
            for one in found.variants
        ),
    )


def main() -> None:
    """Print one row of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the tables and the log")
    parser.add_argument("network", choices=sorted(NETWORKS))
    options = parser.parse_args()
    uncut = opened(options.network)
    shapes, multiple = Shapes(uncut.program, uncut.channel_map), load_target("rpi4").channel_multiple
    table = LatencyTable.load(table_of(options.folder, options.network, "onnxruntime"))
    found = table.networks[shapes.fingerprint]
    layers = [layer for variant in found.variants for layer in variant.layers]
    ms = alone(sorted({(layer.shape, layer.inputs, layer.outputs) for layer in layers}))
    wanted = (options.network, "onnxruntime")
    rows = [one for one in whole_lines(options.folder / LOG) if (one["network"], one["runtime"]) == wanted]
    rows = [one for one in rows if one["measured"]]
    plans = random_plans(uncut, 1 + max(one["plan"] for one in rows), multiple)
    measured = np.array([one["measured"] for one in rows])
    cells = [
        told(np.array([1 / foretold(times, plans[one["plan"]]) for one in rows]), measured)
        for times in (Times(shapes, found), Times(shapes, with_times(found, ms)))
    ]
    in_place = sum(layer.ms for layer in layers)
    ratio = sum(ms[layer.shape, layer.inputs, layer.outputs] for layer in layers) / in_place
    print("| network | layers alone | plans | in place | alone | sum of layers, alone over in place |")
    print("|---|---|---|---|---|---|")
    print(f"| {options.network} | {len(ms)} | {len(rows)} | {' | '.join(cells)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
