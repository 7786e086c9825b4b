"""A TFLite file taken apart into the objects of its schema, changed, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_ALIGNMENT = 16
"""Of the first byte of a weight, which kernels read in place: `force_align` of Buffer.data in TFLite's schema."""


def unpacked(content: bytes) -> Any:
    """The file as a ModelT."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(content, 0)


def packed(model: Any, size: int) -> bytes:
    """The file of a ModelT, weights where kernels want them.

    Args:
        model: a ModelT whose constants lie in its own buffers.
        size: about as many bytes as it will have.
    """
    import flatbuffers

    class Aligned(flatbuffers.Builder):  # type: ignore[misc]
        """Python's code from the schema leaves `force_align` out."""

        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802 (its name there)
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    builder = Aligned(size)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def new_operator(
    model: Any, code: int, sources: Sequence[int], result: int, options: Any = None, version: int = 1
) -> Any:
    """An OperatorT, in no graph yet, whose kind the file knows from now on.

    Args:
        model: a ModelT.
        code: of `BuiltinOperator`.
        sources: places of the tensors that it reads.
        result: the place of the one that it writes.
        options: its own, such as MulOptionsT().
        version: of its kind, where the file does not know that yet.
    """
    from ai_edge_litert import schema_py_generated as schema

    known = [max(one.builtinCode, one.deprecatedBuiltinCode) for one in model.operatorCodes]
    if code not in known:
        kind = schema.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = code
        kind.version = version
        model.operatorCodes.append(kind)
        known.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = known.index(code)
    operator.inputs, operator.outputs = np.array(sources, np.int32), np.array([result], np.int32)
    if options is not None:
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    return operator
