"""What a report says in sentences beside its headline and tables."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from edgeprune.report.document import Report
from edgeprune.report.headline import place, threads
from edgeprune.report.numbers import count, speed_up
from edgeprune.report.parts import Method
from edgeprune.report.timed import Timed

_MOST_NAMES = 10


def context(report: Report) -> list[str]:
    """What was measured, where, and on which images, one sentence each; then the notes of the run."""
    return [_timed(report), *_predicted(report), *_images(report), *report.run.notes]


def warnings(report: Timed) -> list[str]:
    """What the run warned of, then why measurements should not be relied on, each reason once."""
    found: dict[str, list[tuple[str, str]]] = {}
    for timing in report.measurements:
        doubts = () if timing.trust == "ok" else (timing.trust,)
        where = f"{timing.artifact} ({timing.runtime}, {threads(timing.threads)})"
        for text in dict.fromkeys((*doubts, *timing.warnings)):
            found.setdefault(text.partition(":")[0], []).append((where, text))
    for one in report.sustained:
        where = f"under load ({one.runtime}, {threads(one.threads)})"
        for text in one.warnings:
            found.setdefault(text.partition(":")[0], []).append((where, text))
    return list(dict.fromkeys([*report.run.warnings, *(_doubt(*told, of=report) for told in found.values())]))


def _doubt(*told: tuple[str, str], of: Timed) -> str:
    """One reason to doubt measurements: which one, or how many and an example."""
    where, text = told[0]
    if len(told) == 1:
        return f"{where}: {text}"
    return f"{len(told)} of {len(of.measurements) + len(of.sustained)} measurements, first {where}: {text}"


def budget(report: Report) -> str:
    """What was asked and what was reached."""
    asked, reached = report.budget.asked, report.budget.reached
    wish = [f"{100 * float(asked['macs']):.4g} % of the MACs kept"] if "macs" in asked else []
    ratio, damage = asked.get("ratio"), report.budget.allocation == "damage"
    if isinstance(ratio, str):
        wish.append("as many filters removed as the criterion itself says")
    elif ratio is not None:
        wish.append(f"{100 * ratio:.4g} % of each layer's filters removed" + (", or as many MACs" if damage else ""))
    if "speedup" in asked:
        wish.append(f"{float(asked['speedup']):.4g} times as fast")
    if "latency_ms" in asked:
        wish.append(f"{float(asked['latency_ms']):.4g} ms a call at most")
    if "max_drop" in asked:
        wish.append(f"the fastest that loses at most {float(asked['max_drop']):g} points of accuracy")
    where = ", cut where the output loses least" if damage else ""
    return f"Asked: {' and '.join(wish) or 'nothing'}; reached: {100 * reached['macs']:.4g} % of the MACs kept{where}."


def command_line(report: Report) -> str:
    """The command that made this report, quoted for a shell."""
    return shlex.join(report.run.command)


def facts(report: Report) -> list[str]:
    """What a reproduction needs beside the command."""
    run, model = report.run, report.model
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    size = " x ".join(str(side) for side in model.input.shape)
    return [
        f"edgeprune {report.edgeprune_version}" + (f" with {versions}" if versions else ""),
        f"model {model.source}, input {size}" + (f", weights {model.weights}" if model.weights else ""),
        f"criterion {_method(report.criterion)}",
        f"recovery {_method(report.recovery)}",
        f"seed {run.seed}",
        f"plan {report.budget.plan}",
    ]


def _method(method: Method) -> str:
    plain = {name: value for name, value in method.settings.items() if not isinstance(value, Mapping)}
    settings = ", ".join(f"{name}={value}" for name, value in plain.items())
    return f"{method.name} ({settings})" if settings else method.name


def _timed(report: Report) -> str:
    if not report.measurements:
        return f"Pruned for {report.target.title}; nothing was timed."
    mixed = len({device.is_target for device in report.devices}) > 1
    where = f"on {' and '.join(device.name for device in report.devices)}" if mixed else place(report)
    samples = sorted({timing.samples for timing in report.measurements})
    spread = count(samples[0]) if len(samples) == 1 else f"{count(samples[0])} to {count(samples[-1])}"
    return f"{spread} timed calls of one image each for every file and setting, {where}."


def _predicted(report: Report) -> list[str]:
    """What was predicted of the board, beside what was measured there since; nothing where nothing was predicted."""
    told = report.budget.predicted
    if not told:
        return []
    ratio, worst, number = (float(told[name]) for name in ("speedup", "worst_error", "threads"))
    said = (
        f"PREDICTED {ratio:.3g}x on {told['board']} with {threads(int(number))}, from published latencies of other "
        f"networks ({told['source']}), which foretell each other to {float(told['error']):.0%} "
        f"(median; worst {worst:.0%})"
    )
    there = {device.name for device in report.devices if device.is_target}
    fp32 = {one.path for one in report.artifacts if one.precision == "fp32"}
    measured = [
        f"{speed_up(one.ratio, one.ci95)} in {one.runtime}, which {_confirms(ratio, worst, one.ci95)} it"
        for one in report.comparisons
        if one.device in there and one.threads == number and one.candidate in fp32
    ]
    return [f"{said}; measured there: {'; '.join(measured)}." if measured else f"{said}; not measured there."]


def _confirms(predicted: float, error: float, ci95: tuple[float, float]) -> str:
    """Whether an interval meets what was predicted, within its worst known error."""
    meets = ci95[0] <= predicted * (1 + error) and ci95[1] >= predicted * (1 - error)
    return "confirms" if meets else "refutes"


def _images(report: Report) -> list[str]:
    data = report.data
    uses = (("Calibrated with", data.calibration), ("Scored on", data.scoring))
    sentences = [f"{what} {count(used.images)} images from {used.source}." for what, used in uses if used]
    broken = sorted({name for _, used in uses if used for name in used.skipped})
    if broken:
        more = f" and {count(len(broken) - _MOST_NAMES)} more" if len(broken) > _MOST_NAMES else ""
        images = "broken image was" if len(broken) == 1 else "broken images were"
        sentences.append(f"{count(len(broken))} {images} skipped: {', '.join(broken[:_MOST_NAMES])}{more}.")
    return sentences
