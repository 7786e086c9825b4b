"""Walk: a program run over many images, piece by piece, front to back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.program import Program, forget, run_node
from edgeprune.resize import all_tensors

Change = Callable[[Mapping[str, Any]], Any]
"""What a node becomes, from the values alive where it runs."""


class Walk:
    """Runs a program over batches of images up to one node after another, front to back.

    Asking for nodes in the order they run costs about one forward pass in all: between two questions the walk keeps,
    for each batch, the values alive at the last place where they fit into `memory_bytes` (or at the narrowest place, if
    none does). Weights may be changed between questions if no operator before the last asked node reads them.

    Args:
        program: what to run.
        module: where the stored tensors are.
        batches: images, each a float32 tensor [n, channels, height, width].
        memory_bytes: how much to keep between questions, for all batches together.

    Attributes:
        images: how many there are.
    """

    def __init__(
        self, program: Program, module: nn.Module, batches: Sequence[Tensor], memory_bytes: int = 1 << 30
    ) -> None:
        self._program, self._module = program, module
        self._batches = batches
        self.images = sum(len(batch) for batch in batches)
        self._limit = memory_bytes // max(1, sum(len(batch) for batch in batches))
        self._restart()

    def _restart(self) -> None:
        self._place = -1
        self._kept: list[dict[str, Any]] = [{self._program.input: batch} for batch in self._batches]

    def _resting_place(self, goal: int) -> int:
        """Where to keep the values when the walk has come to `goal`."""
        alive = self._program.alive_bytes
        places = range(max(self._place, 0), goal + 1)
        fitting = [place for place in places if alive[place] <= self._limit]
        return fitting[-1] if fitting else min(places, key=lambda place: alive[place], default=self._place)

    def stream(self, node: str) -> Iterator[Tensor]:
        """The node's value for each batch in turn, a tensor [n, ...]. The walk moves on once all batches were taken."""
        for (value,) in self.stream_all((node,)):
            yield value

    def stream_all(self, nodes: Sequence[str]) -> Iterator[tuple[Tensor, ...]]:
        """The values of several nodes for each batch in turn, in the order asked."""
        program = self._program
        missing = [node for node in nodes if node not in self._kept[0]] if self._kept else []
        if any(program.position[node] <= self._place for node in missing):
            self._restart()  # asked out of order: slower, never wrong
            missing = list(nodes)
        goal = max([self._place, *(program.position[node] for node in missing)])
        rest = self._resting_place(goal)
        state = all_tensors(self._module)
        kept: list[dict[str, Any]] = []
        for start in self._kept:
            values, saved = dict(start), dict(start)
            asked = {node: start[node] for node in nodes if node in start}
            for place in range(self._place + 1, goal + 1):
                name = program.nodes[place].name
                values[name] = run_node(program, program.nodes[place], values, state)
                if name in nodes:
                    asked[name] = values[name]
                forget(program, values, place)
                if place == rest:
                    saved = dict(values)
            kept.append(saved)
            yield tuple(asked[node] for node in nodes)
        self._place, self._kept = rest, kept

    def finish(self, changed: Mapping[str, Change], images: int) -> Iterator[tuple[Tensor, ...]]:
        """The outputs of the program, batch by batch, if some nodes had other values; the walk stays where it is.

        Args:
            changed: node -> what it becomes, from the values alive where it runs.
            images: for how many images at least, so far as there are as many.
        """
        program, state = self._program, all_tensors(self._module)
        rests = all(program.position[node] > self._place for node in changed)
        seen = 0
        for kept, batch in zip(self._kept, self._batches, strict=True):
            if seen >= images:
                break
            seen += len(batch)
            values = dict(kept) if rests else {program.input: batch}
            for place in range(self._place + 1 if rests else 0, len(program.nodes)):
                node = program.nodes[place]
                change = changed.get(node.name)
                values[node.name] = change(values) if change else run_node(program, node, values, state)
                forget(program, values, place)
            yield tuple(values[node.name] for node in program.outputs)


def refuse_infinite(layer: str, *looked_at: tuple[Walk, Sequence[str]]) -> NoReturn:
    """Say which image brings numbers that are not finite to a layer.

    Args:
        layer: its module path.
        looked_at: walks, and the nodes of each to look at.

    Raises:
        ModelError: always.
    """
    firsts = [first for walk, nodes in looked_at if (first := _first_infinite(walk, nodes)) is not None]
    image = f", calibration image {min(firsts)} (counted from 0)" if firsts else ""
    raise ModelError(
        "a layer reads or puts out numbers that are not finite on the calibration images",
        where=f"{layer}{image}",
        fix="Check the images and the weights: the uncut model itself must work on them.",
    )


def _first_infinite(walk: Walk, nodes: Sequence[str]) -> int | None:
    """The first image for which the value of a node is not finite, counted from 0."""
    seen = 0
    for values in walk.stream_all(nodes):
        fine = torch.stack([value.flatten(1).isfinite().all(dim=1) for value in values]).all(dim=0)
        if not bool(fine.all()):
            return seen + int((~fine).nonzero()[0])
        seen += len(fine)
    return None
