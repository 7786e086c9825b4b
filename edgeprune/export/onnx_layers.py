"""The layers of an ONNX file as it runs: its graph gets their tensors as further outputs, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.export.execute import Array, onnx_input
from edgeprune.export.layers import FileLayer, Steps, span
from edgeprune.export.onnx_run import session_of
from edgeprune.export.onnx_store import ready

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True)
class _Seen:
    """A layer and the tensor that is looked at: its own output, or what that becomes in steps of eight bits."""

    node: Any
    tensor: str
    shown: str


def onnx_layers(path: Path, images: Array) -> list[FileLayer]:
    """Run a file and keep what its convolutions and linear layers put out.

    Args:
        path: the file.
        images: see `edgeprune.export.execute.fed`, float32 [n, channels, height, width].
    """
    import onnx

    proto = onnx.load(path)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    seen = [_Seen(node, node.output[0], _shown(node, proto)) for node in proto.graph.node if node.op_type in _LAYERS]
    seen = [one for one in seen if _weight(one.node, stored, makers) is not None]
    given = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=one.shown) for one in seen if one.shown not in given)
    with ready(proto) as file:
        session = session_of(file)
    entry, wanted = session.get_inputs()[0], [one.shown for one in seen]
    rows = [session.run(wanted, {entry.name: onnx_input(image[None], entry.type)}) for image in images]
    return [_layer(one, np.concatenate([row[place] for row in rows]), stored, makers) for place, one in enumerate(seen)]


def _layer(one: _Seen, values: Any, stored: Mapping[str, Any], makers: Mapping[str, Any]) -> FileLayer:
    name = _weight(one.node, stored, makers)
    assert name is not None
    read, kernel = (_scale(makers.get(one.node.input[place]), stored) for place in (0, 1))
    low, high, output = -np.inf, np.inf, 0.0
    if one.shown != one.tensor:
        (scale,), (zero, kind) = _scale(makers[one.shown], stored), _zero(makers[one.shown], stored)
        (low, high), output = span(scale, zero, kind), scale
    return FileLayer(
        tensor=one.tensor,
        operator=one.node.op_type,
        weight=name.removesuffix("_quantized"),
        weights=int(stored[name].size),
        values=values.astype(np.float32),
        low=low,
        high=high,
        steps=Steps(read[0] if read else 0.0, output, kernel),
    )


def _shown(node: Any, proto: Any) -> str:
    """The float tensor that a layer's output becomes: itself, or after it went through steps of eight bits."""
    name = str(node.output[0])
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        readers = [other for other in proto.graph.node if name in other.input]
        if len(readers) != 1 or readers[0].op_type != kind:
            return str(node.output[0])
        name = str(readers[0].output[0])
    return name


def _weight(node: Any, stored: Mapping[str, Any], makers: Mapping[str, Any]) -> str | None:
    """The stored tensor that a layer's weights come from; None where they are calculated."""
    name = str(node.input[1])
    while name not in stored:
        maker = makers.get(name)
        if maker is None or maker.op_type not in ("DequantizeLinear", "Cast"):
            return None
        name = str(maker.input[0])
    return name


def _scale(maker: Any, stored: Mapping[str, Any]) -> tuple[float, ...]:
    """The steps of a tensor that comes out of a DequantizeLinear; none of any other."""
    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[1] not in stored:
        return ()
    return tuple(float(step) for step in np.ravel(stored[maker.input[1]]))


def _zero(maker: Any, stored: Mapping[str, Any]) -> tuple[int, Any]:
    """Which number stands for 0 in a tensor that comes out of a DequantizeLinear, and of which type it is."""
    value = stored[maker.input[2]] if len(maker.input) > 2 else np.uint8(0)
    return int(np.ravel(value)[0]), value.dtype
