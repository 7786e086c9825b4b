"""The most a machine can do: its peak rate and its memory's, by the board's file; what is above is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.artifact import Artifact
from edgeprune.errors import TrustError
from edgeprune.measurement import Measurement
from edgeprune.profile import Profile
from edgeprune.target import Target, known_targets, load_target
from edgeprune.worker.runtimes import RUNTIMES

_MARGIN = 1.05
"""Clocks are rounded in data sheets."""
_FIX = (
    "Is the file the one it is taken for, and the board's clock what it says? Compare `edgeprune doctor` with "
    "`edgeprune devices show`."
)


@dataclass(frozen=True)
class Roof:
    """A machine's peaks for some number of threads.

    Attributes:
        gflops: in fp32.
        gb_per_s: of memory; 0 where not known.
        source: where they are from.
    """

    gflops: float
    gb_per_s: float
    source: str

    def limit_ms(self, macs: int, moved: int) -> tuple[float, str]:
        """The least time for so many MACs and bytes, and what sets it: "compute" or "memory".

        The roofline model: Williams, Waterman and Patterson, 2009.
        """
        computing = 2 * macs / (self.gflops * 1e6)
        moving = moved / (self.gb_per_s * 1e6) if self.gb_per_s else 0.0
        return max(computing, moving), "memory" if moving > computing else "compute"


def board_of(facts: Mapping[str, Any]) -> Target | None:
    """The board file of a machine that says its model; None where there is none."""
    model = str(facts.get("model", "")).casefold()
    for name in known_targets():
        target = load_target(name)
        title = re.sub(r" \d+ gb$", "", target.title.casefold())
        if model and title in model:
            return target
    return None


def roof_of(facts: Mapping[str, Any], threads: int) -> Roof | None:
    """A board's peaks by its file, at the clock it says it has; None where it has none, or is emulated.

    Args:
        facts: of the device, see `edgeprune.worker.sensors.facts`.
        threads: that work at once; each has a core to itself, as long as there are any.
    """
    target = None if facts.get("emulated") else board_of(facts)
    if not target or "peak_fp32_gflops" not in target.facts or "clock_ghz" not in target.facts:
        return None
    peak, nominal = target.facts["peak_fp32_gflops"], target.facts["clock_ghz"]
    clock = facts.get("max_frequency_mhz", 0) / 1000 or float(nominal.value)
    share = min(threads, target.cores) / target.cores * clock / float(nominal.value)
    memory = target.facts.get("memory_peak_gb_per_s")
    source = f"devices/{target.name}.toml ({peak.source}), at {clock:g} GHz"
    return Roof(float(peak.value) * share, float(memory.value) if memory else 0.0, source)


def forbidden(one: Measurement | Profile, macs: int) -> str:
    """What physics has against a time: a rate above the board's peak; empty if nothing.

    Only fp32 on a CPU is judged: other number formats have other peaks, and the runtimes here use no Winograd
    convolutions on a CPU, which need fewer multiplications.

    Args:
        one: a measurement, judged by its fastest block, or a profile, by its operators.
        macs: of its file; 0 where not known.
    """
    roof = roof_of(one.device, one.threads)
    fastest_ms = _fastest_ms(one)
    if not (roof and macs and fastest_ms) or one.precision != "fp32" or RUNTIMES[one.runtime].accelerator:
        return ""
    rate = 2 * macs / (fastest_ms * 1e6)
    if rate <= roof.gflops * _MARGIN:
        return ""
    return (
        f"{one.path} would reach {rate:.0f} GFLOP/s in {one.runtime} with {one.threads} thread"
        f"{'s' * (one.threads > 1)}, in {fastest_ms:.3g} ms; the board's peak is {roof.gflops:.0f}, {roof.source}"
    )


def refuse_forbidden(measurements: Sequence[Measurement], artifacts: Sequence[Artifact]) -> None:
    """Refuse times that the board cannot have reached.

    Args:
        measurements: of these files.
        artifacts: the files, with their MACs.

    Raises:
        TrustError: one is above the board's peak.
    """
    macs = {one.sha256: one.macs for one in artifacts}
    for one in measurements:
        said = forbidden(one, macs.get(one.artifact, 0))
        if said:
            raise TrustError(f"physics forbids it: {said}", fix=_FIX)


def _fastest_ms(one: Measurement | Profile) -> float:
    if isinstance(one, Profile):
        return sum(operator.ms for operator in one.operators)
    return min((block.median_ns for block in one.blocks), default=0.0) / 1e6
