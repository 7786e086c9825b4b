"""PruningPlan: which filters stay, as data. A plan can be saved, read, compared, and applied on another machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.files import read_as, sha256_of_json, write_json

SCHEMA = 1
_POINTS = 100

Allocation = Literal["uniform", "damage", "outcome"]


@dataclass(frozen=True)
class Cost:
    """What a model costs for one image.

    Attributes:
        macs: multiply-accumulates of convolutions and linear layers (1 MAC = 2 FLOPs).
        parameters: number of learned weights (buffers such as running statistics are not counted).
        peak_activation_bytes: the most bytes of fp32 activations alive at once, if each is freed after its last use.
    """

    macs: int
    parameters: int
    peak_activation_bytes: int

    def to_json(self) -> dict[str, int]:
        """This cost as a JSON document."""
        return asdict(self)


@dataclass(frozen=True)
class Budget:
    """How much is asked to go.

    Exactly one of the five is set.

    Attributes:
        ratio: share of each space's filters to remove, 0 < ratio < 1; "auto": what the criterion itself removes.
        macs: share of the uncut model's MACs to keep, 0 < macs < 1.
        speedup: how many times as fast as the uncut model to become on a board, above 1.
        latency_ms: the longest that a call may take on a board, in milliseconds.
        max_drop: as much as makes the model fastest on a board and loses at most so many points of accuracy.
    """

    ratio: float | Literal["auto"] | None = None
    macs: float | None = None
    speedup: float | None = None
    latency_ms: float | None = None
    max_drop: float | None = None

    @property
    def of_time(self) -> bool:
        """Whether it is one of time, solved on a table."""
        return any(one is not None for one in (self.speedup, self.latency_ms, self.max_drop))

    @property
    def share(self) -> float:
        """About what share of the filters goes; 1 - macs is that of layers narrowed on one side only."""
        if self.macs is not None:
            return 1 - self.macs
        if self.speedup is not None:
            return 1 - 1 / self.speedup
        return 0.5 if self.ratio is None or self.ratio == "auto" else self.ratio

    def check(self) -> None:
        """Refuse a budget that asks for nothing, for everything, or for no number.

        Raises:
            UsageError: naming the option and its range.
        """
        if self.speedup is not None and not 1 < self.speedup < float("inf"):  # also false for nan
            what = f"--speedup must be a number above 1, got {self.speedup}"
            raise UsageError(what, fix="For example: --speedup 1.5")
        if self.latency_ms is not None and not 0 < self.latency_ms < float("inf"):
            raise UsageError(f"--latency must be above 0, got {self.latency_ms:g}ms", fix="For example: --latency 30ms")
        if self.max_drop is not None and not 0 <= self.max_drop < _POINTS:
            what = f"--max-drop must be from 0 to below {_POINTS} points, got {self.max_drop:g}"
            raise UsageError(what, fix="For example --max-drop 0.5.")
        for name, value in (("ratio", self.ratio), ("macs", self.macs)):
            if isinstance(value, float | int) and not 0 < value < 1:  # also false for nan
                keeps = "the share of filters to remove" if name == "ratio" else "the share of MACs to keep"
                what = f"--{name} must lie between 0 and 1, both excluded; got {value}"
                raise UsageError(what, fix=f"It is {keeps}, for example 0.3.")

    def to_json(self) -> dict[str, float | Literal["auto"]]:
        """The asked budget as a JSON document: the one field that is set."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class PruningPlan:
    """A decision: for each channel space, the filters that stay.

    Attributes:
        model: fingerprint of the uncut model's channel map; a plan is refused on any other.
        criterion: name of the criterion that scored the filters.
        settings: the criterion's settings, JSON values only.
        budget: what was asked.
        channel_multiple: widths were rounded to multiples of this.
        sizes: space name to its uncut number of filters, every space of the model.
        keep: space name to the ascending indices that stay; spaces not named stay whole.
        macs_kept: reached share of the uncut MACs.
        allocation: how it was decided how much each space gives up: "uniform", "damage" (see
            `edgeprune.prune.allocate.allocate`), or "outcome" of the criterion.
    """

    model: str
    criterion: str
    settings: Mapping[str, Any]
    budget: Budget
    channel_multiple: int
    sizes: Mapping[str, int]
    keep: Mapping[str, tuple[int, ...]]
    macs_kept: float = field(compare=False)
    allocation: Allocation = "uniform"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the decision; what artifacts refer to."""
        return sha256_of_json({"model": self.model, "keep": {name: list(kept) for name, kept in self.keep.items()}})

    def width(self, space: str) -> int:
        """How many filters of a space stay."""
        return len(self.keep[space]) if space in self.keep else self.sizes[space]

    def to_json(self) -> dict[str, Any]:
        """This plan as a JSON document."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "criterion": self.criterion,
            "settings": dict(self.settings),
            "asked": self.budget.to_json(),
            "allocation": self.allocation,
            "reached": {"macs": self.macs_kept},
            "channel_multiple": self.channel_multiple,
            "sizes": dict(self.sizes),
            "keep": {name: list(kept) for name, kept in self.keep.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PruningPlan:
        """The plan a JSON document describes.

        Raises:
            EdgepruneError: a field is missing or of the wrong kind.
        """
        try:
            return cls(
                model=str(document["model"]),
                criterion=str(document["criterion"]),
                settings=dict(document["settings"]),
                budget=Budget(**document["asked"]),
                channel_multiple=int(document["channel_multiple"]),
                sizes={str(name): int(size) for name, size in document["sizes"].items()},
                keep={str(name): tuple(int(i) for i in kept) for name, kept in document["keep"].items()},
                macs_kept=float(document["reached"]["macs"]),
                allocation=_allocation(document.get("allocation", "uniform")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EdgepruneError(f"not a pruning plan: {type(error).__name__}: {error}") from error

    def save(self, path: Path) -> None:
        """Write this plan."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> PruningPlan:
        """Read a plan written by `save`.

        Raises:
            EdgepruneError: the file is missing, torn, or not a plan.
        """
        return read_as(path, SCHEMA, cls.from_json, "Make one with --dry-run --json, or take the plan.json of a run.")


def _allocation(word: object) -> Allocation:
    for known in get_args(Allocation):
        if word == known:
            return cast(Allocation, known)
    raise ValueError(f"allocation {word!r}")
