"""Where an ONNX network's bytes lie: in one file, or, where that would be too large, its weights in a file beside it.

The form is ONNX's own (onnx/docs/ExternalData.md), as onnx writes it with `all_tensors_to_one_file`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeprune.errors import ExportError
from edgeprune.files import output_error, sha256_of

Stored = bytes | Path
"""A file: its bytes, or where it lies with the file of its weights beside it."""
LARGEST_WEIGHTS = 2_000_000_000
"""Bytes of weights that one ONNX file holds. A Protocol Buffers message ends at 2**31 - 1 bytes (protobuf.dev, "Proto
Limits"; `onnx.checker.MAXIMUM_PROTOBUF`); what is left of them is for the graph."""
DATA = ".data"
"""What the name of a file of weights adds to the name of its ONNX file."""
_SMALLEST = 1024
"""Bytes. Smaller tensors stay in the graph, as onnx leaves them: shape inference reads shapes and axes there."""


def is_large(proto: Any) -> bool:
    """Whether a ModelProto's weights are more than one file holds."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > LARGEST_WEIGHTS


def save(proto: Any, path: Path) -> None:
    """Write a ModelProto, its weights into `path` + `DATA` where they are too large; the same one gives the same bytes.

    Large weights leave the ModelProto, which names the file instead.

    Raises:
        ExportError: it is too large all the same.
        OSError: it cannot be written.
    """
    if is_large(proto):
        _part(proto, path)
    path.write_bytes(_bytes(proto, path.name))


def _part(proto: Any, path: Path) -> Path:
    """Move a ModelProto's weights into the file beside `path`; that file."""
    from onnx.external_data_helper import set_external_data, write_external_data_tensors

    data = path.with_name(path.name + DATA)
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) >= _SMALLEST:
            set_external_data(tensor, data.name)
    write_external_data_tensors(proto, str(path.parent))
    return data


def _bytes(proto: Any, name: str) -> bytes:
    try:
        content: bytes = proto.SerializeToString(deterministic=True)
    except Exception as error:  # classes of protobuf's own, which differ by version
        what, fix = "the model does not make a valid ONNX file", "Please report the model."
        raise ExportError(what, where=f"{name}: {str(error)[:300]}", fix=fix) from error
    return content


@contextmanager
def laid_out(proto: Any, out: Path) -> Iterator[Stored]:
    """A finished ModelProto as it will be stored: its bytes, or where it lies under its own name.

    That is in a folder beside `out`, which is removed at the end. See `save`: large weights leave the ModelProto. Its
    metadata then has the SHA-256 of their file, so that the ONNX file's own stands for both.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    if not is_large(proto):
        yield _bytes(proto, out.name)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent)
    except OSError as error:
        raise output_error(error, out) from error
    with folder as name:
        path = Path(name) / out.name
        try:
            data = _part(proto, path)
            proto.metadata_props.add(key="weights_sha256", value=sha256_of(data))
            path.write_bytes(_bytes(proto, path.name))
            data.chmod(path.stat().st_mode)  # onnx makes it readable for its owner alone
        except OSError as error:
            raise output_error(error, out) from error
        yield path


@contextmanager
def ready(proto: Any) -> Iterator[Stored]:
    """A ModelProto, which is not changed, as a runtime on this machine can open it."""
    if not is_large(proto):
        yield _bytes(proto, "a model")
        return
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path, copied = Path(folder) / "model.onnx", type(proto)()
        copied.CopyFrom(proto)
        save(copied, path)
        del copied
        yield path
