"""The machines that measurements were taken on, and what to call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeprune.measurement import Measurement
from edgeprune.report.parts import Board, Machine

_HOST = "host"


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


def machines(measurements: Sequence[Measurement], target: Board | None) -> tuple[Machine, ...]:
    """The machines they were taken on, each once."""
    found = {}
    for one in measurements:
        # The sensors before the run belong to the measurement, not to the machine.
        facts = {name: value for name, value in one.device.items() if name != "at_start"}
        name = machine_name(facts)
        found[name] = Machine(name, _is_target(facts, target), facts)
    return tuple(found.values())


def _is_target(facts: Mapping[str, Any], target: Board | None) -> bool:
    """Whether a machine is the target: it is the host and the host was asked for, or the board says its name."""
    if facts.get("emulated") or target is None:
        return False
    return target.name == _HOST or target.title.casefold() in str(facts.get("model", "")).casefold()
