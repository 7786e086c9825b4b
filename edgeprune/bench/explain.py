"""Why fewer MACs did not become less time: a closed list of causes, found in profiles of an uncut and a cut file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum

from edgeprune.bench.roofline import Roof, roof_of
from edgeprune.explanation import Explanation, Finding, LayerChange
from edgeprune.profile import OperatorTime, Profile

WORTH = 0.05
"""Less than this share of the time is not worth a word. Our own choice, as the next ones are."""
SLOWER_RATE = 0.8
"""A layer that reaches less than this share of the rate it had before the cut has lost the rest to its new widths."""
_LEFT_OVER = 0.9
"""A layer that still takes this share of its time has not become faster."""
_CUT = 0.8
"""A layer with fewer MACs than this share of before was cut for good."""
_MEMORY_BOUND = 0.5
"""A layer that would need this share of its time only to move its bytes is bound by that."""
_SMALL_MS = 0.02
"""Layers shorter than this are mostly fixed cost; profilers count in thousandths of a millisecond."""
_REST = "everything else"
_MOVES = re.compile(r"reorder|transpose|convert|quantizelinear|copy|cast|tonhwc|tonchw|reformat", re.IGNORECASE)


class Cause(Enum):
    """The closed list, each with its remedy."""

    UNCUT = "See why they are left whole: edgeprune inspect. Ask for a smaller budget, so that other layers give more."
    WIDTHS = (
        "Cut to widths that fill the kernels' tiles: in a copy of the board's file, set channel_multiple to 16 or 32, "
        "and give that as --target."
    )
    LAYOUT = "Keep to one layout and number format: multiples of 8 or 16 as widths, and one precision in a file."
    INT8_SLOWER = "Hand over the fp32 file for this board, or keep these layers in fp32."
    MEMORY_BOUND = "Make tensors smaller rather than MACs fewer: a smaller input, int8, or cuts in the widest layers."
    FIXED_COST = "Remove whole blocks rather than more filters: what is left costs the same however narrow it is."
    OTHER_OPERATORS = "Fewer MACs do not touch these; a runtime that fuses them may: try another --runtime."


def explain(baseline: Profile, candidate: Profile, roof: Roof | None, same_fp32: Profile | None = None) -> Explanation:
    """Compare two profiles layer by layer, and say where the time is that the cut did not save.

    Args:
        baseline: of the uncut file.
        candidate: of the cut one; same runtime, threads and device.
        roof: the machine's peaks; None where they are not known.
        same_fp32: of the cut file in fp32, where the candidate is int8.
    """
    layers = _changes(baseline, candidate, roof)
    found = [finding for judge in _JUDGES for finding in judge(layers, candidate)]
    if same_fp32:
        found += _int8(candidate, same_fp32)
    worth = [one for one in found if one.share >= WORTH]
    return Explanation(
        baseline=baseline.path,
        candidate=candidate.path,
        runtime=candidate.runtime,
        threads=candidate.threads,
        ms=(baseline.call_ms, candidate.call_ms),
        macs=(_macs(baseline), _macs(candidate)),
        layers=layers,
        findings=tuple(sorted(worth, key=lambda one: -one.share)),
        peak_gflops=roof.gflops if roof else 0.0,
        peak_gb_per_s=roof.gb_per_s if roof else 0.0,
        peak_source=roof.source if roof else "",
    )


def explanations(profiles: Sequence[Profile]) -> tuple[Explanation, ...]:
    """An explanation for each cut file that was profiled beside its uncut one, of profiles on one machine."""
    return tuple(
        explain(uncut, cut, roof_of(cut.device, cut.threads), same_fp32) for uncut, cut, same_fp32 in pairs(profiles)
    )


def pairs(profiles: Sequence[Profile]) -> list[tuple[Profile, Profile, Profile | None]]:
    """(uncut, cut, the cut file in fp32 where the cut one is int8), of profiles under the same conditions."""

    def partner(one: Profile, role: str, precision: str) -> Profile | None:
        wanted = (role, one.format, precision, one.runtime, one.threads)
        its = (other for other in profiles if other is not one)
        return next((p for p in its if (p.role, p.format, p.precision, p.runtime, p.threads) == wanted), None)

    found = []
    for one in profiles:
        uncut = partner(one, "baseline", one.precision) if one.role == "pruned" else None
        if uncut:
            found.append((uncut, one, partner(one, "pruned", "fp32") if one.precision == "int8" else None))
    return found


def _changes(baseline: Profile, candidate: Profile, roof: Roof | None) -> tuple[LayerChange, ...]:
    before = {one.layer: one for one in baseline.operators if one.layer}
    rows = [_change(before[one.layer], one, roof) for one in candidate.operators if one.layer and one.layer in before]
    names = {row.layer for row in rows}
    rest = (sum(one.ms for one in its.operators if one.layer not in names) for its in (baseline, candidate))
    uncut, cut = rest
    return (*rows, LayerChange(_REST, (uncut, cut), (0, 0), (0.0, 0.0), (0, 0)))


def _change(before: OperatorTime, after: OperatorTime, roof: Roof | None) -> LayerChange:
    limit, bound = roof.limit_ms(after.macs, after.bytes) if roof else (0.0, "")
    return LayerChange(
        layer=after.layer,
        ms=(before.ms, after.ms),
        macs=(before.macs, after.macs),
        gflops=(before.gflops, after.gflops),
        channels=after.channels,
        bound=bound,
        limit_ms=limit,
    )


def _uncut(layers: Sequence[LayerChange], candidate: Profile) -> list[Finding]:
    whole = [one for one in layers if one.macs[0] and one.macs[0] == one.macs[1]]
    return _finding(Cause.UNCUT, whole, candidate, "{count} were not cut and take {share}")


def _widths(layers: Sequence[LayerChange], candidate: Profile) -> list[Finding]:
    padded = {one.layer: one.widths for one in candidate.operators if one.layer and one.widths > one.channels[1] > 0}
    slow = [
        one
        for one in layers
        if one.macs[1] < one.macs[0]
        and one.ms[1] >= _SMALL_MS
        and (one.layer in padded or one.gflops[1] < SLOWER_RATE * one.gflops[0])
    ]
    said = "{count} lost speed to their new widths and take {share}"
    examples = [_width(one, padded.get(one.layer, 0)) for one in slow[:3]]
    return _finding(Cause.WIDTHS, slow, candidate, f"{said}: {'; '.join(examples)}")


def _width(one: LayerChange, padded: int) -> str:
    how = f"computed {padded} wide" if padded else f"{one.gflops[0]:.0f} -> {one.gflops[1]:.0f} GFLOP/s"
    return f"{one.layer} {one.channels[0]} -> {one.channels[1]}, {how}"


def _memory(layers: Sequence[LayerChange], candidate: Profile) -> list[Finding]:
    bound = [one for one in layers if one.bound == "memory" and one.limit_ms >= _MEMORY_BOUND * one.ms[1]]
    said = "{count} spend their time moving bytes, not computing, and take {share}"
    return _finding(Cause.MEMORY_BOUND, bound, candidate, said)


def _fixed(layers: Sequence[LayerChange], candidate: Profile) -> list[Finding]:
    small = [
        one
        for one in layers
        if 0 < one.macs[1] < _CUT * one.macs[0] and one.ms[1] < _SMALL_MS and one.ms[1] >= _LEFT_OVER * one.ms[0]
    ]
    found = _finding(Cause.FIXED_COST, small, candidate, "{count} are too small to become faster and take {share}")
    between = candidate.overhead_ms
    text = f"the runtime's own work between operators, profiling included, is {_share(between / candidate.call_ms)}"
    return [*found, Finding(Cause.FIXED_COST.name, text, between / candidate.call_ms, Cause.FIXED_COST.value)]


def _moving(_: Sequence[LayerChange], candidate: Profile) -> list[Finding]:
    moves = [one for one in candidate.operators if not one.layer and _MOVES.search(one.kind)]
    share = sum(one.ms for one in moves) / candidate.call_ms
    kinds = ", ".join(dict.fromkeys(one.kind for one in moves))
    text = f"{_count(len(moves), 'operator')} change layout or number format ({kinds}) and take {_share(share)}"
    return [Finding(Cause.LAYOUT.name, text, share, Cause.LAYOUT.value)]


def _others(_: Sequence[LayerChange], candidate: Profile) -> list[Finding]:
    others = [one for one in candidate.operators if not one.layer and not _MOVES.search(one.kind)]
    share = sum(one.ms for one in others) / candidate.call_ms
    kinds = ", ".join(dict.fromkeys(one.kind for one in sorted(others, key=lambda one: -one.ms)))
    text = f"{_count(len(others), 'operator')} without weights ({kinds}) take {_share(share)}"
    return [Finding(Cause.OTHER_OPERATORS.name, text, share, Cause.OTHER_OPERATORS.value)]


_JUDGES: tuple[Callable[[Sequence[LayerChange], Profile], list[Finding]], ...] = (
    _uncut,
    _widths,
    _memory,
    _fixed,
    _moving,
    _others,
)


def _int8(candidate: Profile, fp32: Profile) -> list[Finding]:
    before = {one.layer: one.ms for one in fp32.operators if one.layer}
    slower = [one for one in candidate.operators if one.layer in before and one.ms > before[one.layer]]
    share = sum(one.ms for one in slower) / candidate.call_ms
    text = f"{_count(len(slower), 'layer')} take longer in int8 than in fp32, {_share(share)}"
    names = tuple(one.layer for one in slower)
    return [Finding(Cause.INT8_SLOWER.name, text, share, Cause.INT8_SLOWER.value, names)]


def _finding(cause: Cause, layers: Sequence[LayerChange], candidate: Profile, said: str) -> list[Finding]:
    share = sum(one.ms[1] for one in layers) / candidate.call_ms
    text = said.format(count=_count(len(layers), "layer"), share=_share(share))
    return [Finding(cause.name, text, share, cause.value, tuple(one.layer for one in layers))] if layers else []


def _macs(profile: Profile) -> int:
    return sum(one.macs for one in profile.operators)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _share(share: float) -> str:
    return f"{share:.0%} of the time"
