"""The closed loop of `--speedup` with executed arm64 instructions in place of milliseconds. A count, **not a time**.

    python benchmarks/instructions/loop.py digits 1.2 1.5 2

A stand-in for a board: the variants of `edgeprune profile` are counted, call by call and operator by operator, a plan
is solved on the table that this makes, counted itself, and where it does not reach what was asked the table is
corrected and solved again, at most three rounds, all by the code that `compress --speedup` runs. Counts repeat, so
that intervals have no width: what was asked is reached or missed.

Every file is the exported ONNX file, run in ONNX Runtime by the worker that times files elsewhere, on one thread, under
QEMU as a Cortex-A72. `--weights`, `--data`, `--calibration-data` and `--input` are those of `edgeprune compress`. What
it wants is in emulator.py. Exit code 1 if something that was asked for is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from emulator import CPU, Emulator, Reading

from edgeprune.bench.profiling import attributed
from edgeprune.bench.single import made_up_images
from edgeprune.bench.work import layers_of
from edgeprune.channels import Kept
from edgeprune.criteria import configure
from edgeprune.cutting import Traced, traced
from edgeprune.deciding import Decision, decide_on
from edgeprune.errors import BudgetError, EdgepruneError
from edgeprune.inputs import named_model, named_photos
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import Conditions, LatencyTable, Variant
from edgeprune.plan import Budget, PruningPlan
from edgeprune.profile import OperatorTime
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times, profiled_variant
from edgeprune.prune.timing_check import check, check_by_macs
from edgeprune.request import Request, parse_shape
from edgeprune.target import load_target
from edgeprune.trying import Tried, widths_of
from edgeprune.variants import VariantFiles, choices_of, spread, variants_of

CALLS = 3
_ENCLOSING = 2
"""What ONNX Runtime profiles of a call beside its operators, beginning before and ending after them."""


@dataclass(frozen=True)
class Counted:
    """What one inference of a file executes, in millions of instructions.

    Attributes:
        call: not profiled, without the Python around it; the fewest of some calls.
        operators: of a profiled call, in the order they ran, each with its layer; their `ms` are such millions, too.
        fmla: multiply-adds of vectors in each of them, in millions.
        version: of ONNX Runtime.
    """

    call: float
    operators: tuple[OperatorTime, ...]
    fmla: tuple[float, ...]
    version: str


class Counter:
    """Counts what the files in a folder execute.

    Args:
        emulator: that runs them.
        files: that are counted, the uncut network and others.
    """

    def __init__(self, emulator: Emulator, files: VariantFiles) -> None:
        self._emulator, self._files = emulator, files

    def counted(self, keeps: Sequence[Kept]) -> list[Counted]:
        """The uncut network, and the network with some filters, in one process."""
        artifacts, folder = self._files.of(keeps), self._files.folder
        paths, inputs = [folder / one.path for one in artifacts], folder / "inputs.npy"
        np.save(inputs, made_up_images(artifacts[0].input_shape)[:1])
        readings, said = self._emulator.run("count_operators.py", inputs, CALLS, *paths)
        segments = between_marks(readings)
        each = CALLS + 3  # the calls, then loading for the profile, the profiled call, and what is before the next file
        return [
            counted_file(path, segments[each * place : each * place + CALLS + 2], json.loads(line))
            for place, (path, line) in enumerate(zip(paths, said.splitlines(), strict=True))
        ]


def between_marks(readings: Sequence[Reading]) -> list[list[Reading]]:
    """From each mark to the next, both included."""
    places = [place for place, one in enumerate(readings) if one.is_mark]
    return [list(readings[first : last + 1]) for first, last in itertools.pairwise(places)]


def counted_file(path: Path, segments: Sequence[Sequence[Reading]], told: dict[str, object]) -> Counted:
    """What the calls of one file executed.

    Args:
        path: the file.
        segments: from mark to mark: the calls, what is between, the profiled call.
        told: by count_operators.py.
    """
    plain, profiled = segments[:CALLS], segments[-1]
    call = min(max(steps(one)) for one in plain)
    pairs = operator_readings(min(plain, key=len), profiled, len(told["operators"]))
    executed = [spent(*pair, "insns") for pair in pairs]
    named = [{**one, "ns": 1e6 * ms} for one, ms in zip(told["operators"], executed, strict=True)]
    fmla = tuple(spent(*pair, "fmla") for pair in pairs)
    return Counted(call, attributed(named, layers_of(path)), fmla, told["version"])


def operator_readings(
    plain: Sequence[Reading], profiled: Sequence[Reading], operators: int
) -> list[tuple[Reading, Reading]]:
    """The readings where each operator begins and where it ends.

    A call reads the clock a few times by itself; the network runs where most is executed between two readings.
    Profiled, it also reads it where an operator, and where what encloses them, begins and ends. Now and then ONNX
    Runtime reads it once more, after the network.

    Raises:
        SystemExit: the clock was read more or less often.
    """
    clocks, wanted = profiled[1:-1], len(plain) - 2 + 2 * (operators + _ENCLOSING)
    if len(clocks) - wanted not in (0, 1):
        raise SystemExit(f"the clock was read {len(clocks)} times in a call with {operators} operators, not {wanted}")
    found = steps(plain)
    first = found.index(max(found)) + _ENCLOSING
    return list(zip(clocks[first::2], clocks[first + 1 :: 2], strict=False))[:operators]


def steps(segment: Sequence[Reading]) -> list[float]:
    """Instructions from each reading to the next, in millions."""
    return [spent(before, after, "insns") for before, after in itertools.pairwise(segment)]


def spent(before: Reading, after: Reading, kind: str) -> float:
    """Instructions of a class from one reading to another, in millions."""
    return (after.counts[kind] - before.counts[kind]) / 1e6


@dataclass
class Counts:
    """Plans counted in place of being timed, see `edgeprune.trying.Tries`.

    Attributes:
        counter: that counts them.
        table: of variants of the network.
        shapes: of the network.
        calls: of the plans that were tried, in millions of instructions.
    """

    counter: Counter
    table: LatencyTable
    shapes: Shapes
    calls: list[float] = field(default_factory=list)
    _last: tuple[Variant, ...] = ()

    @property
    def times(self) -> Times:
        """What is foretold, in millions of instructions."""
        return Times.of(self.table, self.shapes)

    def foretold(self, plan: PruningPlan) -> float:
        """Instructions of the uncut network over those of a plan, as foretold."""
        return foretold(self.times, widths_of(plan))

    def tried(self, plan: PruningPlan, longer: bool = False) -> Tried:  # noqa: ARG002  # counts do not scatter
        """Count a plan."""
        uncut, cut = self.counter.counted([plan.keep])
        self._last = (variant_of(self.shapes, plan.keep, uncut, cut),)
        self.calls.append(cut.call)
        ratio = uncut.call / cut.call
        return Tried(ratio, (ratio, ratio), uncut.call)

    def learn(self, plan: PruningPlan) -> None:  # noqa: ARG002  # it is the plan that was counted last
        """Add what was counted last to the table."""
        self.table = self.table.with_variants(self.shapes.fingerprint, "", self._last)


def variant_of(shapes: Shapes, keep: Kept, uncut: Counted, cut: Counted) -> Variant:
    """A network with some filters, with millions of instructions for milliseconds."""
    return profiled_variant(shapes, keep, cut.call, uncut.call, [(one.macs, one.ms) for one in cut.operators])


@dataclass(frozen=True, eq=False)
class Subject:
    """The network, what it is asked with, and what was counted of it."""

    request: Request
    uncut: Traced
    shapes: Shapes
    whole: Counted
    table: LatencyTable


def counted_subject(request: Request, uncut: Traced, counter: Counter) -> Subject:
    """Count the variants that `edgeprune profile` would time."""
    shapes, target = Shapes(uncut.program, uncut.channel_map), load_target(request.target)
    every = [
        spread(one, shapes.sizes) for one in variants_of(choices_of(uncut, request.scope, target.channel_multiple))
    ]
    found = counter.counted(every[1:])
    here = Conditions(f"QEMU {CPU}, instructions", "onnxruntime", found[0].version, 1, "onnx")
    variants = tuple(variant_of(shapes, keep, found[0], one) for keep, one in zip(every, found, strict=True))
    table = LatencyTable(here).with_variants(shapes.fingerprint, uncut.model.name, variants)
    return Subject(request, uncut, shapes, found[0], table)


def report_of_table(found: Subject) -> list[str]:
    """What the uncut network's operators execute, and how well the table foretells variants it was not made of."""
    lines = ["| operator | layer | MACs | instructions, M | fmla times 4, of its MACs |", "|---|---|---|---|---|"]
    for one, fmla in zip(found.whole.operators, found.whole.fmla, strict=True):
        share = f"{4e6 * fmla / one.macs:.1%}" if one.macs else ""
        lines.append(f"| {one.kind} | {one.layer} | {one.macs:,} | {one.ms:.3f} | {share} |")
    (network,) = found.table.networks.values()
    inside = sum(one.ms for one in found.whole.operators)
    whole = f"{found.whole.call:.3f} M in a call; profiled, {inside:.3f} M in its operators"
    lines += ["", f"{whole}. ONNX Runtime {found.whole.version}."]
    for by, how in (("the table", check), ("MACs alone", check_by_macs)):
        if held := how(found.shapes, network):
            errors = f"median error {held.median_error:.2%}, worst {held.worst_error:.2%}"
            lines.append(f"{held.variants} held-out variants of {len(network.variants)} by {by}: {errors}")
    return lines


def decided(asked: float, found: Subject, counter: Counter) -> tuple[Decision, Counts]:
    """What the loop decides for a ratio."""
    request = replace(found.request, budget=Budget(speedup=asked))
    journal, counts = Journal(Nobody()), Counts(counter, found.table, found.shapes)
    photos = named_photos(request, found.uncut.model, journal)
    criterion, target = configure(request.criterion, request.criterion_options), load_target(request.target)
    return decide_on(counts, request, found.uncut, photos, criterion, target, journal), counts


def rows(asked: float, decision: Decision, counts: Counts) -> list[str]:
    """A row for each round."""
    every = enumerate(zip(decision.trials, counts.calls, strict=True), start=1)
    return [
        f"| {asked:g} | {number} | {one.solved_for:.4f} | {one.foretold:.4f} | {one.measured:.4f} | {call:.3f} "
        f"| {'reached' if one.measured >= asked else 'missed'} |"
        for number, (one, call) in every
    ]


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("speedups", type=float, nargs="+", help="instructions of the uncut over those of the cut file")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--calibration-data")
    parser.add_argument("--input", type=parse_shape, dest="input_shape")
    asked = vars(parser.parse_args())
    speedups, request = asked.pop("speedups"), Request(**asked)
    return told(request, speedups)


def told(request: Request, speedups: Sequence[float]) -> int:
    """Count and print; the exit code."""
    journal, code = Journal(Nobody()), 0
    uncut = traced(named_model(request, journal), journal)
    print(f"{uncut.model.name}: arm64 instructions of one inference, one thread, QEMU {CPU}: not a time\n")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        (files_at := Path(folder) / "files").mkdir()
        files = VariantFiles(files_at, uncut, load_target(request.target), "onnx", journal)
        counter = Counter(Emulator(Path(folder)), files)
        found = counted_subject(request, uncut, counter)
        print("\n".join(report_of_table(found)), end="\n\n", flush=True)
        print("| asked | round | solved for | foretold | counted | instructions, M | |")
        print("|---|---|---|---|---|---|---|")
        for asked in speedups:
            try:
                decision, counts = decided(asked, found, counter)
            except BudgetError as error:
                print(f"| {asked:g} | | | | | | {error.what} |", flush=True)
                code = 1
                continue
            print("\n".join(rows(asked, decision, counts)), flush=True)
            code = 1 if decision.missed else code
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgepruneError as error:
        sys.exit(f"error: {error}")
