"""ONNX in fp16: weights and arithmetic in half precision, float32 images in and float32 outputs out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgeprune.export.onnx_sort import sort_nodes
from edgeprune.export.onnx_store import is_large, save

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

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    beyond = 0
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            beyond += int((np.abs(values) > LARGEST).sum())
    converted = _converted(copied)
    sort_nodes(converted.graph)
    warnings = [f"{beyond} weights are beyond {LARGEST:.0f}, the most that fp16 holds, and were cut off"]
    return converted, warnings if beyond else []


def _converted(proto: Any) -> Any:
    """The network in fp16. The converter infers the shapes of a large one from a file only."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    if not is_large(proto):
        return convert_float_to_float16(proto, keep_io_types=True)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder) / "given.onnx"
        save(proto, path)
        return convert_float_to_float16(str(path), keep_io_types=True)
