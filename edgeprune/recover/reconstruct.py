"""Training-free recovery: refit the layers behind a cut so that they compute what they computed before.

Front to back, each layer that reads a cut space, and each one further on, gets the weights that best map what the model
*as already cut and refitted* feeds it to what the same layer of the uncut model put out, by ridge regression on
calibration images: no labels, no gradients, no learning rate. The idea is that of He et al. 2017
(https://arxiv.org/abs/1707.06168, section 3.2) and of ThiNet (https://arxiv.org/abs/1707.06342, section 3.3). For a
layer that feeds a residual sum the target is the *sum* minus the shortcut as it now is, so that later blocks mend what
earlier ones lost. (Our choices; measured in docs/decisions/0003 and 0011.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgeprune.channels import ChannelMap, Layer, kept_indices
from edgeprune.model import Model, with_tensors
from edgeprune.patches import Rows, can_refit
from edgeprune.plan import PruningPlan
from edgeprune.program import Program, operator_of
from edgeprune.progress import Tick, silent
from edgeprune.recover.batchnorm import measure_norm, norm_nodes
from edgeprune.recover.finished import Finished, Nowhere, Refit
from edgeprune.recover.least_squares import Sums, solve
from edgeprune.resize import all_tensors
from edgeprune.walk import Walk, refuse_infinite

_HELD_OUT_EVERY = 5
"""Every fifth calibration image chooses the ridge penalty instead of being fitted."""

_AT_ONCE = 8
"""Images that are run together: more take more memory, and are no faster."""

_WALK_BYTES = 1 << 28
"""What each of the two models' activations may take between layers."""


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

    def node(self, name: str) -> fx.Node:
        """An operator of the cut model."""
        return self.pruned_program.nodes[self.pruned_program.position[name]]


def reconstruct(
    cut: Cut,
    batches: Sequence[Tensor],
    *,
    norms: bool = True,
    tick: Tick = silent,
    finished: Finished | None = None,
) -> tuple[Model, tuple[Refit, ...]]:
    """Refit every layer that reads a cut space, or anything that became different because of one.

    Layers whose weight is used more than once, and depthwise convolutions, are left as cut: a norm after them is
    re-estimated, and what reads them is refitted.

    Args:
        cut: the model before and after the cut; not changed.
        batches: calibration images, float32 [n, channels, height, width] each.
        norms: also re-estimate the running statistics of the normalisations no refit has written into.
        tick: progress, in layers.
        finished: what an interrupted call with the same arguments has done already, and where to keep what is done.

    Returns:
        the recovered model, and what each refit brought, in the order of the network.

    Raises:
        ModelError: a layer reads or puts out numbers that are not finite; says which, and on which image.
    """
    parts = [part for batch in batches for part in torch.split(batch, _AT_ONCE)]
    refitter = _Refitter(cut, replace(cut.pruned, module=with_tensors(cut.pruned.module, {})), parts)
    jobs, finished, refits = _jobs(cut, norms), finished or Nowhere(), []
    for done, job in enumerate(jobs):
        tick(done, len(jobs))
        kept = finished.load(done)
        if kept is None:
            refit = refitter.do(job)
            finished.save(done, refitter.changed_by(job), refit)
        else:
            changed, refit = kept
            refitter.put(changed)
        refits += [refit] if refit else []
    tick(len(jobs), len(jobs))
    return refitter.model, tuple(refits)


def _jobs(cut: Cut, norms: bool) -> list[Layer | fx.Node]:
    """Layers to refit and normalisations to measure, in the order they run."""
    changed = _changed(cut)
    used = [layer.weight for layer in cut.channel_map.layers]
    layers = [
        layer
        for layer in cut.channel_map.layers
        if layer.node in changed and used.count(layer.weight) == 1 and _refittable(cut, layer)
    ]
    written = {norm.name for layer in layers if (norm := _follower(cut, layer).norm) is not None}
    measured = [node for node in norm_nodes(cut.pruned_program) if norms and node.name not in written]
    position = cut.pruned_program.position
    return sorted([*layers, *measured], key=lambda job: position[job.node if isinstance(job, Layer) else job.name])


def _refittable(cut: Cut, layer: Layer) -> bool:
    """Whether a layer is of a kind that can be refitted; its weight is that of the cut model."""
    return can_refit(cut.node(layer.node), tuple(all_tensors(cut.pruned.module)[layer.weight].shape))


def _changed(cut: Cut) -> set[str]:
    """The operators that put out something else in the cut model: those that read cut spaces, and all behind them."""
    alive = cut.channel_map.alive(cut.plan.keep)
    found: set[str] = set()
    waiting = [
        cut.node(layer.node)
        for layer in cut.channel_map.layers
        if len(kept_indices(layer.inputs, alive)) < len(layer.inputs)
    ]
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found.add(node.name)
            waiting += node.users
    return found


@dataclass(frozen=True, eq=False)
class _Follower:
    """What becomes of a layer's output: a normalisation, and the shortcut and sum it ends in; None and "" if not so."""

    norm: fx.Node | None = None
    shortcut: str = ""
    total: str = ""


def _follower(cut: Cut, layer: Layer) -> _Follower:
    """The normalisation that alone reads a layer, and the sum that alone reads that.

    The sum counts only if its shortcut is known before the layer runs: otherwise there is nothing to subtract yet.
    """
    program, node, norm = cut.pruned_program, cut.node(layer.node), None
    reader = _only_reader(node)
    along = operator_of(node) != "linear" or len(program.shapes[node.name]) == 2  # a norm scales the second axis
    if reader is not None and along and reader in norm_nodes(program):
        norm = reader
        node = next((user for user in norm.users if user.args[1] == 0), norm)
        reader = _only_reader(node)
    if reader is None or operator_of(reader) != "add" or reader.kwargs.get("alpha", 1) != 1:
        return _Follower(norm)
    for other in reader.all_input_nodes:
        known = program.position.get(other.name, len(program.nodes)) < program.position[layer.node]
        if other is not node and known and program.shapes[other.name] == program.shapes[node.name]:
            return _Follower(norm, other.name, reader.name)
    return _Follower(norm)


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _with_held_out(fitted: int) -> int:
    """How many images there must be for so many of them to be fitted."""
    return math.ceil(fitted * _HELD_OUT_EVERY / (_HELD_OUT_EVERY - 1))


class _Refitter:
    """Walks the uncut and the cut model side by side and changes the cut one as it goes."""

    def __init__(self, cut: Cut, model: Model, batches: Sequence[Tensor]) -> None:
        self.model = model
        self._cut = cut
        self._alive = cut.channel_map.alive(cut.plan.keep)
        self._state = all_tensors(model.module)
        self._uncut_walk = Walk(cut.uncut_program, cut.uncut.module, batches, _WALK_BYTES)
        self._walk = Walk(cut.pruned_program, model.module, batches, _WALK_BYTES)
        self._images = sum(len(batch) for batch in batches)

    def do(self, job: Layer | fx.Node) -> Refit | None:
        """Refit a layer, or re-estimate a normalisation."""
        if isinstance(job, Layer):
            return self._refit(job)
        measure_norm(self._cut.pruned_program, self.model.module, self._walk, job)
        return None

    def changed_by(self, job: Layer | fx.Node) -> dict[str, Tensor]:
        """The stored tensors that a job writes into."""
        stored = self._cut.pruned_program.stored
        if not isinstance(job, Layer):
            names = [stored[node.name] for node in (job.args[3], job.args[4]) if isinstance(node, fx.Node)]
        else:
            norm = _follower(self._cut, job).norm
            mean = norm.args[3] if norm is not None and not job.bias else None
            names = [job.weight, *([job.bias] if job.bias else [])]
            names += [stored[mean.name]] if isinstance(mean, fx.Node) else []
        return {name: self._state[name].detach() for name in names}

    def put(self, changed: Mapping[str, Tensor]) -> None:
        """Put in what a job changed once before."""
        with torch.no_grad():
            for name, values in changed.items():
                self._state[name].copy_(values)

    def _refit(self, layer: Layer) -> Refit:
        """Give one layer its least-squares weights, and its bias or the mean of the normalisation that follows."""
        follower, weight = _follower(self._cut, layer), self._state[layer.weight]
        rows = Rows(self._cut.node(layer.node), tuple(weight.shape), self._images)
        constant = bool(layer.bias) or follower.norm is not None
        start = rows.matrix(weight.detach().double())
        if constant:
            bias = self._state[layer.bias].detach().double() if layer.bias else start.new_zeros(start[:, 0].numel())
            start = torch.cat([start, bias.reshape(len(start), 1, -1)], dim=1)
        fit, held_out = Sums.zeros(*start.shape), Sums.zeros(*start.shape)
        for x, y, hold in self._samples(layer, rows, follower):
            (held_out if hold else fit).add(F.pad(x, (0, 1), value=1.0) if constant else x, y)
        if not (fit.finite and held_out.finite):
            refuse_infinite(layer.name, (self._walk, [layer.source]), (self._uncut_walk, [layer.node]))
        solution = solve(fit, held_out if held_out.count else fit, start, free=int(constant))
        found = solution.weight[:, : start.shape[1] - constant]
        with torch.no_grad():
            weight.copy_(rows.weight(found))
            if layer.bias:
                self._state[layer.bias].copy_(solution.weight[:, -1].flatten())
            elif follower.norm is not None:  # adding to a layer is taking from the mean its normalisation subtracts
                self._stored(follower.norm.args[3]).sub_(solution.weight[:, -1].flatten())
        fitted = self._images - self._images // _HELD_OUT_EVERY
        needed = math.ceil(start.shape[1] * fitted / max(fit.count, 1))
        return Refit(layer.name, solution.error_ratio, solution.ill, _with_held_out(needed))

    def _samples(self, layer: Layer, rows: Rows, follower: _Follower) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """What the layer reads, what it should put out, as `rows` gives them, and whether to hold it out."""
        kept = torch.from_numpy(kept_indices(layer.outputs, self._alive))
        whole = len(kept) == len(layer.outputs)
        shortcut = [follower.shortcut] if follower.shortcut else []
        ours, theirs = (
            self._walk.stream_all([layer.source, *shortcut]),
            self._uncut_walk.stream_all([layer.node, *shortcut]),
        )
        seen = 0
        for (x, *shortcut_now), (y, *shortcut_then) in zip(ours, theirs, strict=True):
            target = y if whole else y.index_select(rows.axis, kept)
            if shortcut:
                then = shortcut_then[0] if whole else shortcut_then[0].index_select(rows.axis, kept)
                target = target + (then - shortcut_now[0]) * self._scale(follower, target.ndim)
            held_out = torch.arange(seen, seen + len(x)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
            for hold in (False, True):
                chosen = held_out == hold
                if bool(chosen.any()):
                    yield from ((*pair, hold) for pair in rows.of(x[chosen], target[chosen]))
            seen += len(x)

    def _scale(self, follower: _Follower, ndim: int) -> Tensor:
        """How much a layer's output must change to change the sum by one, for each channel: [1, outputs, 1, ...]."""
        if follower.norm is None:
            return torch.ones(())
        gamma, variance = (self._stored(follower.norm.args[place]) for place in (1, 4))
        unit = gamma.detach() / (variance + float(follower.norm.args[6])).sqrt()  # type: ignore[arg-type]
        usable = unit.abs() > 1e-3 * unit.abs().max()  # a channel that is all but silenced cannot mend the sum
        return torch.where(usable, 1 / torch.where(usable, unit, 1.0), 0.0).reshape(1, -1, *[1] * (ndim - 2))

    def _stored(self, argument: object) -> Tensor:
        """The stored tensor an argument stands for; a normalisation without weights scales by one."""
        if not isinstance(argument, fx.Node):
            return torch.ones(())
        return self._state[self._cut.pruned_program.stored[argument.name]]
