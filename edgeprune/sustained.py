"""What becomes of a speed-up when the board gets hot: times by minute, when it throttles, what is left in the end.

docs/decisions/0007 says why uncut and cut file share one run, and how throttling is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median
from typing import Any, Protocol

from edgeprune.course import BlockTime, course
from edgeprune.measurement import Block, Measurement
from edgeprune.stats import MIN_ROUNDS, detectable_change, ratio_interval
from edgeprune.throttling import Seen, Sign, throttling
from edgeprune.worker import taint

COLD_SHARE, COLD_SECONDS = 0.1, 30.0
"""The board counts as cold for this share of the run, at most for so many seconds, but for six rounds at least."""
STEADY_SHARE = 1 / 3
"""The last part of the run that the steady speed-up is taken from."""
_STILL = 0.02
_MOST_POINTS = 120


class Doubted(Protocol):
    """What is wanted of a reason to doubt a measurement; its text names its kind."""

    @property
    def fatal(self) -> bool:
        """Whether the times are not to be relied on because of it."""

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Steady:
    """How much faster the cut file is than the uncut one on the hot board, as a `Comparison` says it of the whole run.

    Attributes:
        ratio: the uncut file's time divided by the cut one's.
        ci95: its 95 % interval.
        rounds: how many paired rounds it rests on.
        detectable: the smallest true change it would have found 4 times out of 5, as a share.
    """

    ratio: float
    ci95: tuple[float, float]
    rounds: int
    detectable: float


@dataclass(frozen=True)
class SustainedFile:
    """One file under sustained load; times in milliseconds for one image.

    Attributes:
        artifact: its path.
        cold_ms: median on the cold board.
        steady_ms: median in the last part of the run.
        minutes_ms: median of each minute from the run's start; None for a minute without a block of it.
        speed_up: in the last part; None for the baseline, or where too few clean rounds are left.
        blocks: its times through the run, several blocks put together where there are many.
    """

    artifact: str
    cold_ms: float
    steady_ms: float
    minutes_ms: tuple[float | None, ...]
    speed_up: Steady | None
    blocks: tuple[BlockTime, ...]


@dataclass(frozen=True)
class Sustained:
    """Files that took turns without a pause until the board was hot.

    Attributes:
        device: name of the machine.
        runtime: that ran them.
        threads: that the runtime used.
        seconds: from the first block to the last.
        throttled_s: when the first sign of throttling was seen, in seconds since the run's start; None if never.
        sign: "bits", "clock" or "times"; empty if none was seen.
        evidence: what was seen, or what was looked at in vain, in words.
        steady_from_s: where the last part begins, from which steady times are taken.
        still: whether times hardly changed within the last part; if not, a longer run would say more.
        temperature_c: highest of each minute; None where the machine does not say, as the next one.
        clock_mhz: of the fastest core, median of each minute.
        files: uncut files first.
        trust: "ok", or why the numbers should not be relied on.
        warnings: what was noticed, each beginning with the name of its kind.
    """

    device: str
    runtime: str
    threads: int
    seconds: float
    throttled_s: float | None
    sign: Sign
    evidence: str
    steady_from_s: float
    still: bool
    temperature_c: tuple[float | None, ...]
    clock_mhz: tuple[float | None, ...]
    files: tuple[SustainedFile, ...]
    trust: str = "ok"
    warnings: tuple[str, ...] = ()


def sustained(
    measurements: Sequence[Measurement],
    name: Callable[[Mapping[str, Any]], str],
    doubts: Sequence[Sequence[Doubted]] = (),
) -> tuple[Sustained, ...]:
    """What sustained runs among measurements came to, one for each session, runtime and thread count.

    Args:
        measurements: any; those that are emulated, of an ordinary run, or interrupted too early are passed over.
        name: how to call a machine, from its facts.
        doubts: what speaks against each measurement, the fatal first.
    """
    against = {id(one): its for one, its in zip(measurements, doubts, strict=False)}
    kept = [one for one in measurements if one.sustained and not one.emulated]

    def setting(one: Measurement) -> tuple[str, str, int]:
        return one.session, one.runtime, one.threads

    groups = [list(group) for _, group in groupby(sorted(kept, key=setting), key=setting)]
    groups = [group for group in groups if min(len(one.blocks) for one in group) >= MIN_ROUNDS]
    found = []
    for group in groups:
        told = [doubt for one in group for doubt in against.get(id(one), ())]
        fatal = [str(doubt) for doubt in told if doubt.fatal]
        one = _sustained(sorted(group, key=lambda one: one.role != "baseline"), name)
        found.append(replace(one, trust=(*fatal, "ok")[0], warnings=tuple(dict.fromkeys(map(str, told)))))
    return tuple(found)


def _sustained(group: Sequence[Measurement], name: Callable[[Mapping[str, Any]], str]) -> Sustained:
    blocks = {one.path + one.role: course(one) for one in group}
    every = sorted((block for its in blocks.values() for block in its), key=lambda block: block.started_s)
    begin, end = every[0].started_s, every[-1].started_s
    cold = max(
        begin + min(COLD_SHARE * (end - begin), COLD_SECONDS),
        max((block.started_s for block in every if block.round < MIN_ROUNDS), default=begin),
    )
    steady = end - STEADY_SHARE * (end - begin)
    cold_ms = [median(block.p50_ms for block in its if block.started_s <= cold) for its in blocks.values()]
    seen = _seen(group, cold_ms)
    when, sign, evidence = throttling(seen, cold)
    minutes = int(end // 60) + 1
    files = [
        SustainedFile(
            artifact=one.path,
            cold_ms=usual,
            steady_ms=median(block.p50_ms for block in its if block.started_s >= steady),
            minutes_ms=_by_minute([(block.started_s, block.p50_ms) for block in its], minutes, median),
            speed_up=_speed_up(one, group, steady),
            blocks=thinned(its, begin, end),
        )
        for one, its, usual in zip(group, blocks.values(), cold_ms, strict=True)
    ]
    return Sustained(
        device=name(group[0].device),
        runtime=group[0].runtime,
        threads=group[0].threads,
        seconds=end - begin,
        throttled_s=when,
        sign=sign,
        evidence=evidence,
        steady_from_s=steady,
        still=_still(seen, steady, end),
        temperature_c=_by_minute([(block.started_s, block.temperature_c) for block in every], minutes, max),
        clock_mhz=_by_minute([(block.started_s, block.clock_mhz) for block in every], minutes, median),
        files=tuple(files),
    )


def thinned(blocks: Sequence[BlockTime], begin: float, end: float) -> tuple[BlockTime, ...]:
    """At most some hundred points: blocks of the same stretch of time put together."""
    width = (end - begin) / _MOST_POINTS or 1.0
    found = []
    for _, stretch in groupby(blocks, key=lambda block: int((block.started_s - begin) / width)):
        its = list(stretch)
        found.append(
            replace(
                its[0],
                p50_ms=median(block.p50_ms for block in its),
                temperature_c=its[-1].temperature_c,
                clock_mhz=min((block.clock_mhz for block in its if block.clock_mhz), default=None),
                tainted=tuple(dict.fromkeys(reason for block in its for reason in block.tainted)),
            )
        )
    return tuple(found)


def _seen(group: Sequence[Measurement], cold_ms: Sequence[float]) -> list[Seen]:
    """All blocks of all files in the order of time."""
    taken = sorted(
        ((block, drawn, usual) for one, usual in zip(group, cold_ms, strict=True) for block, drawn in _drawn(one)),
        key=lambda pair: pair[0].started_s,
    )
    readings = [block.sensors for block, _, _ in taken]
    bits = taint.throttled_now(readings, group[0].device.get("at_start", {}))
    return [
        Seen(
            at_s=block.started_s,
            slower=drawn.p50_ms / usual,
            clean=not drawn.tainted,
            bits=now & taint.SLOWED if "throttled" in block.sensors else None,
            clock_mhz=drawn.clock_mhz,
        )
        for (block, drawn, usual), now in zip(taken, bits, strict=True)
    ]


def _drawn(one: Measurement) -> Iterator[tuple[Block, BlockTime]]:
    return zip(one.blocks, course(one), strict=True)


def _speed_up(one: Measurement, group: Sequence[Measurement], start: float) -> Steady | None:
    """Of a cut file over the uncut one in fp32, or else in its own precision, from `start` on."""
    uncut = {its.precision: its for its in group if its.role == "baseline" and its.format == one.format}
    baseline = uncut.get("fp32") or uncut.get(one.precision)
    if one.role == "baseline" or baseline is None:
        return None
    slow, fast = (
        {block.round: block.p50_ms for block in course(its) if block.started_s >= start and not block.tainted}
        for its in (baseline, one)
    )
    rounds = sorted(slow.keys() & fast.keys())
    if len(rounds) < MIN_ROUNDS:
        return None
    ratio, low, high = ratio_interval([slow[r] for r in rounds], [fast[r] for r in rounds])
    return Steady(ratio, (low, high), len(rounds), detectable_change(low, high))


def _still(seen: Sequence[Seen], start: float, end: float) -> bool:
    """Whether the two halves of the last part are alike."""
    half, calm = (start + end) / 2, [block for block in seen if block.clean] or seen
    first = [block.slower for block in calm if start <= block.at_s < half]
    last = [block.slower for block in calm if half <= block.at_s]
    return bool(first and last) and abs(median(last) / median(first) - 1) <= _STILL


def _by_minute(
    values: Sequence[tuple[float, float | None]], minutes: int, summed: Callable[[list[float]], float]
) -> tuple[float | None, ...]:
    groups: list[list[float]] = [[] for _ in range(minutes)]
    for when, value in values:
        if value is not None:
            groups[int(when // 60)].append(value)
    return tuple(summed(group) if group else None for group in groups)
