"""Criteria: which filters are redundant. One paper, one file, one function.

A criterion is a function `(view: FilterView, *, setting=default, ...) -> Tensor [n]`, higher = keep. Its keyword
arguments are its settings; their defaults and types are what the command line accepts. A paper that yields an order of
removal returns it as monotone scores. Scores of one space are compared with each other only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from torch import Tensor

from edgeprune.errors import UsageError
from edgeprune.registry import Registry, unknown

Side = Literal["after", "before"]
"""Feature maps after the activation (what the next layer sees, but before pooling) or before it."""

CRITERIA = Registry(
    "criterion",
    {
        "qsfm": "edgeprune.criteria.qsfm:qsfm",
        "l1": "edgeprune.criteria.l1:l1",
        "random": "edgeprune.criteria.random:random",
    },
    group="edgeprune.criteria",
)


@dataclass(frozen=True, eq=False)
class FilterView:
    """What a criterion may look at: the n filters of one space.

    Attributes:
        name: the space.
        size: n.
        weight: float32 [n, d]: each filter flattened; where several layers share the space, their filters side by side.
        maps: `maps(side)` yields, batch by batch, the feature maps of calibration images, float32 [images, n, height,
            width].
        seed: for criteria that draw.
    """

    name: str
    size: int
    weight: Tensor
    maps: Callable[[Side], Iterator[Tensor]]
    seed: int = 0


@dataclass(frozen=True)
class Criterion:
    """A criterion with its settings fixed."""

    name: str
    function: Callable[..., Tensor]
    settings: Mapping[str, Any]

    def __call__(self, view: FilterView) -> Tensor:
        """The scores of one space, float [n], higher = keep."""
        return self.function(view, **self.settings)


def configure(name: str, options: Mapping[str, str] | None = None) -> Criterion:
    """A criterion by name, its defaults replaced by `options` as typed on the command line.

    Raises:
        UsageError: unknown name or setting (with the nearest), or a value of the wrong kind.
    """
    function = CRITERIA.load(name)
    hints = get_type_hints(function)
    settings = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for key, text in (options or {}).items():
        if key not in settings:
            raise unknown(f"setting of criterion {name!r}", key, settings or ["(none)"])
        settings[key] = _parse(f"{name} setting {key}", text, hints[key])
    return Criterion(name, function, settings)


def _parse(what: str, text: str, kind: Any) -> Any:
    choices = get_args(kind)
    if choices:
        if text not in choices:
            raise unknown(what, text, choices)
        return text
    try:
        value = kind(text)
    except ValueError:
        raise UsageError(f"{what} must be {'a whole number' if kind is int else 'a number'}, got {text!r}") from None
    if not 0 < value < float("inf"):  # also false for nan
        raise UsageError(f"{what} must be a number above zero, got {text}")
    return value
