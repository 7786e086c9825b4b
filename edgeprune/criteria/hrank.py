"""HRank: a filter whose feature maps are of low rank tells little.

Lin, Ji, Wang, Zhang, Zhang, Tian, Shao: "HRank: Filter Pruning using High-Rank Feature Map",
https://arxiv.org/abs/2002.10179.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from edgeprune.criteria import FilterView, Side, about


@about("Lin et al. 2020, arXiv 2002.10179", cost="images n pixels", needs_data=True)
def hrank(view: FilterView, *, side: Side = "after", images: int = 64) -> Tensor:
    """The mean rank of each filter's feature maps, float64 [n]; low ranks go first (equation 5 of the paper).

    Where ranks are equal, as in maps of one pixel, the mean absolute value of the maps decides (our choice: the paper
    does not say); it counts for less than one image's difference of one rank. The order stays the same where all maps
    are multiplied by one number.

    Args:
        view: the filters' feature maps.
        side: maps after the activation or before it. The authors' code looks after it.
        images: how many calibration images to look at, at most.
    """
    ranks, sizes, count = torch.zeros(view.size, dtype=torch.float64), torch.zeros(view.size, dtype=torch.float64), 0
    for maps in view.first_maps(side, images):
        ranks += map_ranks(maps).double().sum(dim=0).cpu()
        sizes += maps.double().abs().mean(dim=(2, 3)).sum(dim=0).cpu()
        count += len(maps)
    largest = sizes.max().clamp_min(torch.finfo(torch.float64).tiny)
    return (ranks + 0.5 * sizes / largest) / max(1, count)


def map_ranks(maps: Tensor) -> Tensor:
    """The rank of each map, int64 [images, n], of maps float32 [images, n, height, width].

    One thread works through all matrices of a call, so that images are shared out among as many calls as torch may use
    threads. (A Cholesky factorisation, which could show that a map has full rank, was tried: on real maps no faster.)
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(torch.linalg.matrix_rank, maps.chunk(torch.get_num_threads()))))
