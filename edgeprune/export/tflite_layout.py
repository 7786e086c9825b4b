"""How a TFLite file lies in memory: short names, and weights where kernels want them."""

from __future__ import annotations

from typing import Any

import numpy as np

_LARGEST = 2**31 - 1
"""Flatbuffers end there; in longer files weights lie behind the tables."""
_ALIGNMENT = 16
"""Of the first byte of a weight, which kernels read in place: `force_align` of Buffer.data in TFLite's schema."""


def laid_out(content: bytes) -> bytes:
    """The same file as TensorFlow would lay it out.

    litert-torch puts module paths into the name of every tensor, and neither it nor ai-edge-quantizer aligns weights.
    Inner tensors are called `t0`, `t1`, ... then; inputs and outputs keep their names.

    Raises:
        ValueError: there is nothing in it.
    """
    if not content:
        raise ValueError("the converter wrote an empty file")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(flatbuffers.Builder):  # type: ignore[misc]
        """Python's code from the schema leaves `force_align` out."""

        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802 (its name there)
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    if len(content) > _LARGEST:
        return content
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # it lies behind the tables
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    for graph in model.subgraphs:
        ends = {*graph.inputs, *graph.outputs}
        for place, tensor in enumerate(graph.tensors):
            if place not in ends:
                tensor.name = f"t{place}".encode()
    builder = Aligned(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
