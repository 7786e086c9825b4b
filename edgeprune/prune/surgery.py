"""apply: a plan and a model -> a new model that really has fewer filters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.channels import ChannelMap, kept_indices
from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.model import Model, with_tensors
from edgeprune.plan import PruningPlan
from edgeprune.resize import all_tensors

_TOLERANCE = 1e-3
"""Largest accepted difference, as a share of the largest output: far above rounding, far below a lost filter."""


def apply(plan: PruningPlan, channel_map: ChannelMap, model: Model) -> Model:
    """A new model of the same class whose stored tensors hold the kept filters only; `model` is unchanged.

    One index-select per slot: `pruned(x)` equals `model(x)` with the removed filters set to zero.

    Raises:
        EdgepruneError: the plan was made for another model, or names filters it does not have.
        ModelError: the cut model does not run or computes something else: its code has a width written into it.
    """
    check_plan(plan, channel_map)
    alive = channel_map.alive(plan.keep)
    tensors = all_tensors(model.module)
    cut: dict[str, Tensor] = {}
    for slot in channel_map.slots:
        kept = kept_indices(slot.channels, alive)
        if len(kept) < len(slot.channels):
            tensor = cut.get(slot.tensor, tensors[slot.tensor].detach())
            smaller = tensor.index_select(slot.axis, torch.from_numpy(kept).to(tensor.device))
            cut[slot.tensor] = smaller
    pruned = replace(
        model, module=with_tensors(model.module, _all_names(cut, tensors)), plans=(*model.plans, plan.fingerprint)
    )
    _check(pruned, replace(model, module=_ignoring(model.module, channel_map, alive)))
    return pruned


def _ignoring(module: nn.Module, channel_map: ChannelMap, alive: NDArray[np.bool_]) -> nn.Module:
    """A copy whose layers give no weight to the removed filters that they read."""
    tensors = all_tensors(module)
    ignoring: dict[str, Tensor] = {}
    for layer in channel_map.layers:
        gone = np.setdiff1d(np.arange(len(layer.inputs)), kept_indices(layer.inputs, alive))
        if len(gone):
            weight = ignoring.get(layer.weight, tensors[layer.weight].detach())
            ignoring[layer.weight] = weight.index_fill(layer.input_axis, torch.from_numpy(gone).to(weight.device), 0)
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


def _check(pruned: Model, ignoring: Model) -> None:
    """Compare the cut model with the uncut one that ignores the removed filters, on noise.

    What a trace cannot see (a width that the forward pass writes into its arithmetic) shows here.
    """
    images = torch.randn(2, *pruned.input.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = _tensors(ignoring.module(images))
        try:
            found = _tensors(pruned.module(images))
        except Exception as error:  # the user's own forward may raise anything
            raise ModelError(
                "the cut model does not run: its forward has a width written into it",
                where=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
                fix="Replace the number by the tensor's own size, for example x.flatten(1) or x.view(x.size(0), -1).",
            ) from error
    for one, other in zip(found, wanted, strict=True):
        difference, size = _difference(one, other), float(_finite(other).abs().max())
        if difference > _TOLERANCE * size:
            raise ModelError(
                "the cut model does not compute what the uncut one computes without the removed filters",
                where=f"outputs of up to {size:.3g} differ by up to {difference:.3g}",
                fix="Its forward calculates with its width, for example x / x.shape[1]; write the number down.",
            )


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite where one is a number and the other is not, which no comparison would show."""
    unlike = bool((one.isfinite() != other.isfinite()).any())
    return math.inf if unlike else float((_finite(one) - _finite(other)).abs().max())


def _finite(tensor: Tensor) -> Tensor:
    return torch.where(tensor.isfinite(), tensor, 0.0)


def _tensors(output: Any) -> list[Tensor]:
    """The tensors that a model returns: one, or those of a list, tuple or dictionary."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output
    return [tensor for value in values for tensor in _tensors(value)]
