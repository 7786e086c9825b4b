"""How much there is to do in each layer of a file: multiply-accumulates and bytes, read from the file itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.tflite_graph import LAYERS, nameless, operators_of

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerWork:
    """A convolution, a linear layer or a matrix product.

    Attributes:
        name: of its weights, without ".weight"; of its kind and number where they have no telling name.
        macs: multiply-accumulates for one image.
        bytes: of its input, weights and output, each counted once.
        channels: (in, out).
        shape: of its output, as the file has it, batch 1.
        weights: their shape, as the file has it.
    """

    name: str
    macs: int
    bytes: int
    channels: tuple[int, int]
    shape: Shape
    weights: Shape


def layers_of(path: Path) -> tuple[LayerWork, ...]:
    """The layers of an ONNX or TFLite file, in the file's order.

    Raises:
        ImportError: the package that reads the format is not installed.
    """
    return tuple(_onnx_layers(path) if path.suffix == ".onnx" else _tflite_layers(path))


def _onnx_layers(path: Path) -> Iterator[LayerWork]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    for axis in (axis for entry in model.graph.input for axis in entry.type.tensor_type.shape.dim):
        axis.dim_value = axis.dim_value or 1
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    sizes = {tensor.name: _onnx_size(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        shapes[value.name] = tuple(axis.dim_value for axis in kind.shape.dim)
        sizes[value.name] = _onnx_size(kind.elem_type)
    # What is dequantised on the way is stored, and in runtimes that fuse it computed, in its quantised form.
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type not in _ONNX_MACS:
            continue
        names = [source.get(name, name) for name in (node.input[0], node.input[1])]
        entry, weights, output = shapes[names[0]], shapes[names[1]], shapes[node.output[0]]
        moved = math.prod(entry) * sizes[names[0]] + math.prod(weights) * sizes[names[1]]
        yield LayerWork(
            name=names[1].removesuffix("_quantized").removesuffix(".weight"),
            macs=_ONNX_MACS[node.op_type](entry, weights, output),
            bytes=moved + math.prod(output) * sizes[names[0]],
            channels=(entry[1], output[1]) if len(output) > 1 and len(entry) > 1 else (0, 0),
            shape=output,
            weights=weights,
        )


_Macs = Callable[[Shape, Shape, Shape], int]
_ONNX_MACS: dict[str, _Macs] = {
    "Conv": lambda _, weights, output: math.prod(output) * math.prod(weights[1:]),
    "ConvTranspose": lambda entry, weights, _: math.prod(entry) * math.prod(weights[1:]),
    "Gemm": lambda entry, _, output: math.prod(output) * entry[-1],
    "MatMul": lambda entry, _, output: math.prod(output) * entry[-1],
}
_TFLITE_MACS: dict[str, _Macs] = {
    "CONV_2D": lambda _, weights, output: math.prod(output) * math.prod(weights[1:]),
    "DEPTHWISE_CONV_2D": lambda _, weights, output: math.prod(output) * math.prod(weights[1:3]),
    "TRANSPOSE_CONV": lambda entry, weights, _: math.prod(entry) * math.prod(weights[:3]),
    "FULLY_CONNECTED": lambda _, weights, output: math.prod(output) * weights[-1],
    "BATCH_MATMUL": lambda entry, _, output: math.prod(output) * entry[-1],
}


def _onnx_size(kind: int) -> int:
    import onnx

    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize) if kind else 4


def _tflite_layers(path: Path) -> Iterator[LayerWork]:
    from ai_edge_litert import schema_py_generated as schema

    sizes = {schema.TensorType.FLOAT32: 4, schema.TensorType.FLOAT16: 2, schema.TensorType.INT32: 4}
    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)

    def tensor(place: int) -> tuple[Shape, int]:
        found: Any = graph.Tensors(place)
        return tuple(int(found.Shape(axis)) for axis in range(found.ShapeLength())), sizes.get(found.Type(), 1)

    found = ((kind, operator) for kind, operator in operators_of(model, graph) if kind in LAYERS)
    for number, (kind, operator) in enumerate(found):
        # A transposed convolution names its output's shape first, then weights and input.
        first = (2, 1) if kind == "TRANSPOSE_CONV" else (0, 1)
        (entry, size), (weights, weight_size) = (tensor(operator.Inputs(at)) for at in first)
        output, output_size = tensor(operator.Outputs(0))
        moved = math.prod(entry) * size + math.prod(weights) * weight_size + math.prod(output) * output_size
        macs = _TFLITE_MACS[kind](entry, weights, output)
        yield LayerWork(nameless(kind, number), macs, moved, (entry[-1], output[-1]), output, weights)


def renamed(layers: Sequence[LayerWork], like: Sequence[LayerWork]) -> tuple[LayerWork, ...]:
    """Layers under the names of another file's, if that does the same work in the same order; else as they are."""
    if [one.macs for one in layers] != [one.macs for one in like]:
        return tuple(layers)
    return tuple(replace(one, name=other.name) for one, other in zip(layers, like, strict=True))
