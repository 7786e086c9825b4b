"""Mixed precision by time: layers whose int8 form takes longer than their float form stay in float.

What a layer takes is asked of the runtime, in int8 and in float, with the operators around it that quantise and
dequantise. A profile only points out layers: one layer in float between two in int8 needs conversions of its own, which
no profile of either file shows. So the file with those layers in float is raced against the one without, and taken only
if it is surely faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from edgeprune.errors import DeviceError, TrustError
from edgeprune.export.goal import Goal
from edgeprune.export.mixed import File, Making, mixed

LONGER = 1.05
"""A layer takes longer in int8 where it takes more than so many times as long as in float. Our own choice: the lower of
two medians of a profile repeats within some hundredths on a quiet machine."""


Writer = Callable[[Path], object]
"""Writes a file to a path, with what belongs beside it."""


@dataclass(frozen=True)
class Lap:
    """Two files timed in turns.

    Attributes:
        ratio: time of the first over time of the second.
        ci95: its 95 % interval.
        faster: whether the second is surely faster.
    """

    ratio: float
    ci95: tuple[float, float]
    faster: bool


class Race(Protocol):
    """Where files are timed: the board, or a machine of its kind. Never an emulated one."""

    def layer_ms(self, form: str, files: Sequence[Writer]) -> Sequence[Mapping[str, float]]:
        """What each layer of each file takes, in ms, by the names that profiles give them.

        Raises:
            DeviceError: the device cannot be reached, or the runtime does not tell.
        """

    def lap(self, form: str, file: Writer, other: Writer) -> Lap:
        """Time two files against each other.

        Raises:
            DeviceError: the device cannot be reached, or does not run a file.
            TrustError: the times are not to be trusted.
        """


def settled(making: Making[File], goal: Goal | None, race: Race | None) -> tuple[File, dict[str, Any]]:
    """The int8 file with those layers in float that cost too much accuracy, then those that cost time.

    Returns:
        The file, and what to tell: what `mixed` found, where there is a goal, and what `quickest` found, where there is
        a race.
    """
    told: dict[str, Any] = {}
    if goal is None:
        file = making.write(frozenset())
    else:
        file, told["mixed"] = mixed(making, goal)
    if race is not None:
        taken = frozenset(told["mixed"]["in_float"] if goal else ())
        most = max(goal.most, told["mixed"]["lost"]) if goal else 0.0
        file, told["race"] = quickest(making, (file, taken), race, goal, most)
    return file, told


def quickest(
    making: Making[File], start: tuple[File, AbstractSet[str]], race: Race, goal: Goal | None = None, most: float = 0.0
) -> tuple[File, dict[str, Any]]:
    """The file with those layers in float that take longer in int8, if it is surely faster; else the one there is.

    Args:
        making: how files come to be.
        start: the file there is, and its layers in float.
        race: where files are timed.
        goal: how accuracy is counted; None where nothing is asked of it.
        most: how many points may be lost then.

    Returns:
        The file, and what to tell: how many layers there are, those in float for the sake of time, the file that was
        tried, and why none was, where that is for want of times.
    """
    file, taken = start
    told: dict[str, Any] = {"layers": len(making.layers), "in_float": [], "steps": [], "missed": ""}
    if taken >= set(making.layers):
        return file, {**told, "missed": "no layer can be taken out of int8"}
    try:
        slower = _slower(making, file, taken, race)
    except DeviceError as error:  # the file there is is good; it is only not known to be the fastest
        return file, {**told, "missed": f"layers were not timed: {error.what}"}
    if not slower:
        return file, told
    other = making.write(taken | slower.keys())
    step: dict[str, Any] = {
        "layers": list(slower),
        "int8_ms": sum(before for before, _ in slower.values()),
        "float_ms": sum(after for _, after in slower.values()),
    }
    if goal:
        step["lost"] = goal.lost(making.run(other))
    try:
        lap = race.lap(making.form, partial(making.save, file), partial(making.save, other))
    except (DeviceError, TrustError) as error:
        which = f"{', '.join(slower)} took longer in int8 than in float and stay in int8"
        return file, {**told, "missed": f"{which}: {error.what}"}
    kept = lap.faster and step.get("lost", 0.0) <= most
    told["steps"] = [{**step, "ratio": lap.ratio, "ci95": list(lap.ci95), "kept": kept}]
    return (other, {**told, "in_float": list(slower)}) if kept else (file, told)


def _slower(making: Making[File], file: File, taken: AbstractSet[str], race: Race) -> Mapping[str, tuple[float, float]]:
    """The layers in int8 that take longer than in float, and what they take, those that take longest first.

    Raises:
        DeviceError: the runtime does not tell.
    """
    floating = making.write(frozenset(making.layers))
    found = race.layer_ms(making.form, [partial(making.save, one) for one in (file, floating)])
    stepped, plain = ({making.names.get(name, name): ms for name, ms in times.items()} for times in found)
    both = {
        layer: (stepped[layer], plain[layer])
        for layer in making.layers
        if layer in stepped and layer in plain and layer not in taken
    }
    if not both:
        raise DeviceError("the runtime does not tell what layers take")
    slower = {layer: (before, after) for layer, (before, after) in both.items() if before > LONGER * after}
    return dict(sorted(slower.items(), key=lambda pair: pair[1][1] - pair[1][0]))
