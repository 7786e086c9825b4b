"""QSFM: a feature map that looks like another one is redundant.

Wang, Liu, Huang, Chen, Zhang, Lin, Wang: "QSFM: Model Pruning Based on Quantified Similarity between Feature Maps for
AI on Edge", https://arxiv.org/abs/2105.06052, IEEE Internet of Things Journal 9(23), 2022, doi
10.1109/JIOT.2022.3190873.

From the abstract: the outputs of a layer are a three-dimensional tensor, a quantified similarity between its
two-dimensional maps finds redundant ones, and the filters behind them are removed; SSIM and PSNR are the similarities.
**Our reconstruction**, because the paper's text was not available to us: the side of the activation, the dynamic range,
averaging the similarity over images, one global SSIM window, and which of a pair goes. Each is a setting or is marked
below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from edgeprune.criteria import FilterView, Side

PSNR_CAP_DB = 100.0
"""Similarity of two equal maps, whose PSNR is infinite (our choice: above what 32-bit floats can tell apart)."""

_CHUNK_BYTES = 256 << 20
_K1, _K2 = 0.01, 0.03  # SSIM's constants, Wang et al. 2004, section III.B


def qsfm(
    view: FilterView,
    *,
    metric: Literal["psnr", "ssim"] = "psnr",
    side: Side = "after",
    drop: Literal["redundant", "weak"] = "redundant",
    images: int = 128,
) -> Tensor:
    """Score filters by how long they survive the removal of the most similar pairs.

    Until one filter is left, take the most similar surviving pair and drop one of the two: the filter whose place in
    that order comes last scores highest. Any number of filters can then be removed, with the result the paper's greedy
    loop would give.

    Args:
        view: the filters and their feature maps.
        metric: similarity of two maps, averaged over images. PSNR is the default: it lost less accuracy than
            SSIM on both networks it was tried on (docs/decisions/0003).
        side: maps after the activation (what the next layer sees) or before it.
        drop: which of a pair goes: "redundant", the one more similar to all other survivors (ties: the smaller L1
            norm); "weak", the one of smaller L1 norm.
        images: how many calibration images to look at, at most.

    Returns:
        float64 [n], a permutation of 0 ... n-1; 0 goes first.
    """
    similarity = mean_similarity(_first(view.maps(side), images), metric)
    return removal_order(similarity, view.weight.abs().sum(dim=1).double(), drop)


def _first(batches: Iterator[Tensor], images: int) -> Iterator[Tensor]:
    left = images
    for batch in batches:  # the source is read to its end: it is a walk over the network that must arrive
        if left > 0:
            yield batch[:left]
        left -= len(batch)


def mean_similarity(batches: Iterator[Tensor], metric: str = "psnr") -> Tensor:
    """Mean over images of the similarity of every pair of maps.

    Memory is bounded: at most 256 MiB of pairwise values are alive at once, whatever the batch.

    Args:
        batches: float32 [images, n, height, width] each.
        metric: "ssim" or "psnr".

    Returns:
        float64 [n, n], symmetric.
    """
    pairwise = _ssim if metric == "ssim" else _psnr
    total, count = torch.zeros(()), 0
    for batch in batches:
        flat = batch.flatten(2)
        step = max(1, _CHUNK_BYTES // (8 * 4 * flat.shape[1] ** 2))  # about eight float32 [n, n] temporaries an image
        for chunk in torch.split(flat, step):
            total = total + pairwise(chunk).double().sum(dim=0)
            count += len(chunk)
    return total / count


def _moments(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Range [b, 1, 1], means [b, n] and second moments [b, n, n] of maps [b, n, hw].

    The range is taken over the layer, for each image by itself (our choice: the paper's maps are not 8-bit pictures).
    """
    low, high = maps.flatten(1).aminmax(dim=1)
    scale = (high - low).clamp_min(torch.finfo(maps.dtype).tiny).reshape(-1, 1, 1)
    return scale, maps.mean(dim=2), maps @ maps.transpose(1, 2) / maps.shape[2]


def _ssim(maps: Tensor) -> Tensor:
    """SSIM with one window over the whole map: [b, n, n]. Late layers are too small for a window of 11 x 11."""
    scale, mean, second = _moments(maps)
    c1, c2 = (_K1 * scale) ** 2, (_K2 * scale) ** 2
    product = mean.unsqueeze(2) * mean.unsqueeze(1)
    squares = mean.square()
    variance = (second.diagonal(dim1=1, dim2=2) - squares).clamp_min(0)
    luminance = (2 * product + c1) / (squares.unsqueeze(2) + squares.unsqueeze(1) + c1)
    structure = (2 * (second - product) + c2) / (variance.unsqueeze(2) + variance.unsqueeze(1) + c2)
    return luminance * structure


def _psnr(maps: Tensor) -> Tensor:
    """PSNR in dB, at most `PSNR_CAP_DB`: [b, n, n]. From one Gram matrix: mse_ij = (g_ii + g_jj - 2 g_ij) / hw."""
    scale, _, second = _moments(maps)
    power = second.diagonal(dim1=1, dim2=2)
    error = (power.unsqueeze(2) + power.unsqueeze(1) - 2 * second).clamp_min(0)
    floor = scale.square() * 10 ** (-PSNR_CAP_DB / 10)
    return 10 * torch.log10(scale.square() / torch.maximum(error, floor).clamp_min(torch.finfo(maps.dtype).tiny))


def removal_order(similarity: Tensor, norm: Tensor, drop: str = "redundant") -> Tensor:
    """The greedy loop: scores 0 (goes first) to n - 1 from a similarity matrix.

    Args:
        similarity: float64 [n, n], symmetric.
        norm: float64 [n], the L1 norm of each filter.
        drop: see `qsfm`.
    """
    count = len(similarity)
    pairs = similarity.double().nan_to_num(nan=0.0).clone()
    pairs.fill_diagonal_(-torch.inf)
    to_others = pairs.where(pairs > -torch.inf, 0).sum(dim=1)
    best, partner = pairs.max(dim=1)
    order = torch.zeros(count, dtype=torch.float64)
    alive = torch.ones(count, dtype=torch.bool)
    for place in range(count - 1):
        first = int(best.argmax())
        second = int(partner[first])
        gone = _loser(first, second, to_others, norm, drop)
        order[gone] = place
        alive[gone] = False
        to_others -= pairs[gone].where(alive, 0)
        pairs[gone], pairs[:, gone], best[gone] = -torch.inf, -torch.inf, -torch.inf
        stale = (partner == gone) & alive
        best[stale], partner[stale] = pairs[stale].max(dim=1)
    order[alive] = count - 1
    return order


def _loser(first: int, second: int, to_others: Tensor, norm: Tensor, drop: str) -> int:
    low, high = sorted((first, second))
    by_similarity = float(to_others[low] - to_others[high]) if drop == "redundant" else 0.0
    tolerance = 1e-9 * max(1.0, abs(float(to_others[low])))
    if abs(by_similarity) > tolerance:
        return low if by_similarity > 0 else high
    return low if float(norm[low]) < float(norm[high]) else high
