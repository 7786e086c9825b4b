"""Two stored runs against each other: only where board, runtime, threads and power state are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.bench.trust import Doubt, clean_blocks, doubts
from edgeprune.errors import UsageError
from edgeprune.measurement import Measurement
from edgeprune.stats import MIN_ROUNDS, Verdict, detectable_change, unpaired_ratio_interval, verdict_of

_BOARD = (
    *("machine", "model", "revision", "cpu", "cores", "firmware"),
    *("governor", "max_frequency_mhz", "power_mode", "emulated"),
)
"""Facts of a device that must be equal: which board it is, and how it is powered and clocked."""


@dataclass(frozen=True)
class Across:
    """One file of run A against the same kind of file of run B; not side by side, so nothing cancels.

    Attributes:
        first: path of A's file.
        second: path of B's.
        role: "baseline" or "pruned", of both.
        runtime: of A's.
        threads: of A's.
        ratio: A's time over B's: above 1, B is faster.
        ci95: its 95 % interval; it knows nothing of what changed between the runs.
        verdict: what may be said of B.
        detectable: the smallest true change it would have found 4 times out of 5, as a share.
        differs: what was not the same, with both values; empty unless mixing was allowed.
        doubts: what speaks against either measurement.
    """

    first: str
    second: str
    role: str
    runtime: str
    threads: int
    ratio: float
    ci95: tuple[float, float]
    verdict: Verdict
    detectable: float
    differs: tuple[str, ...]
    doubts: tuple[Doubt, ...]

    def to_json(self) -> dict[str, Any]:
        """This comparison as a JSON document."""
        lists = {name: list(value) for name, value in vars(self).items() if isinstance(value, tuple)}
        return {**vars(self), **lists, "mixed": bool(self.differs), "doubts": [str(doubt) for doubt in self.doubts]}


def across(first: Sequence[Measurement], second: Sequence[Measurement], *, mixed: bool = False) -> tuple[Across, ...]:
    """Compare what two runs stored, file kind by file kind; of measurements made again, the last.

    Args:
        first: of run A.
        second: of run B.
        mixed: also where board, runtime version or power state differ.

    Raises:
        UsageError: the runs share no kind of file, runtime and thread count; or something differs and `mixed` is not
            set; or a measurement is emulated or too short.
    """
    mine, theirs = ({_kind(one): one for one in run} for run in (first, second))
    shared = [kind for kind in mine if kind in theirs]
    if not shared:
        raise UsageError(
            f"the two have nothing in common to compare: {_listed(mine)} against {_listed(theirs)}",
            fix="Measure both with the same --runtime and --threads.",
        )
    pairs = [(mine[kind], theirs[kind]) for kind in shared]
    different = dict.fromkeys(text for pair in pairs for text in differences(*pair))
    if different and not mixed:
        raise UsageError(
            f"not measured under the same conditions: {'; '.join(different)}",
            fix="Measure both on one device in one state, or compare all the same with --allow-mixed.",
        )
    return tuple(_across(*pair) for pair in pairs)


def differences(first: Measurement, second: Measurement) -> tuple[str, ...]:
    """What is not the same of two measurements' conditions: "governor 'ondemand' against 'performance'"."""
    facts = [(name, first.device.get(name), second.device.get(name)) for name in _BOARD]
    facts.append((f"{first.runtime} version", first.runtime_version, second.runtime_version))
    return tuple(f"{name} {mine!r} against {theirs!r}" for name, mine, theirs in facts if mine != theirs)


def _across(first: Measurement, second: Measurement) -> Across:
    times = [[block.median_ns for block in clean_blocks(one)] for one in (first, second)]
    if first.emulated or second.emulated:
        raise UsageError("emulated: these times say nothing about a board", fix="Measure on the board itself.")
    if min(map(len, times)) < MIN_ROUNDS:
        raise UsageError(f"fewer than {MIN_ROUNDS} blocks to compare of {first.path}", fix="Measure longer: --blocks.")
    ratio, low, high = unpaired_ratio_interval(*times)
    return Across(
        first=first.path,
        second=second.path,
        role=first.role,
        runtime=first.runtime,
        threads=first.threads,
        ratio=ratio,
        ci95=(low, high),
        verdict=verdict_of(low, high),
        detectable=detectable_change(low, high),
        differs=differences(first, second),
        doubts=(*doubts(first), *doubts(second)),
    )


def _kind(one: Measurement) -> tuple[str, str, str, str, int]:
    return one.role, one.format, one.precision, one.runtime, one.threads


def _listed(kinds: Sequence[tuple[str, str, str, str, int]] | dict[tuple[str, str, str, str, int], Measurement]) -> str:
    names = sorted({f"{runtime} with {threads} threads" for _, _, _, runtime, threads in kinds})
    return ", ".join(names) or "nothing"
