"""Criteria: which filters are redundant. One paper, one file, one function.

A criterion is a function `(view: FilterView, *, setting=default, ...) -> Tensor [n]`, higher = keep. Its keyword
arguments are its settings; their defaults and types are what the command line accepts. A paper that yields an order of
removal returns it as monotone scores. Scores of one space are compared with each other only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor

from edgeprune.criteria.elimination import Reading
from edgeprune.errors import UsageError
from edgeprune.registry import Registry, unknown

Side = Literal["after", "before"]
"""Feature maps after the activation (what the next layer sees, but before pooling) or before it."""

Function = TypeVar("Function", bound=Callable[..., Any])
Settle = Callable[..., Mapping[str, Any]]

CRITERIA = Registry(
    "criterion",
    {
        "qsfm": "edgeprune.criteria.qsfm:qsfm",
        "ssm": "edgeprune.criteria.ssm:ssm",
        "fscl": "edgeprune.criteria.fscl:fscl",
        "nystrom": "edgeprune.criteria.nystrom:nystrom",
        "apssf": "edgeprune.criteria.apssf:apssf",
        "reconstruction": "edgeprune.criteria.reconstruction:reconstruction",
        "l1": "edgeprune.criteria.norms:l1",
        "l2": "edgeprune.criteria.norms:l2",
        "fpgm": "edgeprune.criteria.fpgm:fpgm",
        "hrank": "edgeprune.criteria.hrank:hrank",
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
        filters: for each layer that makes them, float32 [n, inputs, *kernel], a linear layer's [n, inputs], a depthwise
            layer's [n, 1, *kernel]; zeros where a layer makes only some of the n.
        maps: `maps(side)` yields, batch by batch, the feature maps of calibration images, float32 [images, n, height,
            width], on the device of the model; weights are on the CPU.
        seed: for criteria that draw.
        read: gives `readers`; called if those are asked for.
        look: gives `readings`; called if those are asked for.
        gains: for each of `filters`, by what a normalisation multiplies its outputs, float32 [n]; ones where none does.
        residual: the layers' filters are added to each other.
        share: what share of the filters shall go, 0 to 1, so far as that is known.
    """

    name: str
    size: int
    filters: tuple[Tensor, ...]
    maps: Callable[[Side], Iterator[Tensor]]
    seed: int = 0
    read: Callable[[], tuple[Tensor, ...]] = tuple
    look: Callable[[], tuple[Reading, ...]] = tuple
    gains: tuple[Tensor, ...] = ()
    residual: bool = False
    share: float = 0.5

    @cached_property
    def weight(self) -> Tensor:
        """Each filter flattened, float32 [n, d]; where several layers share the space, their filters side by side."""
        return torch.cat([layer.flatten(1) for layer in self.filters], dim=1)

    @cached_property
    def readers(self) -> tuple[Tensor, ...]:
        """For each layer that mixes the n filters' outputs, the weights that it gives them.

        float32 [n, outputs, *kernel]; zeros where a layer reads only some. A linear layer's: [n, outputs * positions],
        where the maps are flattened before it.
        """
        return self.read()

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """For each layer that mixes the n filters' outputs, what it reads on calibration images, and its weights."""
        return self.look()

    def first_maps(self, side: Side, images: int) -> Iterator[Tensor]:
        """The feature maps of the first images, batch by batch, float32 [images, n, height, width]."""
        left = images
        for batch in self.maps(side):  # read to the end: it is a walk over the network that must arrive
            if left > 0:
                yield batch[:left]
                left -= len(batch)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a criterion returns that knows more than scores.

    Attributes:
        scores: float [n], higher = keep.
        removed: how many it would remove; `--ratio auto` takes that. 0 if it does not say.
        errors: by the number of filters that stay, the squared error in what reads them, float64 [n + 1], see
            `edgeprune.criteria.elimination.Elimination`; None if it does not know.
    """

    scores: Tensor
    removed: int = 0
    errors: Tensor | None = None


@dataclass(frozen=True)
class About:
    """What is said of a criterion besides its docstring.

    Attributes:
        paper: authors, year, and where to find it; empty for none.
        cost: what the work of one space grows with, n being its filters.
        needs_data: it looks at feature maps of calibration images.
        settle: `settle(views of all spaces, **settings)` gives the settings that follow from all spaces together.
    """

    paper: str = ""
    cost: str = ""
    needs_data: bool = False
    settle: Settle | None = None


def about(
    paper: str = "", *, cost: str = "", needs_data: bool = False, settle: Settle | None = None
) -> Callable[[Function], Function]:
    """Say of a criterion what `edgeprune criteria` lists, and how it settles; see `About`."""

    def mark(function: Function) -> Function:
        function.about = About(paper, cost, needs_data, settle)  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True)
class Criterion:
    """A criterion with its settings fixed."""

    name: str
    function: Callable[..., Tensor | Outcome]
    settings: Mapping[str, Any]

    def __call__(self, view: FilterView) -> Outcome:
        """The scores of one space, float [n], higher = keep; how many filters it would remove, 0 if it does not say."""
        found = self.function(view, **self.settings)
        return found if isinstance(found, Outcome) else Outcome(found, 0)

    def settled(self, views: Iterable[FilterView]) -> Criterion:
        """This criterion after it has seen all spaces that it will be asked about; most have nothing to settle."""
        settle = self.about.settle
        return self if settle is None else replace(self, settings={**self.settings, **settle(views, **self.settings)})

    @property
    def about(self) -> About:
        """What is said of it besides its docstring."""
        found: About = getattr(self.function, "about", About())
        return found


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
