"""Files that are never half-written, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeprune.errors import EdgepruneError, OutputError

if TYPE_CHECKING:
    import numpy as np

Read = TypeVar("Read")
_ODD_SIGNS = re.compile(r"[^\w.-]+", re.ASCII)
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def plain_name(text: str) -> str:
    """A text as a file's name: every run of signs but ASCII letters, digits, "_", "." and "-" is one "-"."""
    return _ODD_SIGNS.sub("-", text)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to `path` when the block ends well and removed when it does not.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        with suppress(OSError):  # the folder may be what failed
            temporary.unlink()


def output_error(error: OSError, path: Path) -> OutputError:
    """What an operating system's refusal to write `path` means for the user."""
    if is_out_of_space(error):
        return OutputError(
            "the disk is full", where=str(path), fix="Free some space, or name another folder with --out."
        )
    reason = error.strerror or str(error)
    return OutputError(f"cannot write: {reason}", where=str(path), fix="Name a folder you can write to with --out.")


def is_out_of_space(error: OSError) -> bool:
    """Whether the disk, the user's quota or the largest allowed file is what ended a write."""
    return error.errno in _OUT_OF_SPACE


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, all of it or nothing."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write several texts in UTF-8, all of them or none.

    Raises:
        OutputError: the disk is full, or a folder cannot be written.
    """
    with ExitStack() as files:
        # Every file is complete before the first takes its name.
        for path, text in texts.items():
            files.enter_context(writing(path)).write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document, indented for people, all of it or nothing."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, schema: int) -> dict[str, Any]:
    """Read a JSON document of ours.

    Raises:
        EdgepruneError: the file is missing, torn, or of another schema number.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EdgepruneError(
            f"cannot read: {error}", where=str(path), fix="Check the path; if the file is torn, write it anew."
        ) from error
    if not isinstance(document, dict) or document.get("schema") != schema:
        raise EdgepruneError(
            f"not a document of schema {schema}",
            where=str(path),
            fix="It was written by another version of edgeprune, or is not ours.",
        )
    return document


def read_as(path: Path, schema: int, parse: Callable[[Mapping[str, Any]], Read], fix: str) -> Read:
    """What a JSON document of ours says.

    Args:
        path: of the document.
        schema: its number.
        parse: raises EdgepruneError for a document that is not what it should be.
        fix: then says how to come by one that is.

    Raises:
        EdgepruneError: the file is missing, torn, of another schema number, or refused by `parse`.
    """
    document = read_json(path, schema)
    try:
        return parse(document)
    except EdgepruneError as error:
        raise EdgepruneError(error.what, where=str(path), fix=fix) from error


def write_lines(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON documents, finite numbers only, one a line."""
    write_text(path, "".join(f"{json.dumps(document, allow_nan=False)}\n" for document in documents))


def append_lines(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    """Add JSON documents, finite numbers only, to a file, a line each; they are on the disk when this returns.

    A line before them that a power cut has torn stays, alone on its line.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    lines = "".join(f"{json.dumps(document, allow_nan=False)}\n" for document in documents).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                lines = lines if stream.read(1) == b"\n" else b"\n" + lines
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise output_error(error, path) from error


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON documents that `append_lines` wrote; nothing where there is no file, and torn lines are left out.

    Raises:
        EdgepruneError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EdgepruneError(f"cannot read: {error.strerror}", where=str(path), fix="Remove it.") from error
    found = []
    for line in lines:
        with suppress(ValueError):  # of UnicodeDecodeError and JSONDecodeError
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(document: Any) -> str:
    """The SHA-256 of a JSON document in its canonical form (sorted keys, no spaces)."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_arrays(arrays: Iterable[np.ndarray | None]) -> str:
    """The SHA-256 of the bytes of several arrays, one after the other, in hexadecimal."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(b"" if array is None else array.tobytes())
    return found.hexdigest()
