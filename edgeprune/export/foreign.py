"""A model file that this project did not write: what must be known of it to compare it with a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.export.execute import Array
from edgeprune.tflite_graph import operators_of

_PASSING = ("QuantizeLinear", "DequantizeLinear", "Cast", "Reshape", "Flatten", "Squeeze", "Identity")
_PASSING_TFLITE = ("QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "SQUEEZE")
"""Operators that may follow a softmax without changing what it means."""


@dataclass(frozen=True)
class Reading:
    """How a file's output relates to the model's, which are logits of its classes.

    Attributes:
        background: whether the file has one class more, its first, for "none of them".
        probabilities: whether it gives probabilities.
    """

    background: bool = False
    probabilities: bool = False

    @property
    def as_is(self) -> bool:
        """Whether both give the same."""
        return not (self.background or self.probabilities)

    def of_file(self, outputs: list[Array]) -> list[Array]:
        """A file's outputs, [n, classes], without the background class."""
        return [values[:, 1:] for values in outputs] if self.background else outputs

    def of_model(self, outputs: list[Array]) -> list[Array]:
        """A model's outputs, [n, classes], as the file gives them."""
        return [_softmax(values) for values in outputs] if self.probabilities else outputs


AS_IS = Reading()


def kind_of(path: Path) -> tuple[str, bool]:
    """The precision of a file's weights, "fp32", "fp16" or "int8", and whether it ends in a softmax.

    Args:
        path: an `.onnx` or `.tflite` file that can be parsed.
    """
    return _onnx_kind(path) if path.suffix == ".onnx" else _tflite_kind(path)


def _onnx_kind(path: Path) -> tuple[str, bool]:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    kinds = {node.op_type for node in graph.node}
    halves = any(one.data_type == onnx.TensorProto.FLOAT16 for one in graph.initializer)
    stepped = kinds & {"DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
    makers = {name: node for node in graph.node for name in node.output}
    maker = makers.get(graph.output[0].name)
    while maker is not None and maker.op_type in _PASSING:
        maker = makers.get(maker.input[0])
    return "int8" if stepped else "fp16" if halves else "fp32", maker is not None and maker.op_type == "Softmax"


def _tflite_kind(path: Path) -> tuple[str, bool]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)
    tensors = [graph.Tensors(place) for place in range(graph.TensorsLength())]
    stored = {one.Type() for one in tensors if model.Buffers(one.Buffer()).DataLength() and one.ShapeLength() > 1}
    bytes_ = {schema.TensorType.INT8, schema.TensorType.UINT8}
    precision = "int8" if stored & bytes_ else "fp16" if schema.TensorType.FLOAT16 in stored else "fp32"
    makers = {written: pair for pair in operators_of(model, graph) for written in pair[1].OutputsAsNumpy()}
    place = graph.Outputs(0)
    while place in makers and makers[place][0] in _PASSING_TFLITE:
        place = makers[place][1].Inputs(0)
    return precision, place in makers and makers[place][0] == "SOFTMAX"


def _softmax(values: Array) -> Array:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    shares: Array = raised / raised.sum(axis=1, keepdims=True)
    return shares
