"""Raw pixels into an ONNX file: what a program would do to them before is put in front of the finished graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.data import InputSpec


def from_pixels(proto: Any, spec: InputSpec) -> None:
    """Let a network take uint8 [n, height, width, channels] where it took normalised float32 images. In place.

    In front, not in the graph that is quantised: every precision computes behind it what it computes without it. Cast
    comes first, because TensorRT takes uint8 only where a Cast reads it.

    Args:
        proto: a ModelProto of one float32 NCHW input.
        spec: what the network wants of an image.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    (entry,) = graph.input
    name, inner = entry.name, f"{entry.name}_normalised"
    for node in graph.node:
        for place, source in enumerate(node.input):
            if source == name:
                node.input[place] = inner
    std = np.asarray(spec.std)
    stored = {"gain": 1 / (255 * std), "shift": -np.asarray(spec.mean) / std}
    for key, values in stored.items():
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), f"{name}_{key}"))
    steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("Cast", [name], f"{name}_float", {"to": TensorProto.FLOAT}),
        ("Mul", [f"{name}_float", f"{name}_gain"], f"{name}_scaled", {}),
        ("Add", [f"{name}_scaled", f"{name}_shift"], f"{name}_last", {}),
        ("Transpose", [f"{name}_last"], inner, {"perm": [0, 3, 1, 2]}),
    )
    nodes = [
        helper.make_node(kind, sources, [result], name=f"{result}_{kind.lower()}", **options)
        for kind, sources, result, options in steps
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    tensor = entry.type.tensor_type
    tensor.elem_type = TensorProto.UINT8
    axes = list(tensor.shape.dim)
    del tensor.shape.dim[:]
    tensor.shape.dim.extend(axes[axis] for axis in (0, 2, 3, 1))
