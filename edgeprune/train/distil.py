"""Distillation: a cut network is trained to answer as the uncut one does. No labels are needed.

Both see the same image, crops and mirroring included (Beyer et al. 2021, https://arxiv.org/abs/2106.05237). What is to
become small is the divergence of the classes' probabilities at a temperature (Hinton et al. 2015,
https://arxiv.org/abs/1503.02531, section 2), and how far the outputs of the blocks that were cut are from those of the
uncut network, as FitNets compare hints (Romero et al. 2014, https://arxiv.org/abs/1412.6550): a block's output has the
same channels in both, so nothing need be learned in between. (Our choices, see docs/decisions/0012.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves

from edgeprune.channels import Space
from edgeprune.data import ImageSet, InputSpec
from edgeprune.distance import distance
from edgeprune.train.device import chosen, mixed_precision, placed
from edgeprune.train.job import Evaluation
from edgeprune.train.recipe import Recipe
from edgeprune.train.settings import Settings

_BATCH = 64
_NONE = 1e-12


def cut_blocks(spaces: Sequence[Space]) -> tuple[str, ...]:
    """The modules to compare: for each cut space the largest one that holds it whole and no other cut space.

    Args:
        spaces: those that lost filters.

    Returns:
        Their paths, in the order of the spaces; nothing where only the whole network would do.
    """
    own = [_shared_path([*space.producers, *space.consumers]) for space in spaces]
    return tuple(path for path in dict.fromkeys(_widened(path, own) for path in own) if path)


def _shared_path(layers: Sequence[str]) -> str:
    """The innermost module that holds all of these layers; "" for the whole network."""
    shared: list[str] = []
    for names in zip(*(layer.split(".")[:-1] for layer in layers), strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def _widened(path: str, others: Sequence[str]) -> str:
    """The outermost module around `path` that holds nothing of what lies outside of it."""
    while "." in path:
        outer = path.rpartition(".")[0]
        if any(_within(one, outer) and not _within(one, path) for one in others):
            break
        path = outer
    return path


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def comparable(uncut: nn.Module, cut: nn.Module, blocks: Sequence[str], image: Tensor) -> tuple[str, ...]:
    """The blocks that run once for an image and put out one tensor, of the same shape in both networks.

    Args:
        uncut: in eval mode.
        cut: in eval mode.
        blocks: paths of modules.
        image: float32 [1, channels, height, width].
    """
    with torch.inference_mode():
        sides = []
        for module in (uncut, cut):
            with _listening(module, [path for path in blocks if path in dict(module.named_modules())]) as heard:
                module(image)
            sides.append({path: outputs[0].shape for path, outputs in heard.items() if len(outputs) == 1})
    one, other = sides
    return tuple(path for path in blocks if path in one and one[path] == other.get(path))


@contextmanager
def _listening(module: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Within the block, what the modules at these paths put out; what is no tensor is not heard."""
    heard: dict[str, list[Tensor]] = {path: [] for path in paths}

    def hook(path: str) -> torch.utils.hooks.RemovableHandle:
        def hear(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                heard[path].append(output)

        return module.get_submodule(path).register_forward_hook(hear)

    handles = [hook(path) for path in paths]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _inside(module: nn.Module) -> nn.Module:
    """The network itself, where it is called by way of a group of processes."""
    inner: nn.Module = module.module if isinstance(module, DistributedDataParallel) else module
    return inner


def answer(outputs: object) -> Tensor:
    """The first tensor of what a network returns: its answer."""
    found: Tensor = next(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor))
    return found


@dataclass(frozen=True, eq=False)
class Distillation:
    """An `Objective`: how far a network is from its teacher.

    Attributes:
        teacher: in eval mode, on the device.
        blocks: paths of the modules whose outputs are compared.
        recipe: what counts how much.
    """

    teacher: nn.Module
    blocks: tuple[str, ...]
    recipe: Recipe

    def __call__(self, module: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
        """The loss of one batch."""
        recipe, share = self.recipe, 1.0
        if recipe.mixup:
            share = float(torch.distributions.Beta(recipe.mixup, recipe.mixup).sample())
            images = share * images + (1 - share) * images.flip(0)
        with torch.no_grad(), _listening(self.teacher, self.blocks) as wanted:
            target = answer(self.teacher(images)).float()
        with _listening(_inside(module), self.blocks) as given:
            output = answer(module(images)).float()
        loss = _answers_apart(target, output, recipe.temperature)
        if recipe.labels:
            assert labels is not None
            right = share * F.cross_entropy(output, labels) + (1 - share) * F.cross_entropy(output, labels.flip(0))
            loss = (1 - recipe.labels) * loss + recipe.labels * right
        if self.blocks and recipe.features:
            apart = [_apart(wanted[path][0].float(), given[path][0].float()) for path in self.blocks]
            loss = loss + recipe.features * torch.stack(apart).mean()
        return loss


def _answers_apart(target: Tensor, output: Tensor, temperature: float) -> Tensor:
    """Divergence of the classes at a temperature, times its square so that gradients keep their size."""
    if target.ndim != 2 or target.shape[1] < 2:
        return _apart(target, output)
    soft, own = (target / temperature).log_softmax(1), (output / temperature).log_softmax(1)
    return F.kl_div(own, soft, reduction="batchmean", log_target=True) * temperature**2


def _apart(target: Tensor, output: Tensor) -> Tensor:
    """Squared difference, as a share of the target's mean square."""
    return (output - target).square().mean() / target.square().mean().clamp_min(_NONE)


def teacher_of(uncut: nn.Module, settings: Settings) -> nn.Module:
    """A copy of the uncut network, ready to teach."""
    return placed(copy.deepcopy(uncut), chosen(settings.device)).eval()


def answers(module: nn.Module, images: ImageSet, spec: InputSpec, mixed: bool) -> list[tuple[Tensor]]:
    """What a network in eval mode answers, batch by batch, on the CPU."""
    device = next(module.parameters()).device
    precision, _ = mixed_precision(device, mixed)
    found: list[tuple[Tensor]] = []
    with torch.inference_mode(), precision:
        for inputs in images.batches(spec, _BATCH):
            batch = torch.from_numpy(inputs).to(device).contiguous(memory_format=torch.channels_last)
            found.append((answer(module(batch)).float().cpu(),))
    return found


def nearness(wanted: Sequence[tuple[Tensor]], images: ImageSet, spec: InputSpec, mixed: bool) -> Evaluation:
    """An `Evaluation`: how far a network's answers are from those of the uncut one, without labels.

    Args:
        wanted: the uncut network's, see `answers`.
        images: that are not trained on.
        spec: what the network wants of an image.
        mixed: see `edgeprune.train.device.mixed_precision`.
    """

    def judge(module: nn.Module) -> Mapping[str, float | int]:
        return {"distance": distance(wanted, answers(module, images, spec, mixed)), "images": len(images)}

    return judge
