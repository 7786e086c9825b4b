"""How many arm64 instructions one inference executes: of the files of a run, under QEMU. A count, **not a time**.

    python benchmarks/instructions RUN [--calls 3]

The same on every machine, to about 0.1 %: good for telling whether a change makes less work, on a computer without a
board. It knows nothing of caches, of memory, of instructions that wait, so that no time or speed-up follows from it.

Each file of the run folder is run for the run's first image, on one thread, by the worker that times files elsewhere,
under `qemu-aarch64` as a Cortex-A72, in a process of its own. A plugin (armcount.c) counts what is executed; the mean
of `--calls` inferences after the first is printed. `fmla` are the SIMD multiply-adds that convolutions are made of.

Wants root, mmdebstrap, qemu-user, qemu-user-static, binfmt-support, and a C compiler; the Debian root folder and the
runtimes' arm64 wheels are fetched once and kept where the tests keep theirs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
from arm_board import CACHE, RECIPES, root_folder

from edgeprune.artifact import Artifact
from edgeprune.bench.session import INPUTS_NAME
from edgeprune.bench.transport import pack_worker
from edgeprune.material import open_run
from edgeprune.wheels import PACKAGES, download, platform_with

HERE = Path(__file__).parent
CPU = "cortex-a72"
CLASSES = ("insns", "fmla", "loadstore")
_MARK = re.compile(r"armcount mark\d+ (.*)")


def counted_root() -> Path:
    """The tests' root folder with the runtimes in it, and the files that they read of a processor.

    Under `qemu-aarch64 -L` only a plain file in the folder hides the host's own; without these ONNX Runtime reads of
    an x86 processor and crashes.
    """
    source = root_folder()
    folder = CACHE / f"{source.name}-counting"
    if folder.exists():
        return folder
    torn = folder.with_suffix(".torn")
    shutil.rmtree(torn, ignore_errors=True)
    shutil.copytree(source, torn, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns("proc", "sys"))
    processors = torn / "sys" / "devices" / "system" / "cpu"
    processors.mkdir(parents=True)
    for name in ("possible", "present"):
        (processors / name).write_text("0-3\n")
    (torn / "proc").mkdir()
    shutil.copyfile(RECIPES / "pi4.cpuinfo", torn / "proc" / "cpuinfo")
    _install(torn)
    torn.rename(folder)
    return folder


def _install(root: Path) -> None:
    (python,) = (root / "usr" / "lib").glob("python3.*")
    platform = platform_with("aarch64", python.name.removeprefix("python"))
    packages = list(dict.fromkeys(name for names in PACKAGES.values() for name in names))
    with tempfile.TemporaryDirectory() as folder:
        for wheel in download(platform, packages, Path(folder), "the emulated board"):
            shutil.unpack_archive(wheel, python / "dist-packages", "zip")


def plugin(folder: Path) -> Path:
    """The counting plugin, built."""
    built = folder / "armcount.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, HERE / "armcount.c"], check=True)
    return built


def count(artifact: Artifact, run: Path, root: Path, scratch: Path, calls: int) -> dict[str, int]:
    """Instructions of one inference, by class: the mean of `calls`."""
    log = scratch / "counts.log"
    inside = [
        *(HERE / "count.py", scratch / "worker.pyz", artifact.runtime, run / artifact.path, run / INPUTS_NAME),
        *(artifact.layout, str(calls)),
    ]
    command = ["qemu-aarch64", "-cpu", CPU, "-L", root, "-plugin", scratch / "armcount.so", "-d", "plugin", "-D", log]
    # Hash seeds and addresses change Python's own work from one process to the next.
    settings = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONHOME": "/usr", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, root / "usr" / "bin" / "python3", *inside],
        env=settings,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=1800,
    )
    totals = [
        {name: int(value) for name, value in (pair.split("=") for pair in found[1].split())}
        for found in map(_MARK.fullmatch, log.read_text().splitlines())
        if found
    ]
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
    material, root = open_run(options.run), counted_root()
    whole: dict[str, dict[str, int]] = {}
    print(f"arm64 instructions of one inference, one thread, QEMU {CPU}: not a time\n")
    print("| file | instructions | of the uncut | fmla | of the uncut | loads and stores | MACs of the uncut |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        scratch = Path(folder)
        plugin(scratch)
        pack_worker(scratch / "worker.pyz")
        for one in sorted(material.artifacts, key=lambda one: (one.format, one.precision, one.role != "baseline")):
            found = count(one, options.run.resolve(), root, scratch, options.calls)
            uncut = whole.setdefault(f"{one.format} {one.precision}", found | {"macs": one.macs})
            part = {name: f"{found[name] / uncut[name]:.1%}" for name in CLASSES if uncut[name]}
            print(
                f"| {one.path} | {found['insns']:,} | {part['insns']} | {found['fmla']:,} | {part.get('fmla', '')} "
                f"| {found['loadstore']:,} | {one.macs / uncut['macs']:.1%} |",
                flush=True,
            )


main()
