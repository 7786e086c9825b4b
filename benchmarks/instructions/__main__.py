"""How many arm64 instructions one inference executes: of the files of a run, under QEMU. A count, **not a time**.

    python benchmarks/instructions RUN [--calls 3]

The same on every machine, to about 0.1 %: good for telling whether a change makes less work, on a computer without a
board. It knows nothing of caches, of memory, of instructions that wait, so that no time or speed-up follows from it.

Each file of the run folder is run for the run's first image, on one thread, by the worker that times files elsewhere,
under `qemu-aarch64` as a Cortex-A72, in a process of its own. A plugin (armcount.c) counts what is executed; the mean
of `--calls` inferences after the first is printed. `fmla` are the SIMD multiply-adds that convolutions are made of.
What it wants is in emulator.py.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path

from emulator import CPU, Emulator

from edgeprune.artifact import Artifact
from edgeprune.bench.session import INPUTS_NAME
from edgeprune.material import open_run

CLASSES = ("insns", "fmla", "loadstore")


def count(artifact: Artifact, run: Path, emulator: Emulator, calls: int) -> dict[str, int]:
    """Instructions of one inference, by class: the mean of `calls`."""
    asked = (artifact.runtime, run / artifact.path, run / INPUTS_NAME, artifact.layout, calls)
    readings, _ = emulator.run("count.py", *asked)
    totals = [one.counts for one in readings if one.is_mark]
    if len(totals) != calls + 1:
        raise SystemExit(f"{artifact.path}: {len(totals)} marks instead of {calls + 1}")
    steps = list(itertools.pairwise(totals))
    return {name: round(statistics.fmean(after[name] - before[name] for before, after in steps)) for name in CLASSES}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder of edgeprune compress")
    parser.add_argument("--calls", type=int, default=3)
    options = parser.parse_args()
    material = open_run(options.run)
    whole: dict[str, dict[str, int]] = {}
    print(f"arm64 instructions of one inference, one thread, QEMU {CPU}: not a time\n")
    print("| file | instructions | of the uncut | fmla | of the uncut | loads and stores | MACs of the uncut |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        emulator = Emulator(Path(folder))
        for one in sorted(material.artifacts, key=lambda one: (one.format, one.precision, one.role != "baseline")):
            found = count(one, options.run.resolve(), emulator, options.calls)
            uncut = whole.setdefault(f"{one.format} {one.precision}", found | {"macs": one.macs})
            part = {name: f"{found[name] / uncut[name]:.1%}" for name in CLASSES if uncut[name]}
            print(
                f"| {one.path} | {found['insns']:,} | {part['insns']} | {found['fmla']:,} | {part.get('fmla', '')} "
                f"| {found['loadstore']:,} | {one.macs / uncut['macs']:.1%} |",
                flush=True,
            )


main()
