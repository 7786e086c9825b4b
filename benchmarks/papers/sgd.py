"""Fine-tuning with labels, as plain as can be: what a paper's fine-tuning is compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from edgeprune.data import ImageSet
from edgeprune.model import Model, with_tensors

BATCH, RATE, WEIGHT_DECAY = 128, 0.02, 5e-4
_EDGE = 4


def fine_tuned(model: Model, images: ImageSet, steps: int, seed: int) -> Model:
    """The model after some steps of SGD (momentum 0.9, one cycle of the learning rate) on crops and mirrored images.

    Args:
        model: not changed.
        images: with labels; gone through once, then again in another order.
        steps: how many batches.
        seed: of order, crops and mirroring.
    """
    module = with_tensors(model.module, {}).train()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    optimiser = torch.optim.SGD(module.parameters(), RATE, 0.9, weight_decay=WEIGHT_DECAY, nesterov=True)
    course = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1)
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(images)) for _ in range(-(-steps * BATCH // len(images)))])
    assert images.labels is not None
    for step in range(steps):
        chosen = images.take(order[step * BATCH : (step + 1) * BATCH])
        assert chosen.labels is not None
        inputs = torch.from_numpy(model.input.normalise(_varied(chosen.images, random)))
        loss = F.cross_entropy(module(inputs), torch.from_numpy(chosen.labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.step()
    return replace(model, module=module.eval())


def _varied(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each image shifted by up to four pixels, its edges filled with zeros, half of them mirrored."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (_EDGE, _EDGE), (_EDGE, _EDGE), (0, 0)))
    found = np.empty_like(images)
    tops, lefts = random.integers(0, 2 * _EDGE + 1, (2, count))
    for place, (top, left, mirrored) in enumerate(zip(tops, lefts, random.random(count) < 0.5, strict=True)):
        crop = padded[place, top : top + height, left : left + width]
        found[place] = crop[:, ::-1] if mirrored else crop
    return found
