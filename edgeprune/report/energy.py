"""The energy of one image, with where it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Energy:
    """What one image costs.

    Attributes:
        source: the meter ("ina3221:VDD_IN"); empty where there is none.
        covers: what draws the power it reads.
        idle_w: power of the machine before, nothing of ours running; None where there is no meter, as the next three.
        load_w: power while images were computed one after another.
        joules: of one image, the idle machine's power included.
        joules_above_idle: of one image, without it.
        unavailable: why there is none; empty if there is.
    """

    source: str
    covers: str
    idle_w: float | None
    load_w: float | None
    joules: float | None
    joules_above_idle: float | None
    unavailable: str


def energy_of(told: Mapping[str, Any]) -> Energy | None:
    """What a measurement's `energy` says; None where that was not asked for."""
    if not told:
        return None
    return Energy(
        source=told.get("source", ""),
        covers=told.get("covers", ""),
        idle_w=told.get("idle_w"),
        load_w=told.get("load_w"),
        joules=told.get("joules"),
        joules_above_idle=told.get("joules_above_idle"),
        unavailable=told.get("unavailable", ""),
    )
