"""The layers of a TFLite file as it runs: an interpreter that keeps every tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import MissingExtraError
from edgeprune.export.execute import Array, meant, stored
from edgeprune.export.layers import FileLayer, Steps, span
from edgeprune.tflite_graph import operators_of

_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
}
"""Operators with weights -> where the schema has their activation."""
_ACTIVATIONS = {0: (-np.inf, np.inf), 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""`ActivationFunctionType` of TFLite's schema -> what may come out: NONE, RELU, RELU_N1_TO_1, RELU6."""


@dataclass(frozen=True)
class _Placed:
    """An operator with weights and the numbers of its tensors."""

    kind: str
    read: int
    weight: int
    written: int
    activation: int


def tflite_layers(path: Path, images: Array) -> list[FileLayer]:
    """Run a file and keep what its convolutions and linear layers put out.

    Args:
        path: the file.
        images: see `edgeprune.export.execute.fed`, float32 [n, channels, height, width].

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("tflite", "looking into a TFLite file") from error
    content = path.read_bytes()
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    entry = interpreter.get_input_details()[0]
    placed = [one for one in _placed(content) if one.activation in _ACTIVATIONS]
    rows: list[list[Array]] = []
    for at in range(len(images)):
        image = images[at : at + 1].transpose(0, 2, 3, 1)
        interpreter.set_tensor(entry["index"], np.ascontiguousarray(stored(image, entry)))
        interpreter.invoke()
        rows.append([meant(interpreter.get_tensor(one.written), tensors[one.written]) for one in placed])
    values = [np.concatenate([row[place] for row in rows]) for place in range(len(placed))]
    return [_layer(one, tensors, given) for one, given in zip(placed, values, strict=True)]


def _placed(content: bytes) -> Iterator[_Placed]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    for kind, operator in operators_of(model, model.Subgraphs(0)):
        if kind not in _OPTIONS:
            continue
        options, table = getattr(schema, _OPTIONS[kind])(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        read = 2 if kind == "TRANSPOSE_CONV" else 0  # whose first input is the shape of its output
        yield _Placed(
            kind, operator.Inputs(read), operator.Inputs(1), operator.Outputs(0), options.FusedActivationFunction()
        )


def _layer(one: _Placed, tensors: Mapping[int, Mapping[str, Any]], values: Array) -> FileLayer:
    written, kernel = tensors[one.written], tensors[one.weight]
    low, high = _ACTIVATIONS[one.activation]
    output = float(written["quantization"][0])
    if output:
        ends = span(output, int(written["quantization"][1]), written["dtype"])
        low, high = max(low, ends[0]), min(high, ends[1])
    steps = kernel["quantization_parameters"]["scales"]
    return FileLayer(
        tensor=str(written["name"]),
        operator=one.kind,
        weight="",
        weights=int(np.prod(kernel["shape"])),
        values=values.transpose(0, 3, 1, 2) if values.ndim == 4 else values,
        low=low,
        high=high,
        steps=Steps(float(tensors[one.read]["quantization"][0]), output, tuple(float(step) for step in steps)),
    )
