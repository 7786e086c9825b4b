"""solve: the widths that cost the outputs least and take no longer than asked, by Lagrangian search.

For a price of time, damage plus price times time is smallest at widths that variable elimination finds exactly where
few spaces meet in one layer (R. Dechter, "Bucket elimination", 1999, https://doi.org/10.1016/S0004-3702(99)00059-4).
The price is raised until the time is short enough. What is smallest for a price can be lower than any damage that fits
into the time only by what the price is worth (H. Everett, "Generalized Lagrange multiplier method", 1963,
https://doi.org/10.1287/opre.11.3.399): so each solution comes with a bound on how much better another could be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Factor = tuple[tuple[str, ...], Floats]

_MOST_ENTRIES = 1 << 20
"""Of one table during elimination; where spaces are tied together more than that, the search is no longer exact."""
_HALVINGS = 40
"""Of the interval of prices, which are then told apart to a millionth of a millionth."""


@dataclass(frozen=True, eq=False)
class Term:
    """What takes time, by the widths of the spaces it depends on.

    Attributes:
        spaces: their names.
        ms: time in milliseconds, an axis for each space, an entry for each of its choices.
    """

    spaces: tuple[str, ...]
    ms: Floats


@dataclass(frozen=True)
class Solution:
    """A choice for each space.

    Attributes:
        choice: space name -> index into its choices.
        damage: of all together.
        ms: of all together.
        gap: no choice within the time asked for has less damage than this one's minus the gap; None where that is not
            known, because too many spaces meet in one layer.
    """

    choice: Mapping[str, int]
    damage: float
    ms: float
    gap: float | None


class Problem:
    """Damage and time of the choices for each space.

    Args:
        damage: space name -> what each choice costs the outputs, float64 [choices], the choice that costs least first
            among those that are otherwise equal.
        terms: what the time is the sum of.
        constant_ms: time that no choice changes.
    """

    def __init__(self, damage: Mapping[str, Floats], terms: Sequence[Term], constant_ms: float = 0.0) -> None:
        self._damage, self._terms, self._constant = damage, terms, constant_ms

    def damage(self, choice: Mapping[str, int]) -> float:
        """What a choice costs the outputs."""
        return float(sum(costs[choice[name]] for name, costs in self._damage.items()))

    def ms(self, choice: Mapping[str, int]) -> float:
        """The time that a choice takes, in milliseconds."""
        return self._constant + float(sum(term.ms[tuple(choice[name] for name in term.spaces)] for term in self._terms))

    def fastest(self) -> Solution:
        """The choice that takes the least time, and of such that which costs least."""
        span = float(sum(costs.max() - costs.min() for costs in self._damage.values())) or 1.0
        choice, _ = self._cheapest(1e-9 / span, 1.0)
        return Solution(choice, self.damage(choice), self.ms(choice), None)

    def solve(self, goal_ms: float) -> Solution | None:
        """The choice that costs the outputs least and takes at most `goal_ms`, as far as can be told; None: none does.

        Of choices that cost the same the first is taken, and never one that costs more and takes as long.
        """
        best, lower, exact = self.fastest(), -np.inf, True
        if best.ms > goal_ms:
            return None
        low, high = 0.0, 1.0  # angles of the price: tan(0) asks for no speed at all, tan(pi / 2) for nothing else
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            price = np.tan(middle * np.pi / 2)
            choice, certain = self._cheapest(1.0, float(price))
            found, took = self.damage(choice), self.ms(choice)
            exact &= certain
            lower = max(lower, found + price * (took - goal_ms))
            if took <= goal_ms:
                high = middle
                best = min(best, Solution(choice, found, took, None), key=lambda one: one.damage)
            else:
                low = middle
        choice = self._filled(best.choice, goal_ms)
        found = self.damage(choice)
        return Solution(choice, found, self.ms(choice), max(0.0, found - lower) if exact else None)

    def _filled(self, choice: Mapping[str, int], goal_ms: float) -> dict[str, int]:
        """A choice changed space by space as long as that costs less and stays within the time."""
        now = dict(choice)
        while True:
            gains = [
                (costs[now[name]] - costs[other], name, other)
                for name, costs in self._damage.items()
                for other in np.flatnonzero(costs < costs[now[name]]).tolist()
                if self.ms({**now, name: other}) <= goal_ms
            ]
            if not gains:
                return now
            _, name, other = max(gains)
            now[name] = other

    def _cheapest(self, price_of_damage: float, price_of_time: float) -> tuple[dict[str, int], bool]:
        """The choice with the least damage and time, each times its price; and whether that is certain."""
        factors: list[_Factor] = [((name,), price_of_damage * costs) for name, costs in self._damage.items()]
        factors += [(term.spaces, price_of_time * term.ms) for term in self._terms]
        found = _eliminated(factors)
        return (found, True) if found is not None else (_descended(factors), False)


def _eliminated(factors: list[_Factor]) -> dict[str, int] | None:
    """The choice with the smallest sum of all factors; None where a table would become too large."""
    sizes = {name: length for names, table in factors for name, length in zip(names, table.shape, strict=True)}
    left, steps = factors, []
    waiting = set(sizes)
    while waiting:
        chosen = min(sorted(waiting), key=lambda name: _entries(left, name, sizes))
        mine = [one for one in left if chosen in one[0]]
        if _entries(left, chosen, sizes) > _MOST_ENTRIES:
            return None
        others = tuple(dict.fromkeys(name for names, _ in mine for name in names if name != chosen))
        table = sum(_spread(one, (*others, chosen)) for one in mine)
        assert isinstance(table, np.ndarray)
        steps.append((chosen, others, table.argmin(axis=-1)))
        left = [one for one in left if chosen not in one[0]] + [(others, table.min(axis=-1))]
        waiting.remove(chosen)
    found: dict[str, int] = {}
    for chosen, others, best in reversed(steps):
        found[chosen] = int(best[tuple(found[name] for name in others)])
    return found


def _entries(factors: list[_Factor], name: str, sizes: Mapping[str, int]) -> int:
    """How large a table is that joins all factors of a space."""
    together = {other for names, _ in factors if name in names for other in names}
    total = 1
    for other in together:
        total *= sizes[other]
    return total


def _spread(factor: _Factor, names: tuple[str, ...]) -> Floats:
    """A factor with an axis for each name, in that order, of length 1 for those it does not know."""
    own, table = factor
    order = [own.index(name) for name in names if name in own]
    shape = [table.shape[own.index(name)] if name in own else 1 for name in names]
    return table.transpose(order).reshape(shape)


def _descended(factors: list[_Factor]) -> dict[str, int]:
    """A choice that no change of a single space makes better, from the first choices on."""
    sizes = {name: length for names, table in factors for name, length in zip(names, table.shape, strict=True)}
    now = dict.fromkeys(sizes, 0)
    changed = True
    while changed:
        changed = False
        for name in now:
            mine = [one for one in factors if name in one[0]]
            sums = sum(
                table[tuple(slice(None) if other == name else now[other] for other in names)] for names, table in mine
            )
            assert isinstance(sums, np.ndarray)
            best = int(sums.argmin())
            if sums[best] < sums[now[name]]:
                now[name], changed = best, True
    return now
