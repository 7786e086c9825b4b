"""Random order: what any criterion must beat."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from edgeprune.criteria import FilterView, about


@about("", cost="n")
def random(view: FilterView) -> Tensor:
    """A random permutation as scores, float [n]; the same for the same seed and space."""
    generator = torch.Generator().manual_seed(view.seed * 1_000_003 + zlib.crc32(view.name.encode()))
    return torch.randperm(view.size, generator=generator).float()
