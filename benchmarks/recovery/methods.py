"""What ways of recovery without training make of the same cut, and what Torch-Pruning's cut leaves, at the same MACs.

    python benchmarks/recovery/methods.py [mobilenet_v2 resnet56] [--criterion reconstruction] [--images 2000]

The networks, budgets and images of `tasks.py`, widths by damage. Of one cut:

- **nothing**, and **norms**: their statistics re-estimated on the calibration images.
- **merged**, without any images: what read a filter that goes reads the most similar kept one instead, scaled by the
  projection of the one filter on the other ("Neuron merging", Kim et al. 2020, https://arxiv.org/abs/2010.13160,
  section 3; similarity is the cosine of the weights, of a depthwise layer behind them too, as often as filters pass
  through it, signed by the scale of the norm; offsets stay as they are). Then **merged, norms**.
- **ridge**: each layer that reads a cut space gets the weights that best map the kept channels *of the uncut model* to
  what it put out there, output channel by output channel, with one fixed penalty: nothing that went wrong before is
  corrected (the refit of `edgeprune.criteria.elimination`). Then the norms.
- **refit**: `--recover reconstruct`, which corrects earlier errors at later layers and sums.
- **Torch-Pruning** (imported here alone): `BasePruner` with its default importance (group magnitude, L2), equal shares
  of all layers but the last, the share found by bisection so that no more MACs stay; nothing done, and norms.

Top-1 with the difference to the uncut model in points and its 95 % interval, image by image. Wants EDGEPRUNE_DATA, and
torch-pruning for its rows.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from tasks import HALVES, TASKS, Task, plan_for, right, told
from torch import Tensor, nn

from edgeprune.channels import FIXED, Layer, Space
from edgeprune.cutting import Traced, cut, traced
from edgeprune.inference import norm_after
from edgeprune.journal import Journal, Nobody
from edgeprune.model import with_tensors
from edgeprune.patches import Rows
from edgeprune.plan import PruningPlan
from edgeprune.prune.readers import Readers
from edgeprune.prune.surgery import apply
from edgeprune.recover.batchnorm import reestimate
from edgeprune.recover.reconstruct import Cut, reconstruct
from edgeprune.resize import all_tensors
from edgeprune.walk import Walk

_SHARES = 8
"""Halvings of the share that Torch-Pruning is given."""


def readers_of(uncut: Traced, space: Space) -> Iterator[tuple[Layer, np.ndarray]]:
    """The layers that read a space, and the filter of each of their inputs."""
    for layer in uncut.channel_map.layers:
        filters = space.filters_at(layer.inputs)
        if (filters != FIXED).any():
            yield layer, filters


def merged(plan: PruningPlan, uncut: Traced) -> Traced:
    """Cut, what read a removed filter reading the most similar kept one."""
    module = with_tensors(uncut.model.module, {})
    state = all_tensors(module)
    for name, kept in plan.keep.items():
        space = uncut.channel_map.space(name)
        gone = sorted(set(range(space.size)) - set(kept))
        cosine, scale = similarity(uncut, space)
        for one in gone:
            nearest = kept[int(cosine[one, list(kept)].argmax())]
            factor = float(scale[one, nearest])
            for layer, filters in readers_of(uncut, space):
                weight, there, here = state[layer.weight].data, filters == one, filters == nearest
                weight[:, torch.from_numpy(here)] += factor * weight[:, torch.from_numpy(there)]
    return cut_of(plan, uncut, module)


def similarity(uncut: Traced, space: Space) -> tuple[Tensor, Tensor]:
    """Of each pair of filters of a space the cosine, and by what the second becomes the projection of the first."""
    cosine, scale = torch.ones(space.size, space.size), torch.ones(space.size, space.size)
    state = {name: tensor.detach() for name, tensor in all_tensors(uncut.model.module).items()}
    for layer in uncut.channel_map.layers:
        filters = space.filters_at(layer.outputs)
        if (filters == FIXED).all() or layer.output_axis != 0:
            continue
        rows = state[layer.weight].flatten(1)
        norm = norm_after(uncut.program, uncut.program.nodes[uncut.program.position[layer.node]])
        if norm is not None:
            gamma, variance = (state[uncut.program.stored[norm.args[place].name]] for place in (1, 4))
            rows = rows * (gamma * (variance + float(norm.args[6])).rsqrt()).unsqueeze(1)
        ordered = rows[torch.from_numpy(np.argsort(filters))]
        products = ordered @ ordered.T
        lengths = ordered.norm(dim=1).clamp_min(1e-12)
        cosine *= products / lengths.unsqueeze(1) / lengths
        scale *= products / lengths.square()
    return cosine, scale.clamp_min(0)


def ridge(plan: PruningPlan, uncut: Traced, batches: list[Tensor]) -> Traced:
    """Cut, each reader of a cut space refitted on what the uncut model feeds it."""
    module = with_tensors(uncut.model.module, {})
    state, program = all_tensors(module), uncut.program
    readers = Readers(uncut.channel_map, program, uncut.model.module, Walk(program, uncut.model.module, batches))
    for name, kept in plan.keep.items():
        space = uncut.channel_map.space(name)
        keep = torch.zeros(space.size, dtype=torch.bool)
        keep[list(kept)] = True
        for layer, _ in readers_of(uncut, space):
            reading, weight = readers.readings(space)[layer.node], state[layer.weight].data
            norm = norm_after(program, program.nodes[program.position[layer.node]])
            gain = reading.weight[:-1].norm(dim=0) / weight.double().flatten(1).norm(dim=1).clamp_min(1e-12)
            fitted = reading.refitted(keep) / gain.clamp_min(1e-12)
            rows = Rows(program.nodes[program.position[layer.node]], tuple(weight.shape), 1)
            weight.copy_(rows.weight(fitted[:-1].float().unsqueeze(0)))
            if layer.bias:
                state[layer.bias].data += fitted[-1].float()
            elif norm is not None:
                state[program.stored[norm.args[3].name]] -= fitted[-1].float()
    return cut_of(plan, uncut, module)


def cut_of(plan: PruningPlan, uncut: Traced, module: nn.Module) -> Traced:
    """The uncut model with other weights, cut."""
    return traced(apply(plan, uncut.channel_map, replace(uncut.model, module=module)), Journal(Nobody()))


def normed(found: Traced, batches: list[Tensor]) -> Traced:
    """The same with its norms re-estimated."""
    module = with_tensors(found.model.module, {})
    reestimate(found.program, module, batches)
    return replace(found, model=replace(found.model, module=module))


def torch_pruned(task: Task, uncut: Traced) -> Traced:
    """Torch-Pruning's cut with as many MACs left."""
    import torch_pruning as tp

    def at(share: float) -> Traced:
        module = copy.deepcopy(uncut.model.module)
        last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
        pruner = tp.pruner.BasePruner(
            module,
            torch.zeros(1, *uncut.model.input.shape),
            tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            ignored_layers=last,
            round_to=task.multiple if task.multiple > 1 else None,
        )
        pruner.step()
        return traced(replace(uncut.model, module=module), Journal(Nobody()))

    low, high = 0.0, 0.9
    for _ in range(_SHARES):
        middle = (low + high) / 2
        enough = at(middle).cost.macs <= task.macs * uncut.cost.macs
        low, high = (low, middle) if enough else (middle, high)
    return at(high)


def ways(task: Task, uncut: Traced, batches: list[Tensor], criterion: str) -> Iterator[tuple[str, Traced]]:
    """Each way, and the model it makes."""
    plan = plan_for(task, uncut, batches, criterion, "damage")
    start, pruned = cut(plan, uncut, Journal(Nobody()))
    yield "nothing", pruned
    yield "norms", normed(pruned, batches)
    scaled = merged(plan, uncut)
    yield "merged", scaled
    yield "merged, norms", normed(scaled, batches)
    alone = ridge(plan, uncut, batches)
    yield "ridge", alone
    yield "ridge, norms", normed(alone, batches)
    both = Cut(start.model, pruned.model, plan, start.channel_map, start.program, pruned.program)
    yield "**refit**", replace(pruned, model=reconstruct(both, batches)[0])
    other = torch_pruned(task, uncut)
    yield "Torch-Pruning's cut, nothing", other
    yield "Torch-Pruning's cut, norms", normed(other, batches)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(TASKS), metavar="NETWORK")
    parser.add_argument("--criterion", default="reconstruction")
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--images", type=int, default=5000, help="how many of the half to score on at most")
    parser.add_argument("--half", choices=HALVES, default="second")
    options = parser.parse_args()
    for name in options.networks:
        task = TASKS[name]
        uncut = task.uncut(Journal(Nobody()))
        photos = task.photos(uncut, options.calibration, options.half)
        batches = photos.batches(uncut.model)
        images = photos.scoring.take(range(min(len(photos.scoring), options.images)))
        before = right(uncut, images)
        print(
            f"\n{name}, {len(images)} images, uncut {before.mean():.1%}; {len(photos.calibration)} calibration images\n"
        )
        print("| recovery | MACs | parameters | top-1 |\n|---|---|---|---|")
        for way, found in ways(task, uncut, batches, options.criterion):
            shares = (found.cost.macs / uncut.cost.macs, found.cost.parameters / uncut.cost.parameters)
            print(f"| {way} | {shares[0]:.1%} | {shares[1]:.1%} | {told(right(found, images), before)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
