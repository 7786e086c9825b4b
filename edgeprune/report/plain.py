"""Frozen dataclasses to JSON values and back, by their type hints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edgeprune.errors import EdgepruneError


def to_plain(value: Any) -> Any:
    """`value` as JSON values: dataclasses and mappings become dicts, tuples become lists.

    A field whose metadata says `seldom` is left out where it is empty.
    """
    if is_dataclass(value):
        told = ((part, getattr(value, part.name)) for part in fields(value))
        return {part.name: to_plain(its) for part, its in told if its or not part.metadata.get("seldom")}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: Any, value: Any, where: str = "document") -> Any:
    """The object of type `kind` that `to_plain` turned into `value`.

    Args:
        kind: a dataclass, a scalar type, or `tuple`, `Mapping`, `Literal` and `| None` of such.
        value: JSON values.
        where: path of `value` in its document, for messages.

    Raises:
        EdgepruneError: a field is missing, unknown, or of another type; its path is named.
    """
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and type(None) in inner:
            return None
        return from_plain(next(one for one in inner if one is not type(None)), value, where)
    if origin is tuple:
        return _tuple(inner, value, where)
    if origin is Literal:
        return value if value in inner else _refuse(where, " or ".join(map(repr, inner)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _expect(isinstance(value, Mapping), where, "an object")
        return {key: from_plain(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(kind, value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, Mapping), where, "an object")
    hints = get_type_hints(kind)
    needed = {part.name for part in fields(kind) if MISSING is part.default is part.default_factory}
    for name in needed - value.keys():
        raise EdgepruneError("a field is missing", where=f"{where}.{name}")
    for name in value.keys() - hints.keys():
        raise EdgepruneError("a field is not known", where=f"{where}.{name}")
    return kind(**{name: from_plain(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _tuple(inner: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list | tuple), where, "a list")
    kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
    _expect(len(kinds) == len(value), where, f"a list of {len(kinds)}")
    return tuple(
        from_plain(kind, item, f"{where}[{at}]") for at, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python, and not to JSON.
    _expect(isinstance(value, kind) and isinstance(value, bool) == (kind is bool), where, f"of type {kind.__name__}")
    return value


def _expect(met: bool, where: str, wanted: str) -> None:
    if not met:
        _refuse(where, wanted)


def _refuse(where: str, wanted: str) -> Any:
    raise EdgepruneError(f"a field is not {wanted}", where=where)
