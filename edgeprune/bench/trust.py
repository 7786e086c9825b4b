"""Which times to believe: a closed list of doubts, what raises each, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from edgeprune.measurement import Block, Measurement
from edgeprune.stats import MIN_ROUNDS, robust_spread
from edgeprune.worker import taint

NOISY_SPREAD = 0.10
"""Block medians that spread by more than this (1.4826 * MAD / median) are noisy.

pyperf calls a benchmark possibly unstable from a standard deviation of 10 % of the mean. trtexec warns from a
coefficient of variation of 2.5 % already, on a GPU of its own; a CPU shared with a system passes that often, and the
paired ratio does not suffer from it.
"""
HOT_START_C = 65.0
"""A CPU this hot before the run will soon be slowed: Raspberry Pi firmware begins at 80 C (on a 3B+ at 60 C)."""


@dataclass(frozen=True)
class Rule:
    """What one kind of doubt means.

    Attributes:
        taints: a block it befalls is left out of every comparison.
        fatal: it alone makes the run untrusted.
        remedy: what to do about it.
    """

    taints: bool
    fatal: bool
    remedy: str


class Reason(Enum):
    """The closed list; what is said of a measurement is always one of these."""

    EMULATED = Rule(False, True, "Run it on the board itself; under an emulator only whether it works is shown.")
    PARITY = Rule(False, True, "Do not use the file on this device: it computes something else there. Report it.")
    THROTTLED = Rule(True, False, "Cool the board (heat sink, fan), let it rest, and measure again.")
    UNDER_VOLTAGE = Rule(True, False, "Use the board's own power supply and a short, thick cable.")
    CLOCK_CHANGED = Rule(True, False, "Fix the clock: the performance governor, on a Jetson jetson_clocks too.")
    BUSY = Rule(True, False, "Stop other programs on the device, or give it fewer --threads.")
    TOO_FEW_SAMPLES = Rule(False, True, "Measure longer: --blocks or --minutes.")
    HOT_START = Rule(False, False, "Let the device cool down before a run.")
    GOVERNOR = Rule(
        False, False, "As root: echo performance > /sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    )
    NOISY = Rule(False, False, "Stop other programs and measure longer; the interval already is wider for it.")


@dataclass(frozen=True)
class Doubt:
    """One reason to doubt one measurement.

    Attributes:
        reason: of the closed list.
        said: what was seen, a few words.
        fatal: whether the measurement is untrusted because of it.
    """

    reason: Reason
    said: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.reason.name}: {self.said}"


def doubts(measurement: Measurement) -> tuple[Doubt, ...]:
    """What there is to say against a measurement: the fatal ones first, else in the order of the list."""
    stained = tainted(measurement)
    too_many = taint.too_many(len(set[int]().union(*stained.values())), len(measurement.blocks))
    said = {**_whole(measurement), **_stains(measurement, stained)}
    found = [
        Doubt(kind, said[kind], kind.value.fatal or (kind in stained and too_many)) for kind in Reason if kind in said
    ]
    return tuple(sorted(found, key=lambda doubt: not doubt.fatal))


def verdict(found: Sequence[Doubt]) -> str:
    """Either "ok", or the first reason not to believe the times."""
    return str(found[0]) if found and found[0].fatal else "ok"


def clean_blocks(measurement: Measurement) -> tuple[Block, ...]:
    """The blocks to compare: those nothing befell; all of them if so many are tainted that the run is untrusted."""
    stained = set[int]().union(*tainted(measurement).values())
    if taint.too_many(len(stained), len(measurement.blocks)):
        return measurement.blocks
    return tuple(block for at, block in enumerate(measurement.blocks) if at not in stained)


def tainted(measurement: Measurement) -> Mapping[Reason, set[int]]:
    """What befell which blocks, by their places in `measurement.blocks`."""
    readings, at_start = [block.sensors for block in measurement.blocks], measurement.device.get("at_start", {})
    found = taint.tainted(readings, at_start, heated=measurement.sustained)
    return {Reason[name]: places for name, places in found.items()}


def _stains(measurement: Measurement, stained: Mapping[Reason, set[int]]) -> dict[Reason, str]:
    total, others = len(measurement.blocks), [block.sensors.get("other_cores", 0.0) for block in measurement.blocks]
    said = {kind: f"{len(places)} of {total} blocks" for kind, places in stained.items()}
    if Reason.BUSY in said:
        said[Reason.BUSY] += f": other programs used up to {max(others):.1f} cores"
    return said


def _whole(measurement: Measurement) -> dict[Reason, str]:
    """What is to be said of the measurement as a whole."""
    device, said = measurement.device, {}
    if device.get("emulated"):
        said[Reason.EMULATED] = f"{device.get('emulated_by', 'an emulator')}: these times say nothing about a board"
    if not measurement.parity.get("passed", True):
        said[Reason.PARITY] = f"its output differs from the host's by {measurement.parity['max_rel'] or math.inf:.1e}"
    left = len(clean_blocks(measurement))
    if left < MIN_ROUNDS:
        said[Reason.TOO_FEW_SAMPLES] = f"{left} blocks to compare, needs {MIN_ROUNDS}"
    if measurement.threads > device.get("cores", measurement.threads):
        said[Reason.BUSY] = f"{measurement.threads} threads on {device['cores']} cores"
    hot = device.get("at_start", {}).get("temperature_c", 0.0)
    if hot >= HOT_START_C:
        said[Reason.HOT_START] = f"{hot:.0f} C before the run"
    if device.get("governor", "performance") != "performance":
        said[Reason.GOVERNOR] = f"the CPU governor is {device['governor']!r}: clocks may change"
    spread = robust_spread([block.median_ns for block in measurement.blocks])
    if spread > NOISY_SPREAD and not measurement.sustained:
        said[Reason.NOISY] = f"blocks spread by {spread:.0%}"
    elif not measurement.warm_up.get("stable", True):
        said[Reason.NOISY] = f"times were still changing after {measurement.warm_up['seconds']:.1f} s of warm-up"
    return said
