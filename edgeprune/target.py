"""Target: the board a model is meant for, read from a TOML file. Every field is explained in `devices/README.md`."""

from __future__ import annotations

import math
import os
import platform
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.registry import shipped, unknown

HOST = "host"
"""The `arch` of the board file that means "the machine edgeprune runs on"."""
PRECISIONS = ("fp32", "fp16", "int8")
"""Number formats of model files, the most exact first."""
LOWEST_OPSET = 13
"""Of ONNX: the first in which weights can be int8 with a scale for each filter (QuantizeLinear, attribute axis)."""
HOST_THREADS = 4
"""Most threads to bench on the host: what most boards have, so that the two can be set side by side."""


@dataclass(frozen=True)
class Fact:
    """Something known of a board.

    Attributes:
        value: a text or a finite number; the unit is in the fact's name.
        source: who says so, or how it was derived.
    """

    value: str | int | float
    source: str


@dataclass(frozen=True)
class Target:
    """A board.

    Attributes:
        name: what `--target` calls it.
        title: its full name.
        arch: machine architecture as `uname -m` says it ("aarch64").
        cores: CPU cores that can be used.
        threads: thread counts to bench, ascending.
        channel_multiple: widths are rounded to multiples of this.
        runtimes: what executes models on it, preferred first.
        formats: file formats to export.
        precisions: number formats that its hardware serves, "fp32", "fp16", "int8".
        memory_bytes: main memory; None where models of the board differ, or unknown.
        onnx_opset: the latest operator set that its runtimes read; None for any.
        int8_symmetric: whether its runtimes want int8 activations with zero in the middle, as TensorRT does.
        container_platform: as `docker --platform` wants it ("linux/arm64/v8").
        sensors: quantities it can measure of itself ("temperature", "clock", "throttled", "power").
        warnings: sentences that a report on this board must show.
        facts: what else is known, each with its source.
    """

    name: str
    title: str
    arch: str
    cores: int
    threads: tuple[int, ...]
    channel_multiple: int
    runtimes: tuple[str, ...]
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    memory_bytes: int | None
    onnx_opset: int | None
    int8_symmetric: bool
    container_platform: str
    sensors: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: Mapping[str, Fact]

    def to_json(self) -> dict[str, Any]:
        """This target as a JSON document."""
        lists = {key: list(value) for key, value in vars(self).items() if isinstance(value, tuple)}
        return {**vars(self), **lists, "facts": {name: asdict(fact) for name, fact in self.facts.items()}}


def known_targets() -> dict[str, Path]:
    """The boards that edgeprune ships: name to file."""
    return {path.stem: path for path in sorted(shipped("devices").glob("*.toml"))}


def load_target(name_or_path: str) -> Target:
    """Read a board's file.

    Args:
        name_or_path: a name in `known_targets()`, or the path of a TOML file (it ends in `.toml` or contains a slash).

    Raises:
        UsageError: the name is unknown (the nearest is suggested), the file is missing or is not TOML, or a key is
            unknown, missing or of the wrong kind (names the file and the key).
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path or os.sep in name_or_path:
        path = Path(name_or_path)
    else:
        known = known_targets()
        if name_or_path not in known:
            raise unknown("target", name_or_path, known)
        path = known[name_or_path]
    document = _read(path)
    try:
        return _target(document)
    except ValueError as error:
        raise UsageError(str(error), where=str(path), fix="Every key is explained in devices/README.md.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = f"Check the path, or use one of: {', '.join(known_targets())}"
        raise UsageError(f"cannot read the target: {error.strerror}", where=str(path), fix=fix) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"not TOML: {error}", where=str(path), fix="See devices/README.md for an example.") from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


_Kind = tuple[str, Callable[[Any], bool]]
_TEXT: _Kind = ("a text", _is_text)
_COUNT: _Kind = ("a whole number above 0", _is_count)
_COUNTS: _Kind = (
    "a list of whole numbers above 0",
    lambda value: isinstance(value, list) and bool(value) and all(map(_is_count, value)),
)
_TEXTS: _Kind = ("a list of texts", lambda value: isinstance(value, list) and all(map(_is_text, value)))
_SOME_TEXTS: _Kind = ("a list of at least one text", lambda value: _TEXTS[1](value) and bool(value))
_OPSET: _Kind = (
    f"a whole number, {LOWEST_OPSET} or more",
    lambda value: type(value) is int and value >= LOWEST_OPSET,
)
_FLAG: _Kind = ("true or false", lambda value: isinstance(value, bool))
_TABLE: _Kind = ("a table", lambda value: isinstance(value, dict))

_FIELDS: Mapping[str, _Kind] = {
    "name": _TEXT,
    "title": _TEXT,
    "arch": _TEXT,
    "cores": _COUNT,
    "threads": _COUNTS,
    "channel_multiple": _COUNT,
    "runtimes": _SOME_TEXTS,
    "formats": _SOME_TEXTS,
    "precisions": _SOME_TEXTS,
    "memory_bytes": _COUNT,
    "onnx_opset": _OPSET,
    "int8_symmetric": _FLAG,
    "container_platform": _TEXT,
    "sensors": _TEXTS,
    "warnings": _TEXTS,
    "facts": _TABLE,
}
_OPTIONAL = frozenset({"memory_bytes", "onnx_opset", "int8_symmetric", "facts"})
_FROM_HOST = frozenset({"cores", "threads", "container_platform"})


def _target(document: dict[str, Any]) -> Target:
    """The target that a TOML document describes; a ValueError says which key is wrong."""
    host = document.get("arch") == HOST
    if host and _FROM_HOST & document.keys():
        given = ", ".join(sorted(_FROM_HOST & document.keys()))
        raise ValueError(f'{given}: filled in from this machine where arch = "{HOST}", leave it out')
    values = {**document, **(_this_machine() if host else {})}
    _check_fields(values)
    if values["threads"] != sorted(set(values["threads"])) or values["threads"][-1] > values["cores"]:
        raise ValueError(f"threads: must ascend and not exceed the {values['cores']} cores, is {values['threads']}")
    wrong = [name for name in values["precisions"] if name not in PRECISIONS]
    if wrong:
        raise ValueError(f"precisions: {wrong[0]!r} is not one of {', '.join(PRECISIONS)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", values["name"]):
        raise ValueError(
            f"name: {values['name']!r} becomes part of a folder's name; use letters, digits, '.', '_', '-'"
        )
    facts = {name: _fact(name, value) for name, value in values.get("facts", {}).items()}
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    fields = {"memory_bytes": None, "onnx_opset": None, "int8_symmetric": False, **fields, "facts": facts}
    return Target(**fields)


def _check_fields(values: Mapping[str, Any]) -> None:
    for key in values:
        if key not in _FIELDS:
            raise ValueError(str(unknown("key", key, _FIELDS)).replace("\n", ". "))
    for key, (kind, fits) in _FIELDS.items():
        if key not in values and key not in _OPTIONAL:
            raise ValueError(f"{key}: missing, wanted {kind}")
        if key in values and not fits(values[key]):
            raise ValueError(f"{key}: wanted {kind}, is {values[key]!r}")


def _fact(name: str, table: Any) -> Fact:
    if not isinstance(table, dict) or set(table) != {"value", "source"}:
        raise ValueError(f"facts.{name}: wanted a table with exactly the keys value and source, is {table!r}")
    value = table["value"]
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number or _is_text(value)):
        raise ValueError(f"facts.{name}.value: wanted a text or a finite number, is {value!r}")
    if not _is_text(table["source"]):
        raise ValueError(
            f"facts.{name}.source: wanted a text that says where the value is from, is {table['source']!r}"
        )
    return Fact(value, table["source"])


def _this_machine() -> dict[str, Any]:
    """What the host's file leaves out. Cores are those this process may use, in a container too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    arch = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}.get(platform.machine(), platform.machine())
    platforms = {"x86_64": "linux/amd64", "aarch64": "linux/arm64/v8"}
    return {
        "arch": arch,
        "cores": cores,
        "threads": sorted({1, min(cores, HOST_THREADS)}),
        "container_platform": platforms.get(arch, f"linux/{arch}"),
    }
