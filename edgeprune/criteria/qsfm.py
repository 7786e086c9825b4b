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

from edgeprune.criteria import FilterView, Side, about
from edgeprune.criteria.norms import l1
from edgeprune.criteria.pairs import Drop, removal_order

PSNR_CAP_DB = 100.0
"""Similarity of two equal maps, whose PSNR is infinite (our choice: above what 32-bit floats can tell apart)."""

_CHUNK_BYTES = 32 << 20  # small enough for the processor's cache: 2.6 times as fast as 256 MiB on MobileNet-V2
_FLAT = 1e-6  # a range below this share of the values themselves is float32 rounding
_K1, _K2 = 0.01, 0.03  # SSIM's constants, Wang et al. 2004, section III.B


@about("Wang et al. 2022, arXiv 2105.06052", cost="images n^2 pixels", needs_data=True)
def qsfm(
    view: FilterView,
    *,
    metric: Literal["psnr", "ssim"] = "psnr",
    side: Side = "after",
    drop: Drop = "redundant",
    images: int = 128,
) -> Tensor:
    """Score filters by how long they survive the removal of the most similar pairs.

    Until one filter is left, take the most similar surviving pair and drop one of the two: the filter whose place in
    that order comes last scores highest. Any number of filters can then be removed, with the result the paper's greedy
    loop would give. The order stays the same where all maps of the layer are multiplied by one number.

    Args:
        view: the filters and their feature maps.
        metric: similarity of two maps, averaged over images. PSNR is the default: it lost less accuracy than
            SSIM on both networks it was tried on (0003).
        side: maps after the activation (what the next layer sees) or before it.
        drop: which of a pair goes: "redundant", the one more similar to all other survivors (ties: the smaller L1
            norm); "weak", the one of smaller L1 norm.
        images: how many calibration images to look at, at most.

    Returns:
        float64 [n], a permutation of 0 ... n-1; 0 goes first.
    """
    similarity = mean_similarity(view.first_maps(side, images), metric)
    return removal_order(similarity, l1(view).double(), drop)


def mean_similarity(batches: Iterator[Tensor], metric: str = "psnr") -> Tensor:
    """Mean over images of the similarity of every pair of maps.

    Memory is bounded: about 32 MiB of pairwise values are alive at once, whatever the batch.

    Args:
        batches: float32 [images, n, height, width] each.
        metric: "ssim" or "psnr".

    Returns:
        float64 [n, n], symmetric, on the CPU.
    """
    pairwise = _ssim if metric == "ssim" else _psnr
    total, count = torch.zeros(()), 0
    for batch in batches:
        flat = batch.flatten(2)
        step = max(1, _CHUNK_BYTES // (8 * 4 * flat.shape[1] ** 2))  # about eight float32 [n, n] temporaries an image
        for chunk in torch.split(flat, step):
            total = total + pairwise(chunk).sum(dim=0, dtype=torch.float64)
            count += len(chunk)
    total = total.cpu()
    return (total + total.T) / (2 * count)  # exactly symmetric, so that rounding decides nothing


def _moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Means [b, n] and covariances [b, n, n] of maps [b, n, hw], in units of the dynamic range.

    The range is taken over the layer, for each image by itself (our choice: the paper's maps are not 8-bit pictures).
    Centring before the product keeps small differences of bright maps; a flat layer has the range of its rounding.
    """
    low, high = maps.flatten(1).aminmax(dim=1)
    rounding = _FLAT * torch.maximum(low.abs(), high.abs())
    scale = torch.maximum(high - low, rounding).clamp_min(torch.finfo(maps.dtype).tiny).reshape(-1, 1, 1)
    mean = maps.mean(dim=2, keepdim=True)
    centred = (maps - mean).div_(scale)
    return (mean / scale).squeeze(2), (centred @ centred.transpose(1, 2)).div_(maps.shape[2])


def _ssim(maps: Tensor) -> Tensor:
    """SSIM with one window over the whole map: [b, n, n]. Late layers are too small for a window of 11 x 11."""
    mean, covariance = _moments(maps)
    squares, variance = mean.square(), covariance.diagonal(dim1=1, dim2=2)
    luminance = (2 * mean.unsqueeze(2) * mean.unsqueeze(1)).add_(_K1**2).div_(_sums(squares).add_(_K1**2))
    contrast = _sums(variance).add_(_K2**2)  # before its source is overwritten
    return luminance.mul_(covariance.mul_(2).add_(_K2**2).div_(contrast))


def _psnr(maps: Tensor) -> Tensor:
    """PSNR in dB, at most `PSNR_CAP_DB`: [b, n, n]."""
    mean, covariance = _moments(maps)
    variance = covariance.diagonal(dim1=1, dim2=2)
    error = _sums(variance).sub_(covariance, alpha=2).add_((mean.unsqueeze(2) - mean.unsqueeze(1)).square_())
    return error.clamp_min_(10 ** (-PSNR_CAP_DB / 10)).log10_().mul_(-10)


def _sums(values: Tensor) -> Tensor:
    """The sum of every pair: [b, n] to [b, n, n]."""
    return values.unsqueeze(2) + values.unsqueeze(1)
