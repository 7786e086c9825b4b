"""Mixed precision: which layers of an int8 file stay in float, so that it is right as often as is wanted.

A layer is an operator with weights, and what is computed from it before the next one. Each is brought to int8 alone,
all others in float; how far that moves the outputs is its sensitivity. Alone, because in a network all in int8 the
errors of the others hide what one adds; by distance, because one layer seldom changes the answer to any of some hundred
images. Then layers leave int8, the most sensitive first, until the file is right often enough: partial quantisation, as
in H. Wu et al., Integer Quantization for Deep Learning Inference (2020, arXiv:2004.09602).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from edgeprune.distance import distance
from edgeprune.export.execute import Run
from edgeprune.export.goal import Goal

SENSITIVITY_IMAGES = 32
"""Images on which the outputs of a file with one layer in int8 are compared with those in float."""

METRICS = {"top1": "top-1", "agreement": "top-1 agreement"}
"""What is counted, in words."""

File = TypeVar("File")


@dataclass(frozen=True)
class Operator:
    """An operator of a graph, in the order they are computed.

    Attributes:
        key: what the quantizer knows it by.
        inputs: names of the tensors it reads.
        outputs: names of those it writes.
        layer: the name of its weights' layer; empty if it has none.
    """

    key: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: str = ""


def layers_of(operators: Iterable[Operator]) -> dict[str, tuple[str, ...]]:
    """Each layer and the keys of its operators: that with the weights, and what is computed from it before the next.

    What reads several layers is of the last of them; what reads none is of the first. So all layers in float is all of
    the network in float.
    """
    names: list[str] = []
    keys: dict[str, list[str]] = {}
    latest: dict[str, int] = {}
    early: list[str] = []
    for one in operators:
        if one.layer and one.layer not in keys:
            names.append(one.layer)
            keys[one.layer] = []
        place = names.index(one.layer) if one.layer else max((latest.get(name, -1) for name in one.inputs), default=-1)
        latest.update(dict.fromkeys(one.outputs, place))
        (keys[names[place]] if place >= 0 else early).append(one.key)
    if names:
        keys[names[0]][:0] = early
    return {name: tuple(found) for name, found in keys.items()}


@dataclass(frozen=True, eq=False)
class Making(Generic[File]):
    """How files with some layers in float come to be.

    Attributes:
        layers: of the network, in its order.
        write: makes the file with some of them in float.
        run: makes a file ready to run.
        form: the format of the files.
        save: writes a file to a path.
        names: what a profile calls a layer -> the layer, for those that it calls otherwise.
    """

    layers: tuple[str, ...]
    write: Callable[[AbstractSet[str]], File]
    run: Callable[[File], Run]
    form: str = ""
    save: Callable[[File, Path], object] = lambda file, path: path.write_bytes(file)  # type: ignore[arg-type]
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """A file that was tried: the layers taken out of int8 since the one before, with their sensitivities."""

    layers: tuple[str, ...]
    distances: tuple[float, ...]
    before: float
    after: float

    def to_json(self) -> dict[str, Any]:
        distances = [float(f"{one:.3g}") for one in self.distances]
        return {"layers": list(self.layers), "distances": distances, "before": self.before, "after": self.after}


def mixed(making: Making[File], goal: Goal) -> tuple[File, dict[str, Any]]:
    """The int8 file that loses no more than is allowed, with as few layers in float as the search finds.

    Returns:
        The file, the one that loses least if none is good enough, and what to tell: how much is lost in int8 and in
        float, each try, the layers in float, and what is missed. Without a search where none may stay in float.
    """
    whole = making.write(frozenset())
    lost = goal.lost(making.run(whole))
    told: dict[str, Any] = {
        "metric": goal.metric,
        "images": len(goal.images),
        "max_drop": goal.most,
        "layers": len(making.layers),
        "lost_in_int8": lost,
        "lost": lost,
        "in_float": [],
        "steps": [],
        "missed": "",
    }
    if goal.met(lost):
        return whole, told
    missed = f"at most {goal.most:g} points of {METRICS[goal.metric]} were to be lost, and"
    if not making.layers:
        return whole, {**told, "missed": f"{missed} {lost:.2f} are: no layer can be taken out of int8"}
    if not (most := int(goal.in_float * len(making.layers))):
        return whole, {**told, "missed": f"{missed} {lost:.2f} are; with a layer in float it would be too slow"}
    floating = making.run(making.write(frozenset(making.layers)))
    told["lost_in_float"] = in_float = goal.lost(floating)
    if not goal.met(in_float):
        why = f"{in_float:.2f} are in float already, so all layers are left in int8: cut less, or recover with more"
        return whole, {**told, "missed": f"{missed} {why}"}
    ranking = _ranking(making, floating, goal)
    file, taken, steps = _search(making, ranking, (whole, lost), most, goal)
    best = min(lost, *(step.after for step in steps)) if steps else lost
    told |= {"lost": best, "in_float": list(ranking)[:taken], "steps": [one.to_json() for one in steps]}
    return file, told if goal.met(best) else {**told, "missed": f"{missed} {best:.2f} are by the best mix found"}


def _search(
    making: Making[File], ranking: Mapping[str, float], whole: tuple[File, float], most: int, goal: Goal
) -> tuple[File, int, list[_Step]]:
    """Take layers out of int8, so many at most, until no more than is allowed is lost.

    Returns:
        The best file, how many of its layers are in float, and all tries.
    """
    (found, best), order, taken = whole, list(ranking), 0
    steps: list[_Step] = []
    done, before = 0, best
    for count in takewhile(lambda tried: tried <= most, _counts(len(order))):
        file, added = making.write(frozenset(order[:count])), order[done:count]
        after = goal.lost(making.run(file))
        steps.append(_Step(tuple(added), tuple(ranking[layer] for layer in added), before, after))
        done, before = count, after
        goal.tick(len(order) + len(steps), _tries(len(order)))
        if after < best:
            found, taken, best = file, count, after
        if goal.met(best):
            break
    return found, taken, steps


def _ranking(making: Making[File], floating: Run, goal: Goal) -> Mapping[str, float]:
    """Each layer's sensitivity, the greatest first; of equals the one that comes first in the network."""
    expected = _tensors(goal, floating)
    found: dict[str, float] = {}
    for layer in making.layers:
        alone = making.run(making.write(frozenset(making.layers) - {layer}))
        found[layer] = distance(expected, _tensors(goal, alone))
        goal.tick(len(found), _tries(len(making.layers)))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _tensors(goal: Goal, run: Run) -> list[tuple[Tensor, ...]]:
    return [tuple(map(torch.from_numpy, outputs)) for outputs in goal.outputs(run, SENSITIVITY_IMAGES)]


def _counts(layers: int) -> Iterator[int]:
    """How many layers are in float in each try: a third more each time, so that some 4 ln n tries do for n layers."""
    count = 1
    while count < layers:
        yield count
        count += max(1, count // 3)


def _tries(layers: int) -> int:
    """How many files a search makes at most, beside those all in int8 and all in float."""
    return layers + len(list(_counts(layers)))
