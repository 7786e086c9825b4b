"""Who is measured together, and in which order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any


def groups(entries: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The entries that run interleaved: those that share runtime and thread count, in the order of their first."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault((entry["runtime"], entry["threads"]), []).append(entry)
    return list(found.values())


def turns(ids: Sequence[str], seed: int) -> Iterator[tuple[int, list[str]]]:
    """(round, the entries' order in it) without end: random in each even round, mirrored in the odd one after it."""
    chance, order = random.Random(seed), list(ids)
    for number in count():
        if number % 2:
            order = order[::-1]
        else:
            chance.shuffle(order)
        yield number, list(order)
