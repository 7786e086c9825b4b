"""How often a network is right, on whatever device it is."""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.data import ImageSet, InputSpec

_BATCH = 256


def top1(module: nn.Module, images: ImageSet, spec: InputSpec) -> float:
    """Share of images, 0 to 1, whose label is the network's first choice.

    Args:
        module: in eval mode.
        images: with labels.
        spec: what the network wants of an image.
    """
    assert images.labels is not None
    device = next(module.parameters()).device
    right, done = 0, 0
    with torch.inference_mode():
        for inputs in images.batches(spec, _BATCH):
            batch = torch.from_numpy(inputs).to(device).contiguous(memory_format=torch.channels_last)
            truth = torch.from_numpy(images.labels[done : done + len(inputs)]).to(device)
            right += int((module(batch).argmax(1) == truth).sum())
            done += len(inputs)
    return right / done
