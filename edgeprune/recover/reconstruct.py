"""Training-free recovery: refit the layers that read a cut space so that they compute what they computed before.

Front to back, each such layer gets the weights that best map what the model *as already cut and refitted* feeds it to what the same layer
of the uncut model put out, by ridge regression on calibration images: no labels, no gradients, no learning rate. The idea is that of He et al. 2017
(https://arxiv.org/abs/1707.06168, section 3.2) and ThiNet (https://arxiv.org/abs/1707.06342, section 3.3). For a layer that feeds a residual sum the target is the
*sum* minus the shortcut as it now is, so that later blocks mend what earlier ones lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgeprune.channels import FIXED, ChannelMap, Layer, kept_indices
from edgeprune.model import Model, with_tensors
from edgeprune.plan import PruningPlan
from edgeprune.program import Program, Walk, operator_of, stored_tensors
from edgeprune.progress import Tick, silent
from edgeprune.recover.batchnorm import measure_norm, norm_nodes
from edgeprune.recover.least_squares import Sums, solve

_MAX_ROWS = 200_000
"""Samples a layer is fitted on at most; more change the fit less than the choice of images does."""

_CHUNK_BYTES = 256 << 20
_HELD_OUT_EVERY = 5


@dataclass(frozen=True, eq=False)
class Cut:
    """A model before and after a cut.

    Attributes:
        uncut: the model as it was.
        pruned: the model as cut by `plan`.
        plan: which filters stayed.
        channel_map: of the uncut model.
        uncut_program: of the uncut model.
        pruned_program: of the cut model; the same operators under the same names.
    """

    uncut: Model
    pruned: Model
    plan: PruningPlan
    channel_map: ChannelMap
    uncut_program: Program
    pruned_program: Program


@dataclass(frozen=True)
class Refit:
    """What refitting one layer brought.

    Attributes:
        layer: module path.
        error_ratio: squared error on held-out calibration images after the refit, over that before it; 1.0 if the weights were left.
    """

    layer: str
    error_ratio: float


@dataclass(frozen=True, eq=False)
class _Follower:
    """What happens to a layer's output: a normalisation, and the shortcut it is added to."""

    norm: fx.Node | None
    shortcut: str
    total: str


def reconstruct(
    cut: Cut, batches: Sequence[Tensor], *, norms: bool = True, tick: Tick = silent
) -> tuple[Model, tuple[Refit, ...]]:
    """Refit every layer that reads a cut space.

    Layers whose weight is used more than once, and kinds other than ordinary two-dimensional convolutions and linear layers, are left as cut.

    Args:
        cut: the model before and after the cut.
        batches: calibration images, float32 [n, channels, height, width] each.
        norms: also re-estimate the running statistics of the normalisations no refit has written into.
        tick: progress, in layers.

    Returns:
        the recovered model, and what each refit brought, in the order of the network.
    """
    module = with_tensors(cut.pruned.module, {})
    uncut_walk = Walk(cut.uncut_program, cut.uncut.module, batches)
    pruned_walk = Walk(cut.pruned_program, module, batches)
    jobs = _jobs(cut, norms)
    refits = []
    for done, job in enumerate(jobs):
        tick(done, len(jobs))
        if isinstance(job, Layer):
            refits.append(_refit(cut, job, module, uncut_walk, pruned_walk, sum(map(len, batches))))
        else:
            measure_norm(cut.pruned_program, module, pruned_walk, job)
    tick(len(jobs), len(jobs))
    return replace(cut.pruned, module=module), tuple(refits)


def _jobs(cut: Cut, norms: bool) -> list[Layer | fx.Node]:
    """Layers to refit and normalisations to measure, in the order they run."""
    alive = cut.channel_map.alive(cut.plan.keep)
    uses = [layer.weight for layer in cut.channel_map.layers]
    layers = [layer for layer in cut.channel_map.layers if uses.count(layer.weight) == 1 and _can_refit(cut, layer)]
    layers = [layer for layer in layers if len(kept_indices(layer.inputs, alive)) < len(layer.inputs)]
    written = {follower.norm.name for layer in layers if (follower := _follower(cut, layer)).norm is not None}
    measured = [node for node in norm_nodes(cut.pruned_program) if norms and node.name not in written]
    position = cut.pruned_program.position
    return sorted([*layers, *measured], key=lambda job: position[job.node if isinstance(job, Layer) else job.name])


def _node(program: Program, name: str) -> fx.Node:
    return program.nodes[program.position[name]]


def _can_refit(cut: Cut, layer: Layer) -> bool:
    node = _node(cut.pruned_program, layer.node)
    kind = operator_of(node)
    return kind == "linear" or (kind == "conv2d" and (node.args[6] if len(node.args) > 6 else 1) == 1)


def _refit(cut: Cut, layer: Layer, module: nn.Module, uncut_walk: Walk, pruned_walk: Walk, images_in_all: int) -> Refit:
    state = stored_tensors(module)
    weight = state[layer.weight]
    follower = _follower(cut, layer)
    constant = bool(layer.bias) or follower.norm is not None
    start = weight.detach().double().flatten(1).T
    if constant:
        bias = state[layer.bias].detach().double() if layer.bias else torch.zeros(len(weight), dtype=torch.float64)
        start = torch.cat([start, bias.unsqueeze(0)])
    sums = (Sums.zeros(*start.shape), Sums.zeros(*start.shape))
    for x, y, held_out in _samples(cut, layer, follower, state, uncut_walk, pruned_walk, images_in_all):
        sums[held_out].add(F.pad(x, (0, 1), value=1.0) if constant else x, y)
    fit, held_out_sums = sums if sums[1].count else (sums[0], sums[0])
    solution, error_ratio = solve(fit, held_out_sums, start, free=int(constant))
    with torch.no_grad():
        weight.copy_(solution[: len(solution) - constant].T.reshape(weight.shape))
        if layer.bias:
            state[layer.bias].copy_(solution[-1])
        elif follower.norm is not None:
            mean = follower.norm.args[3]
            assert isinstance(mean, fx.Node)
            state[cut.pruned_program.stored[mean.name]].sub_(solution[-1].float())
    return Refit(layer.name, error_ratio)


def _follower(cut: Cut, layer: Layer) -> _Follower:
    """The normalisation that alone reads a layer, and the sum that alone reads that, if the shortcut is known before the layer runs."""
    program = cut.pruned_program
    node = _node(program, layer.node)
    norm = None
    if len(node.users) == 1 and next(iter(node.users)) in norm_nodes(program):
        norm = next(iter(node.users))
        node = next((user for user in norm.users if user.args[1] == 0), norm)
    user = next(iter(node.users), None)
    if user is None or len(node.users) != 1 or operator_of(user) != "add" or user.kwargs.get("alpha", 1) != 1:
        return _Follower(norm, "", "")
    others = [argument for argument in user.args if isinstance(argument, fx.Node) and argument is not node]
    known = [other for other in others if program.position.get(other.name, 1 << 30) < program.position[layer.node]]
    alike = known and program.shapes[known[0].name] == program.shapes[node.name]
    return _Follower(norm, known[0].name if alike else "", user.name if alike else "")


def _samples(
    cut: Cut,
    layer: Layer,
    follower: _Follower,
    state: dict[str, Tensor],
    uncut_walk: Walk,
    pruned_walk: Walk,
    images_in_all: int,
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Inputs of the cut layer, float32 [samples, k], the outputs wanted of it, [samples, outputs], and whether they are held out."""
    node = _node(cut.pruned_program, layer.node)
    kept = torch.from_numpy(kept_indices(layer.outputs, cut.channel_map.alive(cut.plan.keep)))
    axis = 1 if operator_of(node) == "conv2d" else -1
    shortcut = [follower.shortcut] if follower.shortcut else []
    ours = pruned_walk.stream_all([layer.source, *shortcut])
    theirs = uncut_walk.stream_all([layer.node, *shortcut])
    scale = _scale(cut, follower, state) if shortcut else torch.ones(())
    images = 0
    rows = _Rows(node, tuple(state[layer.weight].shape), images_in_all)
    for (x, *own), (y, *whole) in zip(ours, theirs, strict=True):
        target = y.index_select(axis, kept)
        if shortcut:
            target = target + (whole[0].index_select(axis, kept) - own[0]) * scale
        held_out = (torch.arange(images, images + len(x)) % _HELD_OUT_EVERY) == _HELD_OUT_EVERY - 1
        for chosen in (False, True):
            yield from ((*pair, chosen) for pair in rows.of(x[held_out == chosen], target[held_out == chosen]))
        images += len(x)


def _scale(cut: Cut, follower: _Follower, state: dict[str, Tensor]) -> Tensor:
    """How much a layer's output must change to change the sum by one, per channel: [1, outputs, 1, 1]."""
    if follower.norm is None:
        return torch.ones(())
    gamma, variance = (
        state[cut.pruned_program.stored[argument.name]] if isinstance(argument, fx.Node) else torch.ones(())
        for argument in (follower.norm.args[1], follower.norm.args[4])
    )
    epsilon = float(follower.norm.args[6])  # type: ignore[arg-type]
    unit = gamma.detach() / (variance + epsilon).sqrt()
    usable = unit.abs() > 1e-3 * unit.abs().max()  # a channel the normalisation all but silences cannot mend the sum
    return torch.where(usable, 1 / torch.where(usable, unit, torch.ones(())), torch.zeros(())).reshape(1, -1, 1, 1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Turns images into least-squares samples.

    Attributes:
        node: the convolution or linear operator.
        shape: of its weight as cut.
        images: how many images there will be, to spread `_MAX_ROWS` over them.
    """

    node: fx.Node
    shape: tuple[int, ...]
    images: int

    def of(self, x: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Input patches [samples, k] and wanted outputs [samples, outputs], in chunks of bounded memory."""
        if operator_of(self.node) == "linear":
            yield x.reshape(-1, x.shape[-1]), target.reshape(-1, target.shape[-1])
            return
        positions = target[0].flatten(1).shape[1] if len(target) else 1
        size = 4 * math.prod(self.shape[1:]) * positions
        for images, wanted in zip(
            x.split(max(1, _CHUNK_BYTES // size)), target.split(max(1, _CHUNK_BYTES // size)), strict=True
        ):
            patches = _patches(self.node, images, self.shape)
            flat = wanted.flatten(2).transpose(1, 2).reshape(len(patches), -1)
            most = max(1, round(_MAX_ROWS * len(images) / self.images))
            if len(patches) > most:  # evenly spread over the images and their positions
                chosen = torch.arange(most) * len(patches) // most
                patches, flat = patches[chosen], flat[chosen]
            yield patches, flat


def _patches(node: fx.Node, images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What a convolution multiplies its weight with: [images x positions, inputs x taps]."""
    kernel = shape[2:]
    stride, padding, dilation = (
        _pair(node.args[place], default) if len(node.args) > place else default
        for place, default in ((3, (1, 1)), (4, (0, 0)), (5, (1, 1)))
    )
    if isinstance(node.args[4] if len(node.args) > 4 else 0, str):
        gaps = [d * (k - 1) if node.args[4] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        images = F.pad(images, (gaps[1] // 2, gaps[1] - gaps[1] // 2, gaps[0] // 2, gaps[0] - gaps[0] // 2))
        padding = (0, 0)
    if tuple(kernel) == (1, 1) and padding == (0, 0):
        return images[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1).reshape(-1, images.shape[1])
    columns = F.unfold(images, kernel, dilation, padding, stride)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])


def _pair(value: object, default: tuple[int, int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, str) or not isinstance(value, list | tuple):
        return default
    numbers = [int(number) for number in value]
    return numbers[0], numbers[-1]
