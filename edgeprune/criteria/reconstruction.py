"""Reconstruction: the filter goes whose loss the layers that read it can best make up for.

Backward elimination by the least-squares error that remains in the readers' outputs after they are refitted to the
filters that stay: the goal of ThiNet (Luo et al. 2017, https://arxiv.org/abs/1707.06342, section 3.2) and of He et al.
2017 (https://arxiv.org/abs/1707.06168, section 3.1), with the exact refit inside each step. Not one of the five papers:
it knows how the model is recovered afterwards.
"""

from __future__ import annotations

from typing import Literal

import torch

from edgeprune.criteria import FilterView, Outcome, about, configure
from edgeprune.criteria.elimination import eliminate, lowest_first

Proposed = Literal["all", "qsfm", "ssm", "fscl", "nystrom", "apssf", "l1", "l2", "fpgm", "hrank", "random"]


@about(
    "after Luo et al. 2017, arXiv 1707.06342, and He et al. 2017, arXiv 1707.06168",
    cost="n (n taps)^2",
    needs_data=True,
)
def reconstruction(view: FilterView, *, among: Proposed = "all", pool: float = 1.5) -> Outcome:
    """Score filters by how late they go when each time the one goes that the refitted readers miss least.

    Invariant to the scale of the filters, if the readers' weights make up for it.

    Args:
        view: the filters; its readings are looked at.
        among: "all", or a criterion that proposes candidates: all others stay longer than these.
        pool: so many times the filters that shall go are proposed.
    """
    first = None
    if among != "all":
        first = lowest_first(configure(among)(view).scores)[: round(pool * view.share * view.size)]
    found = eliminate(view.readings, view.size, first=first)
    scores = torch.empty(view.size, dtype=torch.float64)
    scores[found.order] = torch.arange(view.size, dtype=torch.float64)
    return Outcome(scores, 0, found.errors)
