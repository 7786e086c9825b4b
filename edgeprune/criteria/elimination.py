"""What the layers that read a space lose when filters go, if they may refit their weights to those that stay.

A layer computes y = xᵀ W. Of the samples x only G = mean of x xᵀ is kept. With the inputs K left, the best weights are
G[K, K]⁻¹ G[K, :] W, and the squared error that remains is tr(Wᵀ (G - G[:, K] G[K, K]⁻¹ G[K, :]) W). Taking the inputs R
of one more filter away raises it by tr(Wᵣᵀ (H[R, R])⁻¹ Wᵣ), where H is the inverse of G[K, K] and Wᵣ are its rows of
the refitted weights: so each step costs one update of H and W, and no solution anew (the block form of Hassibi, Stork,
"Second order derivatives for network pruning: Optimal Brain Surgeon", 1992, equation 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-4
"""Added to the diagonal of G, as a share of its mean: filters that are sums of others stay apart."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A layer that reads filters of a space, and what it reads on calibration images.

    Attributes:
        gram: mean over samples of x xᵀ, float64 [k, k], its diagonal raised; x is all that the layer reads, and a last
            1 for the bias.
        weight: float64 [k, outputs], zeros for the bias, each output in units of what follows the layer.
        filters: the filter of the space that each of the k inputs belongs to, int64 [k]; -1 for those of no filter:
            they always stay.
    """

    gram: Tensor
    weight: Tensor
    filters: Tensor

    @classmethod
    def of(cls, moments: Tensor, weight: Tensor, filters: Tensor, samples: int) -> Reading:
        """A reading from as many samples: fewer samples than inputs let each input be made up of others by chance.

        So the diagonal is raised by the share k / samples, which is about what chance takes off (the expectation of the
        error of a fit, on the samples fitted, is (samples - k) / samples of the true one); never by less than `RIDGE`.

        Args:
            moments: mean of x xᵀ, float64 [k, k]; the last input is the constant one.
            weight: see `Reading`.
            filters: see `Reading`.
            samples: how many.
        """
        diagonal = moments.diagonal().clone()
        raised = diagonal * (len(diagonal) / samples) + RIDGE * (float(diagonal[:-1].mean()) or 1.0)
        raised[-1] = 0.0
        return cls(moments + torch.diag(raised), weight, filters)

    def refitted(self, keep: Tensor) -> Tensor:
        """The weights that do best with the kept filters alone, float64 [k, outputs]; zeros where inputs are gone.

        Args:
            keep: bool [n].
        """
        stay = (self.filters < 0) | keep[self.filters.clamp_min(0)]
        solution = torch.linalg.solve(self.gram[stay][:, stay], self.gram[stay] @ self.weight)
        found = torch.zeros_like(self.weight)
        found[stay] = solution
        return found


@dataclass(frozen=True, eq=False)
class Elimination:
    """An order of removal and what it costs.

    Attributes:
        order: the filters, first to go first, int64 [n].
        errors: errors[w] is the squared error with w filters left, summed over the layers' outputs, float64 [n + 1];
            it falls with w, to 0 at n.
    """

    order: Tensor
    errors: Tensor


def lowest_first(scores: Tensor) -> Tensor:
    """The filters in the order in which scores [n] let them go, int64 [n]; of equal ones the last goes first."""
    return len(scores) - 1 - torch.argsort(scores.flip(0), stable=True)


def eliminate(readings: Sequence[Reading], size: int, *, first: Tensor | None = None) -> Elimination:
    """Take filters away one by one, each time the one whose loss the layers can make up for best.

    Args:
        readings: the layers.
        size: n, how many filters there are.
        first: filters that all go before the others, int64 [m]; None for no such rule.
    """
    stays = torch.zeros(size, dtype=torch.bool)
    if first is not None:
        stays[:] = True
        stays[first] = False
    states = [_State(reading, size) for reading in readings]
    gone = torch.zeros(size, dtype=torch.bool)
    taken, losses = [], []
    for _ in range(size):
        loss = sum((state.losses() for state in states), torch.zeros(size, dtype=torch.float64))
        barred = gone if bool((gone | stays).all()) else gone | stays
        chosen = int(loss.masked_fill(barred, torch.inf).argmin())
        taken.append(chosen)
        losses.append(loss[chosen].clamp_min(0.0))
        gone[chosen] = True
        for state in states:
            state.remove(chosen)
    return Elimination(torch.tensor(taken), _summed(torch.stack(losses)))


def errors_of(readings: Sequence[Reading], order: Tensor) -> Tensor:
    """The squared error for each number of filters left, float64 [n + 1], if they go in a given order.

    With the inputs sorted so that those which go last come first, G = L Lᵀ, and the rows of L⁻¹ G W are what each input
    adds to what those before it explain: one factorisation for all numbers of filters.

    Args:
        readings: the layers.
        order: the filters, first to go first, int64 [n].
    """
    size = len(order)
    place = torch.empty(size, dtype=torch.int64)
    place[order.flip(0)] = torch.arange(size)  # 0 for the filter that stays longest
    losses = torch.zeros(size, dtype=torch.float64)
    for reading in readings:
        of = torch.where(reading.filters < 0, -1, place[reading.filters.clamp_min(0)])
        inputs = torch.argsort(of, stable=True)
        factor = torch.linalg.cholesky(reading.gram[inputs][:, inputs])
        explained = torch.linalg.solve_triangular(factor, (reading.gram @ reading.weight)[inputs], upper=False)
        mine = of[inputs] >= 0
        losses.index_add_(0, of[inputs][mine], explained[mine].square().sum(dim=1))
    return _summed(losses.flip(0))


def _summed(losses: Tensor) -> Tensor:
    """From what each filter costs when it goes, first to go first, the errors by the number of filters left."""
    errors = losses.cumsum(0).flip(0)
    return torch.cat([errors, errors.new_zeros(1)])


class _State:
    """The inverse of a reading's Gram matrix, and its refitted weights, as filters go."""

    def __init__(self, reading: Reading, size: int) -> None:
        inputs = len(reading.filters)
        # One more input that nothing reads fills up the rows of filters that are read at fewer places than others.
        self._inverse = torch.eye(inputs + 1, dtype=torch.float64)
        self._inverse[:inputs, :inputs] = torch.linalg.inv(reading.gram)
        self._weight = torch.cat([reading.weight, reading.weight.new_zeros(1, reading.weight.shape[1])])
        self._places = _places(reading.filters, size)
        unused = self._places == inputs
        self._twice = unused.unsqueeze(1) | unused.unsqueeze(2)

    def losses(self) -> Tensor:
        """By how much the squared error rises if each filter goes, float64 [n]; 0 for those that are gone."""
        if self._places.shape[1] == 1:
            places = self._places[:, 0]
            return self._weight[places].square().sum(dim=1) / self._inverse.diagonal()[places]
        blocks = self._inverse[self._places.unsqueeze(2), self._places.unsqueeze(1)]
        blocks = torch.where(self._twice, torch.eye(blocks.shape[1], dtype=torch.float64), blocks)
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(blocks), self._weight[self._places], upper=False)
        found: Tensor = half.square().sum(dim=(1, 2))
        return found

    def remove(self, chosen: int) -> None:
        """Take one filter away."""
        filler = len(self._inverse) - 1
        places = self._places[chosen][self._places[chosen] != filler]
        if len(places) == 0:
            return
        columns = self._inverse[:, places]
        steps = torch.linalg.solve(self._inverse[places][:, places], columns.T).T
        self._weight.addmm_(steps, self._weight[places], alpha=-1)
        self._inverse.addmm_(steps, columns.T, alpha=-1)
        self._weight[places] = 0.0
        self._inverse[places], self._inverse[:, places] = 0.0, 0.0
        self._inverse[places, places] = 1.0


def _places(filters: Tensor, size: int) -> Tensor:
    """Where each filter is read, int64 [n, most places of one]; filled up with the number of inputs."""
    counts = torch.bincount(filters[filters >= 0], minlength=size)
    found = torch.full((size, max(1, int(counts.max()))), len(filters), dtype=torch.int64)
    order = torch.argsort(filters, stable=True)
    order = order[filters[order] >= 0]
    rows = filters[order]
    found[rows, torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]] = order
    return found
