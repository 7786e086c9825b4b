"""apply: a plan and a model -> a new model that really has fewer filters."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.channels import FIXED, ChannelMap, Slot, Space, kept_indices, varying
from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.model import Model, with_tensors
from edgeprune.plan import PruningPlan
from edgeprune.program import capture, may_take_any_size, network_of
from edgeprune.prune.rewrite import Cutting, renumber, renumbered, rewritten
from edgeprune.prune.trace import trace
from edgeprune.resize import all_tensors, bare_widths

_TOLERANCE = 1e-3
"""Largest accepted difference, as a share of the largest output: far above rounding, far below a lost filter."""
_ROUNDING = 1e-5
"""Above this it is worth while to see whether a graph of operators comes nearer."""


def apply(plan: PruningPlan, channel_map: ChannelMap, model: Model) -> Model:
    """A new model of the same class whose stored tensors hold the kept filters only; `model` is unchanged.

    One selection per slot: `pruned(x)` equals `model(x)` with the removed filters set to zero.

    Raises:
        EdgepruneError: the plan was made for another model, or names filters it does not have.
        ModelError: the cut model does not run or computes something else: its code has a width written into it.
    """
    check_plan(plan, channel_map)
    alive = channel_map.alive(plan.keep)
    tensors = all_tensors(model.module)
    cut: dict[str, Tensor] = {}
    # Groups of a convolution first: their columns are told by the uncut rows.
    for slot in sorted(channel_map.slots, key=lambda slot: -len(varying(slot.labels))):
        tensor = cut.get(slot.tensor, tensors[slot.tensor].detach())
        kept = select(tensor, slot, alive)
        if kept is not tensor:
            cut[slot.tensor] = kept
    for choice in channel_map.choices:
        if choice.tensor:
            cut[choice.tensor] = renumber(tensors[choice.tensor], choice.labels, alive)
    smaller = with_tensors(model.module, _all_names(cut, tensors), _bare_widths(model.module, channel_map, alive))
    pruned = replace(model, module=smaller, plans=(*model.plans, plan.fingerprint))
    wanted = replace(model, module=_ignoring(model.module, channel_map, alive))
    difference, what = _difference_on_noise(pruned, wanted)
    if difference > _ROUNDING:
        network = _as_graph(model, channel_map, alive, smaller, what)
        why = model.rewritten or f"its forward has a width written into it ({what})"
        graph = replace(pruned, module=network, rewritten=why)
        # A graph is captured with two images: that it stands for a single one, too, must be seen.
        difference_of_graph = max(_difference_on_noise(graph, wanted, images)[0] for images in (2, 1))
        if difference_of_graph < difference / 10:  # else it was rounding, in a deep network
            pruned, difference = graph, difference_of_graph
    if difference > _TOLERANCE:
        if _difference_on_noise(wanted, wanted)[0] > _TOLERANCE:
            raise ModelError(
                "the model gives other outputs each time it runs, so that no cut of it can be checked",
                where=model.name,
                fix="Let its forward draw no random numbers, and remember nothing, in eval mode.",
            )
        raise ModelError(
            "the cut model does not compute what the uncut one computes without the removed filters",
            where=what,
            fix="Its forward calculates with its width, for example x / x.shape[1]; write the number down.",
        )
    return pruned


def _bare_widths(module: nn.Module, channel_map: ChannelMap, alive: NDArray[np.bool_]) -> dict[str, int]:
    """How many channels are left to each layer that has their number as an attribute only."""
    return {
        path: len(kept_indices(channel_map.widths[path], alive))
        for path in bare_widths(module).keys() & channel_map.widths.keys()
    }


def _as_graph(
    model: Model, channel_map: ChannelMap, alive: NDArray[np.bool_], smaller: nn.Module, fault: str
) -> nn.Module:
    """The cut network as a graph of operators, for a forward that has a width written into it.

    The sizes of images are left open where the model's own code leaves them open.

    Raises:
        ModelError: the graph would take one batch size only.
    """
    program = capture(model.module, model.input_shapes)
    if may_take_any_size(program):
        open_sizes = capture(model.module, model.input_shapes, any_size=True)
        program = open_sizes if trace(open_sizes).fingerprint == channel_map.fingerprint else program
    if not program.any_batch:
        raise ModelError(
            "the forward of the cut model has a width written into it, and a number of images too",
            where=fault,
            fix="Replace the numbers by the tensor's own sizes, for example x.flatten(1) or x.view(x.size(0), -1).",
        )
    cutting = Cutting(program, trace(program), alive)
    return network_of(replace(program, constants=renumbered(cutting)), smaller, rewritten(cutting))


def select(tensor: Tensor, slot: Slot, alive: NDArray[np.bool_]) -> Tensor:
    """What stays of a stored tensor along one axis; the tensor itself if all of it does."""
    stays = (slot.labels == FIXED) | alive[slot.labels]
    if stays.all():
        return tensor
    if varying(slot.labels) == (slot.axis,):
        return tensor.index_select(slot.axis, torch.from_numpy(np.flatnonzero(stays)).to(tensor.device))
    # Each group of rows keeps columns of its own, equally many.
    mask = torch.from_numpy(stays.reshape(stays.shape[:2])).to(tensor.device)
    return tensor[mask].reshape(len(tensor), -1, *tensor.shape[2:])


def _ignoring(module: nn.Module, channel_map: ChannelMap, alive: NDArray[np.bool_]) -> nn.Module:
    """A copy whose layers give no weight to the removed filters that they read."""
    tensors = all_tensors(module)
    reading = {(layer.weight, layer.input_axis) for layer in channel_map.layers}
    ignoring: dict[str, Tensor] = {}
    for slot in channel_map.slots:
        gone = (slot.labels != FIXED) & ~alive[slot.labels]
        if (slot.tensor, slot.axis) in reading and gone.any():
            weight = ignoring.get(slot.tensor, tensors[slot.tensor].detach())
            ignoring[slot.tensor] = weight.masked_fill(torch.from_numpy(gone).to(weight.device), 0)
    return with_tensors(module, _all_names(ignoring, tensors))


def _all_names(changed: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The changed tensors under every name that the module has for the old ones."""
    new = {id(tensors[name]): tensor for name, tensor in changed.items()}
    return {name: new[id(tensor)] for name, tensor in tensors.items() if id(tensor) in new}


def check_plan(plan: PruningPlan, channel_map: ChannelMap) -> None:
    """Refuse a plan that was made for another model or does not fit its spaces.

    Raises:
        EdgepruneError: which space does not fit and why.
    """
    if plan.model != channel_map.fingerprint:
        raise EdgepruneError(
            "this plan was made for another model",
            where=f"plan for {plan.model[:12]}, model is {channel_map.fingerprint[:12]}",
            fix="Give the model (and --input) it was made for, or make a new plan with --dry-run --json.",
        )
    for name, kept in plan.keep.items():
        space = channel_map.space(name)
        if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= space.size:
            raise EdgepruneError(
                f"the plan keeps filters that space {name!r} of {space.size} does not have, or none, or some twice"
            )
        if space.protected and len(kept) < space.size:
            raise EdgepruneError(f"the plan cuts space {name!r}, which is protected: {space.protected}")
        _check_cells(space, kept)


def _check_cells(space: Space, kept: tuple[int, ...]) -> None:
    counts = Counter(space.cells[index] for index in kept) if space.cells else {}
    if counts and (len(counts) < len(set(space.cells)) or len(set(counts.values())) > 1):
        raise EdgepruneError(
            f"the plan does not keep equally many filters in each of the {len(set(space.cells))} groups of space "
            f"{space.name!r}"
        )
    if any(not set(part) & set(kept) for part in space.parts):
        raise EdgepruneError(f"the plan keeps none of the filters that a layer or a part of space {space.name!r} has")


def _difference_on_noise(pruned: Model, wanted: Model, images: int = 2) -> tuple[float, str]:
    """How the cut model differs from the uncut one that ignores the removed filters, as a share of the largest output.

    Also in words. What a trace cannot see (a width that the forward pass writes into its arithmetic) shows here. A
    model that does not run differs infinitely.
    """
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(images, *shape, generator=random) for shape in pruned.input_shapes]
    with torch.no_grad():
        outputs = _tensors(wanted.module(*inputs))
        try:
            # A copy, because a forward may write into its own buffers; its parameters may be shared.
            shared: dict[int, Any] = {id(parameter): parameter for parameter in pruned.module.parameters()}
            found = _tensors(copy.deepcopy(pruned.module, shared)(*inputs))
        except Exception as error:  # the user's own forward may raise anything
            return math.inf, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    worst = max((_difference(one, other) for one, other in zip(found, outputs, strict=True)), default=0.0)
    return worst, f"outputs differ by up to {worst:.2g} of the largest"


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest number of the other.

    Infinite where shapes differ, or one is a number and the other is not, which no comparison would show.
    """
    if one.shape != other.shape or bool((one.isfinite() != other.isfinite()).any()):
        return math.inf
    if not one.numel():
        return 0.0
    largest = float(_finite(other).abs().max())
    return float((_finite(one).double() - _finite(other).double()).abs().max()) / max(largest, 1e-30)


def _finite(tensor: Tensor) -> Tensor:
    return torch.where(tensor.isfinite(), tensor, 0.0)


def _tensors(output: Any) -> list[Tensor]:
    """The tensors that a model returns: one, or those of a list, tuple or dictionary."""
    if isinstance(output, Tensor):
        return [output.detach()]
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return [tensor for value in values for tensor in _tensors(value)]
