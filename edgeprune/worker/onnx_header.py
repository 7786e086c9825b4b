"""What an ONNX file says of its inputs and outputs, read without the onnx package, which boards lack.

Field numbers are those of onnx.proto; the wire format is that of Protocol Buffers ("Encoding" in its documentation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UINT8, _FLOAT16 = 2, 10  # TensorProto.DataType


@dataclass(frozen=True)
class Header:
    """What must be known of a file to feed it.

    Attributes:
        input: name of the first input.
        shape: of the first input, open axes as 1.
        open: the shape has open axes.
        output: name of the first output.
        float16: the input is a float16; neither this nor uint8: it is taken for a float32.
        quantised: it holds QuantizeLinear nodes.
        uint8: the input is a uint8.
        beside: the files with its weights, relative to its folder.
    """

    input: str
    shape: tuple[int, ...]
    open: bool
    output: str
    float16: bool
    quantised: bool
    uint8: bool = False
    beside: tuple[str, ...] = ()


def read_header(path: str) -> Header:
    """Read a file's header.

    Raises:
        ValueError: it is no ONNX file.
    """
    try:
        graph = _one(Path(path).read_bytes(), 7)  # ModelProto.graph
        source, sink = _one(graph, 11), _one(graph, 12)  # GraphProto.input, .output: ValueInfoProto
        tensor = _one(_one(source, 2), 1)  # .type.tensor_type
        kind = _integer(_one(tensor, 1), 0)[0]  # .elem_type
        axes = [dict(_fields(axis)) for number, axis in _fields(_one(tensor, 2)) if number == 1]  # .shape.dim
        shape = tuple(_integer(axis[1], 0)[0] if 1 in axis else 1 for axis in axes)  # .dim_value
        operators = {_one(node, 4) for number, node in _fields(graph) if number == 1}  # NodeProto.op_type
        beside = sorted({place.decode() for number, one in _fields(graph) if number == 5 for place in _locations(one)})
        name, result = _one(source, 1).decode(), _one(sink, 1).decode()
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no ONNX file: {error}") from error
    return Header(
        name,
        shape,
        any(1 not in axis for axis in axes),
        result,
        float16=kind == _FLOAT16,
        quantised=b"QuantizeLinear" in operators,
        uint8=kind == _UINT8,
        beside=tuple(beside),
    )


def _locations(tensor: bytes) -> Iterator[bytes]:
    """The file that holds a tensor's values (TensorProto.external_data, pairs of key and value), if one does."""
    for number, value in _fields(tensor):
        if number == 13 and _one(value, 1) == b"location":
            yield _one(value, 2)


def _one(message: bytes, wanted: int) -> bytes:
    """The first field of this number."""
    for number, value in _fields(message):
        if number == wanted:
            return value
    raise IndexError(f"field {wanted} is missing")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, raw value) of each field; of an integer its own bytes."""
    at = 0
    while at < len(message):
        key, at = _integer(message, at)
        kind = key & 7
        if kind == 2:
            size, at = _integer(message, at)
        elif kind == 0:
            size = _integer(message, at)[1] - at
        else:
            size = {1: 8, 5: 4}.get(kind, len(message) + 1)
        if at + size > len(message):
            raise IndexError("it is cut off, or no Protocol Buffers message")
        yield key >> 3, message[at : at + size]
        at += size


def _integer(message: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
