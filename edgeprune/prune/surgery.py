"""apply: a plan and a model -> a new model that really has fewer filters."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import torch
from torch import Tensor

from edgeprune.channels import ChannelMap, Slot, kept_indices
from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.model import Model, with_tensors
from edgeprune.plan import PruningPlan
from edgeprune.resize import all_tensors


def apply(plan: PruningPlan, channel_map: ChannelMap, model: Model) -> Model:
    """A new model of the same class whose stored tensors hold the kept filters only; `model` is unchanged.

    One index-select per slot: `pruned(x)` equals `model(x)` with the removed filters set to zero.

    Raises:
        EdgepruneError: the plan was made for another model, or names filters it does not have.
        ModelError: the cut model does not run, because its code has a width written into it.
    """
    check_plan(plan, channel_map)
    alive = channel_map.alive(plan.keep)
    tensors = all_tensors(model.module)
    slots: dict[str, list[Slot]] = defaultdict(list)
    for slot in channel_map.slots:
        if len(kept_indices(slot.channels, alive)) < len(slot.channels):
            slots[slot.tensor].append(slot)
    cut: dict[str, Tensor] = {}
    shared: dict[int, Tensor] = {}
    for name, found in slots.items():
        if id(tensors[name]) not in shared:
            tensor = tensors[name].detach()
            for slot in found:
                tensor = tensor.index_select(slot.axis, torch.from_numpy(kept_indices(slot.channels, alive)))
            shared[id(tensors[name])] = tensor.contiguous()
        cut[name] = shared[id(tensors[name])]
    pruned = replace(model, module=with_tensors(model.module, cut), plans=(*model.plans, plan.fingerprint))
    _check_runs(pruned)
    return pruned


def check_plan(plan: PruningPlan, channel_map: ChannelMap) -> None:
    """Refuse a plan that was made for another model or does not fit its spaces.

    Raises:
        EdgepruneError: which space does not fit and why.
    """
    if plan.model != channel_map.fingerprint:
        raise EdgepruneError(
            "this plan was made for another model",
            where=f"plan for {plan.model[:12]}, model is {channel_map.fingerprint[:12]}",
        )
    for name, kept in plan.keep.items():
        space = channel_map.space(name)
        if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= space.size:
            raise EdgepruneError(
                f"the plan keeps filters that space {name!r} of {space.size} does not have, or none, or some twice"
            )
        if space.protected and len(kept) < space.size:
            raise EdgepruneError(f"the plan cuts space {name!r}, which is protected: {space.protected}")


def _check_runs(model: Model) -> None:
    images = torch.zeros(2, *model.input.shape)
    try:
        with torch.no_grad():
            model.module(images)
    except RuntimeError as error:
        raise ModelError(
            "the cut model does not run: its forward has a width written into it",
            where=str(error).splitlines()[0],
            fix="Replace the number by the tensor's own size, for example x.flatten(1) or x.view(x.size(0), -1).",
        ) from error
