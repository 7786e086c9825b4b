"""Re-estimate the running statistics of batch normalisation on calibration images.

Cutting filters changes what later layers see, so the means and variances that normalisation remembers from training no
longer fit. The correction needs no labels and no gradients (REPAIR, Jordan et al. 2022,
https://arxiv.org/abs/2211.08403, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from edgeprune.program import Program, operator_of
from edgeprune.progress import Tick, silent
from edgeprune.resize import all_tensors
from edgeprune.walk import Walk, refuse_infinite

_NORMS = ("_native_batch_norm_legit_no_training", "batch_norm")


def norm_nodes(program: Program) -> list[fx.Node]:
    """The batch normalisations with running statistics of their own, in the order they run.

    One that is used twice is not among them: its one mean cannot be right for two inputs, and is left as trained.
    """
    found = [node for node in program.nodes if operator_of(node) in _NORMS]
    means = [(node, node.args[3]) for node in found]
    return [
        node
        for node, mean in means
        if isinstance(mean, fx.Node) and mean.name in program.stored and len(mean.users) == 1
    ]


def reestimate(
    program: Program,
    module: nn.Module,
    batches: Sequence[Tensor],
    tick: Tick = silent,
    skip: Callable[[fx.Node], bool] | None = None,
) -> None:
    """Set every running mean and variance to those of the calibration images, front to back, in place.

    Each normalisation is measured on inputs that already passed the ones before it.

    Args:
        program: of the module.
        module: whose buffers are changed.
        batches: calibration images, float32 [n, channels, height, width] each.
        tick: progress.
        skip: normalisations to leave as they are.
    """
    nodes = [node for node in norm_nodes(program) if skip is None or not skip(node)]
    walk = Walk(program, module, batches)
    for done, node in enumerate(nodes):
        tick(done, len(nodes))
        measure_norm(program, module, walk, node)
    tick(len(nodes), len(nodes))


def measure_norm(program: Program, module: nn.Module, walk: Walk, node: fx.Node) -> None:
    """Set one normalisation's statistics from what reaches it on the walk."""
    source, mean_node, variance_node = node.args[0], node.args[3], node.args[4]
    assert isinstance(source, fx.Node)
    assert isinstance(mean_node, fx.Node)
    assert isinstance(variance_node, fx.Node)
    count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for value in walk.stream(source.name):
        flat = value.transpose(0, 1).flatten(1).double()
        count += flat.shape[1]
        total = total + flat.sum(dim=1)
        squares = squares + flat.square().sum(dim=1)
    if not bool(torch.isfinite(squares).all()):
        refuse_infinite(program.stored[mean_node.name].rpartition(".")[0], (walk, [source.name]))
    state = all_tensors(module)
    mean = total / count
    state[program.stored[mean_node.name]].copy_(mean)
    state[program.stored[variance_node.name]].copy_((squares / count - mean.square()).clamp_min(0))
