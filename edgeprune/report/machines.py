"""What machines are called, so that one can be told from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeprune.measurement import Measurement


def machine_name(facts: Mapping[str, Any]) -> str:
    """One line that tells a machine from others: the board if it has a name, the processor, cores, architecture."""
    cores = facts.get("cores")
    parts = (facts.get("model"), facts.get("cpu"), f"{cores} cores" if cores else None, facts.get("machine"))
    name = ", ".join(str(part) for part in parts if part) or "a machine that does not name itself"
    name = f"{name}, emulated" if facts.get("emulated") else name
    return f"{name} ({facts['called']})" if "called" in facts else name


def told_apart(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """The measurements; where machines would share a name, as identical boards do, with the user's name in it."""
    asked: dict[str, set[str]] = {}
    for one in measurements:
        asked.setdefault(machine_name(one.device), set()).add(asked_for(one))
    return tuple(
        replace(one, device={**one.device, "called": asked_for(one)})
        if len(asked[machine_name(one.device)]) > 1
        else one
        for one in measurements
    )


def asked_for(one: Measurement) -> str:
    """What the user called the device; before that was kept, only this machine was measured without saying so."""
    return str(one.device.get("asked", "local"))
