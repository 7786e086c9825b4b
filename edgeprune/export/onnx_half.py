"""ONNX in fp16: weights and arithmetic in half precision, float32 images in and float32 outputs out."""

from __future__ import annotations

from typing import Any

from edgeprune.export.onnx_sort import sort_nodes

LARGEST = 65504.0
"""The largest number of IEEE 754 half precision; what lies beyond it becomes this."""


def half(proto: Any) -> tuple[Any, list[str]]:
    """The same network in fp16, by ONNX Runtime's converter, its nodes in an order that onnx's checker takes.

    Args:
        proto: a ModelProto in float32, which is not changed.

    Returns:
        The new ModelProto, and what to warn of: weights that fp16 cannot hold.
    """
    import numpy as np
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    beyond = 0
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            beyond += int((np.abs(values) > LARGEST).sum())
    converted = convert_float_to_float16(copied, keep_io_types=True)
    sort_nodes(converted.graph)
    warnings = [f"{beyond} weights are beyond {LARGEST:.0f}, the most that fp16 holds, and were cut off"]
    return converted, warnings if beyond else []
