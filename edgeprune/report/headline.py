"""What is said first. Each sentence must be true on its own: people quote the first one and stop reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.report.document import Report
from edgeprune.report.numbers import bounds, count, kept, scaled, share, significant, speed_up, times
from edgeprune.report.parts import SpeedUp, Timing
from edgeprune.report.scores import Accuracy
from edgeprune.report.timed import Timed

_METRICS = {"top1": "Top-1", "agreement": "Agreement with the uncut model"}


@dataclass(frozen=True)
class Figure:
    """A number to be seen first: what it is, its text, and a remark."""

    label: str
    value: str
    note: str


def headline(report: Report) -> str:
    """The result in a few sentences: how much faster and where, how accurate, and whether to rely on it."""
    told = (speed(report), advice(report), accuracy(report), distrust(report))
    return " ".join(sentence for sentence in told if sentence)


def speed(report: Report) -> str:
    """How much faster, for how many MACs, and on what machine."""
    cost, found = report.cost, telling(report)
    fewer = f"{significant(cost.baseline.macs / cost.pruned.macs)}x fewer MACs"
    if _telling_precision(report) != "fp32":
        cut = cost.pruned.macs < cost.baseline.macs
        fewer = f"{_telling_precision(report)} and {fewer}" if cut else f"{_telling_precision(report)} alone"
    if not found:
        return f"Speed was not measured; {fewer}."
    text = _one(found[0]) if len(found) == 1 else f"{_verdicts(found)}: {_range(found, report)}"
    return " ".join([f"{text}, for {fewer}, {place(report)}.", *_in_fewer_bits(report)])


def telling(report: Report) -> tuple[SpeedUp, ...]:
    """The comparisons that answer the question: those made on the target itself if there are any, in fp32.

    Where the fastest precision was looked for, in that.
    """
    groups = by_precision(report)
    return groups.get(_telling_precision(report)) or tuple(one for group in groups.values() for one in group)


def _telling_precision(report: Report) -> str:
    chosen = report.front.chosen.precision if report.front else "fp32"
    return chosen if chosen in by_precision(report) else "fp32"


def advice(report: Report) -> str:
    """Which cut files not to use for their speed, why, and what would help: those that are not surely faster."""
    settings = Counter(one.candidate for its in by_precision(report).values() for one in its)
    slow = [one for its in by_precision(report).values() for one in its if one.verdict != "faster"]
    if not slow or report.cost.pruned.macs == report.cost.baseline.macs:  # trained only: nothing was to become faster
        return ""
    named = {path: [one for one in slow if one.candidate == path] for path in dict.fromkeys(o.candidate for o in slow)}
    every = [
        path if len(its) == settings[path] else f"{path} ({', '.join(setting(one) for one in its)})"
        for path, its in named.items()
    ]
    return f"Not recommended, as not surely faster than the uncut model: {', '.join(every)}.{_why(slow, report)}"


def _why(slow: Sequence[SpeedUp], report: Report) -> str:
    """The most telling reason that profiles give for one of these, and what would help."""
    asked = {(one.candidate, one.runtime, one.threads, one.device) for one in slow}
    told = [
        one
        for one in report.explanations
        if one.findings and (one.candidate, one.runtime, one.threads, one.device) in asked
    ]
    if not told:
        return " Why, layer by layer: edgeprune bench RUN --profile."
    worst = told[0].findings[0]
    return f" {told[0].candidate}: {worst.said}. {worst.remedy}"


def by_precision(report: Report) -> dict[str, tuple[SpeedUp, ...]]:
    """The comparisons made on the target itself if there are any, else all, by the cut file's precision."""
    targets = {device.name for device in report.devices if device.is_target}
    found = tuple(one for one in report.comparisons if one.device in targets) or report.comparisons
    precisions = {artifact.path: artifact.precision for artifact in report.artifacts}
    groups: dict[str, tuple[SpeedUp, ...]] = {}
    for one in found:
        precision = precisions.get(one.candidate, "fp32")
        groups[precision] = (*groups.get(precision, ()), one)
    return groups


def _in_fewer_bits(report: Report) -> list[str]:
    """How fast the cut model is in each other precision, beside the uncut fp32 file."""
    groups = by_precision(report)
    return [
        f"In {precision} {_range(found, report)}, beside the uncut model in fp32."
        for precision, found in groups.items()
        if precision != _telling_precision(report) and "fp32" in groups
    ]


def accuracy(report: Report) -> str:
    """How accurate the cut model is, and the uncut one was; and its files in fewer bits, each beside its fp32 file."""
    return " ".join([_accuracy(report), *_files(report)])


def _files(report: Report) -> list[str]:
    cut = {artifact.path for artifact in report.artifacts if artifact.role == "pruned"}
    return [
        f"{one.artifact}: {100 * one.change.difference:+.1f} points against fp32."
        for one in report.files
        if one.artifact in cut and one.change is not None
    ]


def _accuracy(report: Report) -> str:
    scored = report.accuracy
    if scored is None:
        return "Accuracy was not measured."
    if scored.final is None:
        return "The accuracy of the cut model was not measured."
    before, after = scored.uncut.share, scored.final.share
    last, images = share(after, scored.ci95(after)), f"{count(scored.images)} images"
    if scored.metric == "agreement":
        return f"{metric_name(scored)}: {last} of {images}; without labels, accuracy is not known."
    return f"Top-1 from {share(before, scored.ci95(before))} to {last} on {images}."


def distrust(report: Report) -> str:
    """How many measurements not to rely on, and why; empty if there are none."""
    doubted = [doubt(timing) for timing in report.measurements if doubt(timing)]
    if not doubted:
        return ""
    kinds = ", ".join(sorted(set(doubted)))
    return f"{len(doubted)} of {len(report.measurements)} measurements cannot be relied on ({kinds})."


def notices(report: Report) -> list[str]:
    """What a reader must not miss: times of another machine, files not to use, times not to rely on."""
    away = [device.name for device in report.devices if not device.is_target]
    host, title = " and ".join(away), report.target.title
    where = f"Timed on the host ({host}), not on {title}: these times and ratios are not those of that board."
    return [*([where] if away else []), *filter(None, [advice(report), distrust(report)])]


def figures(report: Report) -> list[Figure]:
    """Speed, MACs, parameters and accuracy at a glance."""
    before, after, scored = report.cost.baseline, report.cost.pruned, report.accuracy
    sizes = (("MACs", before.macs, after.macs), ("Parameters", before.parameters, after.parameters))
    shown = [
        Figure(f"{what} kept", kept(left, whole), f"from {scaled(whole)} to {scaled(left)}")
        for what, whole, left in sizes
    ]
    if found := telling(report):
        worst, best = _extremes(found)
        one = worst == best
        text = times(worst.ratio, worst.ci95) + ("" if one else f" to {times(best.ratio, best.ci95)}")
        remark = bounds(worst.ci95) if one else f"in {len(found)} settings"
        shown.insert(0, Figure("Speed-up", text, remark))
    if scored and scored.final:
        text, _, interval = share(scored.final.share, scored.ci95(scored.final.share)).partition(" [")
        uncut = "" if scored.metric == "agreement" else f", uncut {share(scored.uncut.share)}"
        shown.append(Figure(metric_name(scored), text, f"[{interval}{uncut}"))
    return shown


def metric_name(scored: Accuracy) -> str:
    """What was scored: "Top-1", or "Agreement with the uncut model"."""
    return _METRICS[scored.metric]


def place(report: Report) -> str:
    """Where the times that count were taken, plainly: the target itself, or the host that is not the target."""
    targets = [device.name for device in report.devices if device.is_target]
    if targets:
        return f"on {' and '.join(targets)}"
    names = " and ".join(device.name for device in report.devices)
    return f"on the host ({names}), not on {report.target.title}"


def setting(comparison: SpeedUp, device: str = "") -> str:
    """Where a comparison was made: "onnxruntime, 2 threads", and on which machine if one is named."""
    return f"{comparison.runtime}, {threads(comparison.threads)}{f' on {device}' if device else ''}"


def short_name(device: str, report: Timed) -> str:
    """A machine's name without what no other machine of the report makes needful: "Raspberry Pi 4 Model B Rev 1.4"."""
    short = device.partition(",")[0]
    alike = [other for other in report.devices if other.name.partition(",")[0] == short]
    return short if len(alike) == 1 else device


def threads(number: int) -> str:
    """A number of threads in words."""
    return "1 thread" if number == 1 else f"{number} threads"


def doubt(timing: Timing) -> str:
    """Why not to rely on a measurement, in a word or two: "noisy"; empty where it can be trusted."""
    return "" if timing.trust == "ok" else timing.trust.partition(":")[0]


def _one(comparison: SpeedUp) -> str:
    ratio, ci95 = comparison.ratio, comparison.ci95
    where = f"in {comparison.runtime} with {threads(comparison.threads)}"
    if comparison.verdict == "faster":
        return f"{times(ratio, ci95)} faster {bounds(ci95)} {where}"
    if comparison.verdict == "slower":
        return f"Slower: {times(ratio, ci95)} the speed of the uncut model {bounds(ci95)} {where}"
    return f"No significant difference in speed: {speed_up(ratio, ci95)} {where}"


def _verdicts(comparisons: tuple[SpeedUp, ...]) -> str:
    total, found = len(comparisons), Counter(comparison.verdict for comparison in comparisons)
    faster, slower, same = (found[verdict] for verdict in ("faster", "slower", "no significant difference"))
    every = "both settings" if total == 2 else f"all {total} settings"
    whole = {faster: "Faster", slower: "Slower", same: "No significant difference in speed"}
    if total in whole:
        return f"{whole[total]} in {every}"
    parts = [f"Faster in {faster or 'none'} of {total} settings"]
    parts += [f"slower in {slower}"] if slower else []
    parts += [f"no significant difference in {same}"] if same else []
    return ", ".join(parts)


def _range(comparisons: tuple[SpeedUp, ...], report: Report) -> str:
    several = len({one.device for one in comparisons}) > 1
    names = {one.device: short_name(one.device, report) if several else "" for one in comparisons}
    worst, best = (
        f"{speed_up(one.ratio, one.ci95)} ({setting(one, names[one.device])})" for one in _extremes(comparisons)
    )
    return worst if len(comparisons) == 1 else f"from {worst} to {best}"


def _extremes(comparisons: tuple[SpeedUp, ...]) -> tuple[SpeedUp, SpeedUp]:
    return min(comparisons, key=lambda one: one.ratio), max(comparisons, key=lambda one: one.ratio)
