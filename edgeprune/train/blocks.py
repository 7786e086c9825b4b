"""Block by block: all weights of a cut block learn, so that it computes what it computed before.

Least squares (`edgeprune.recover.reconstruct`) gives the layers *behind* a cut their best weights; those that put out
the filters which stayed are as they were. Here all layers of a block learn together, by gradients, from what the model
as already mended feeds the block to what the uncut model's block put out, front to back: no labels, and no training of
the whole. Li et al. 2021 (BRECQ, https://arxiv.org/abs/2102.05426, section 3.2) do so for quantised blocks. (For cut
ones, with a rate relative to the size of each weight: our choice; measured in docs/decisions/0015.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgeprune.model import Model, with_tensors
from edgeprune.program import Program, operator_of, run_node
from edgeprune.progress import Tick, silent
from edgeprune.recover.batchnorm import norm_nodes
from edgeprune.recover.finished import Finished, Nowhere, Refit
from edgeprune.recover.reconstruct import Cut
from edgeprune.resize import all_tensors
from edgeprune.train.device import mixed_precision
from edgeprune.walk import Walk

STEPS, BATCH = 400, 32
RATE = 1e-2
"""At the beginning, as a share of a tensor's root mean square: by so much Adam moves its weights in a step."""

_HELD_OUT_EVERY = 10
"""Every tenth calibration image says whether a block became better; it does not learn from them."""

_AT_ONCE = 8
_WALK_BYTES = 1 << 28
_BLOCK_BYTES = 1 << 29
"""For what goes into a block and what should come out of it, both of as many of the images as there is room for."""

_FIRST_JOB = 5000
"""Numbers of finished blocks begin here, those of finished layers at 0."""


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a network with one value going in and one coming out, both with as many channels as before the cut.

    Attributes:
        start: the value going in: a node, or the network's input.
        end: the node that comes out.
        nodes: its operators, in the order they run.
        learns: the stored tensors that no other part reads and that may be trained.
        name: module path of its last layer.
    """

    start: str
    end: str
    nodes: tuple[fx.Node, ...]
    learns: tuple[str, ...]
    name: str


def blocks_of(cut: Cut) -> tuple[Block, ...]:
    """The smallest blocks that hold what was cut, in the order they run."""
    program, layers = cut.pruned_program, {layer.node: layer.name for layer in cut.channel_map.layers}
    before, after = all_tensors(cut.uncut.module), all_tensors(cut.pruned.module)
    trainable = {name for name, one in cut.pruned.module.named_parameters() if one.requires_grad}
    found: list[Block] = []
    begin = -1
    for end in _narrow(cut):
        nodes = program.nodes[begin + 1 : end + 1]
        names = [layers[node.name] for node in nodes if node.name in layers]
        read = _stored_read_by(program, nodes)
        if names and any(before[tensor].shape != after[tensor].shape for tensor in read):
            start = program.nodes[begin].name if begin >= 0 else program.input
            elsewhere = _stored_read_by(program, [*program.nodes[: begin + 1], *program.nodes[end + 1 :]])
            learns = tuple(sorted(read & trainable - elsewhere))
            found.append(Block(start, program.nodes[end].name, nodes, learns, names[-1]))
        begin = end
    return tuple(found)


def _stored_read_by(program: Program, nodes: Sequence[fx.Node]) -> set[str]:
    read = (one.name for node in nodes for one in node.all_input_nodes)
    return {program.stored[name] for name in read if name in program.stored}


def _narrow(cut: Cut) -> Iterator[int]:
    """The places after which one tensor alone is needed, which is to be what it was before the cut.

    That is not so of what a norm reads: a refit writes offsets into the norm's mean.
    """
    program, was = cut.pruned_program, cut.uncut_program.shapes
    norms = set(norm_nodes(program))
    alive: set[str] = {program.input}
    for place, node in enumerate(program.nodes):
        alive = {name for name in {*alive, node.name} if program.last_use[name] > place}
        shape = program.shapes.get(node.name)
        inner = any(user in norms or operator_of(user) == "getitem" for user in node.users)
        if alive == {node.name} and shape and not inner and shape == was.get(node.name):
            yield place


def refine(
    cut: Cut,
    model: Model,
    batches: Sequence[Tensor],
    *,
    tick: Tick = silent,
    finished: Finished | None = None,
) -> tuple[Model, tuple[Refit, ...]]:
    """Let every block that was cut learn.

    A block is left as it was where it does not become better on images that were held out.

    Args:
        cut: the model before and after the cut.
        model: the cut model, already reconstructed or not; not changed.
        batches: calibration images, float32 [n, channels, height, width] each.
        tick: progress, in blocks.
        finished: what an interrupted call with the same arguments has done already, and where to keep what is done.

    Returns:
        the recovered model, and what it brought each block, in the order of the network.
    """
    found = replace(model, module=with_tensors(model.module, {}))
    state, blocks, finished = all_tensors(found.module), blocks_of(cut), finished or Nowhere()
    parts = [part for batch in batches for part in torch.split(batch, _AT_ONCE)]
    uncut_walk = Walk(cut.uncut_program, cut.uncut.module, parts, _WALK_BYTES)
    walk, fits = Walk(cut.pruned_program, found.module, parts, _WALK_BYTES), []
    for number, block in enumerate(blocks):
        tick(number, len(blocks))
        kept = finished.load(_FIRST_JOB + number)
        if kept is None:
            images = max(BATCH, _BLOCK_BYTES // max(1, _bytes_of(cut.pruned_program, block)))
            learner = _Learner(cut.pruned_program, block, state)
            given = _taken(walk, block.start, images), _taken(uncut_walk, block.end, images)
            changed, ratio = learner.learn(*given, seed=number)
            kept = changed, Refit(block.name, ratio)
            finished.save(_FIRST_JOB + number, *kept)
        with torch.no_grad():
            for name, values in kept[0].items():
                state[name].copy_(values)
        fits += [kept[1]] if kept[1] else []
    tick(len(blocks), len(blocks))
    return found, tuple(fits)


def _bytes_of(program: Program, block: Block) -> int:
    """Of what goes in and what comes out, for one image."""
    return program.image_bytes(block.start) + program.image_bytes(block.end)


def _taken(walk: Walk, node: str, images: int) -> Tensor:
    """A node's value for the first images, float32 [images, ...]."""
    found: list[Tensor] = []
    seen = 0
    for value in walk.stream(node):  # to the end: only then the walk moves on
        if seen < images:
            found.append(value[: images - seen])
            seen += len(found[-1])
    return torch.cat(found)


class _Learner:
    """One block learning."""

    def __init__(self, program: Program, block: Block, state: Mapping[str, Tensor]) -> None:
        self._program, self._block = program, block
        self._own = {name: state[name].detach().clone().requires_grad_() for name in block.learns}
        self._state = {**state, **self._own}
        self._precision, _ = mixed_precision(torch.device("cpu"))
        self._answers = block.end in {node.name for node in program.outputs}

    def learn(self, x: Tensor, y: Tensor, seed: int) -> tuple[dict[str, Tensor], float]:
        """Learn to put out y where x comes in.

        Args:
            x: float32 [n, ...].
            y: float32 [n, ...].
            seed: of the order of images.

        Returns:
            the weights that changed, and the error on images held out, as a share of what it was: no weights and 1.0
            where it did not become smaller.
        """
        places = torch.arange(len(x))
        held_out = places[places % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1]
        fitted = places[places % _HELD_OUT_EVERY != _HELD_OUT_EVERY - 1]
        held_out = held_out if len(held_out) else places
        before = self._error(x, y, held_out)
        groups = [{"params": [one], "rate": RATE * _size(one)} for one in self._own.values() if one.numel()]
        if not groups or not before > 0:
            return {}, 1.0
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        draw = torch.Generator().manual_seed(seed)
        for step in range(STEPS):
            for group in optimiser.param_groups:
                group["lr"] = group["rate"] * (1 + math.cos(math.pi * step / STEPS)) / 2
            chosen = fitted[torch.randint(len(fitted), (min(BATCH, len(fitted)),), generator=draw)]
            optimiser.zero_grad(set_to_none=True)
            self._apart(x[chosen], y[chosen], gradients=True).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        ratio = self._error(x, y, held_out) / before
        if not ratio < 1:
            return {}, 1.0
        return {name: one.detach() for name, one in self._own.items()}, ratio

    def _error(self, x: Tensor, y: Tensor, places: Tensor) -> float:
        parts = torch.split(places, BATCH)
        return sum(len(one) * float(self._apart(x[one], y[one])) for one in parts) / len(places)

    def _apart(self, x: Tensor, y: Tensor, *, gradients: bool = False) -> Tensor:
        """How far the block is off: of the network's answers the divergence, else squares as a share of y's."""
        output = self._run(x, gradients)
        if self._answers and y.ndim == 2 and y.shape[1] > 1:
            return F.kl_div(output.log_softmax(1), y.log_softmax(1), reduction="batchmean", log_target=True)
        return (output - y).square().mean() / y.square().mean().clamp_min(1e-12)

    def _run(self, x: Tensor, gradients: bool) -> Tensor:
        layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        values: dict[str, Any] = {self._block.start: x.contiguous(memory_format=layout)}
        with self._precision:
            for node in self._block.nodes:
                values[node.name] = run_node(self._program, node, values, self._state, gradients=gradients)
        found: Tensor = values[self._block.end]
        return found.float()


def _size(tensor: Tensor) -> float:
    """Root mean square; of a tensor of zeros 1."""
    return float(tensor.detach().square().mean().sqrt()) or 1.0
