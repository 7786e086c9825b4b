"""A process under QEMU as a Cortex-A72, and how many arm64 instructions it had executed at each mark. Never a time.

Wants root, mmdebstrap, qemu-user, qemu-user-static, binfmt-support, and a C compiler; the Debian root folder and the
runtimes' arm64 wheels are fetched once and kept where the tests keep theirs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
from arm_board import CACHE, RECIPES, root_folder

from edgeprune.bench.transport import pack_worker
from edgeprune.wheels import PACKAGES, download, platform_with

HERE = Path(__file__).parent
CPU = "cortex-a72"
_LINE = re.compile(r"armcount (mark|clock)\d* (.*)")


@dataclass(frozen=True)
class Reading:
    """What had been executed at one moment.

    Attributes:
        is_mark: the program set a mark; else it read a clock.
        counts: class of instructions -> how many, from the start of the process; "insns" are all.
    """

    is_mark: bool
    counts: Mapping[str, int]


class Emulator:
    """Runs Python files of this folder on an emulated processor.

    Args:
        scratch: an empty folder.
    """

    def __init__(self, scratch: Path) -> None:
        self._root, self._plugin = _counted_root(), scratch / "armcount.so"
        self._worker, self._log = scratch / "worker.pyz", scratch / "counts.log"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", self._plugin, HERE / "armcount.c"], check=True)
        pack_worker(self._worker)

    def run(self, script: str, *arguments: object) -> tuple[list[Reading], str]:
        """Run a file of this folder, its first argument the packed worker.

        Returns:
            What was counted, in order, and what it printed.
        """
        python = self._root / "usr" / "bin" / "python3"
        inside = [python, HERE / script, self._worker, *map(str, arguments)]
        # Hash seeds and addresses change Python's own work from one process to the next.
        settings = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONHOME": "/usr", "OMP_NUM_THREADS": "1"}
        emulator = ["qemu-aarch64", "-cpu", CPU, "-L", self._root, "-plugin", self._plugin, "-d", "plugin"]
        ran = subprocess.run(
            [*emulator, "-D", self._log, *inside],
            env=settings,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=1800,
        )
        found = filter(None, map(_LINE.fullmatch, self._log.read_text().splitlines()))
        return [Reading(one[1] == "mark", _counts(one[2])) for one in found], ran.stdout


def _counts(told: str) -> dict[str, int]:
    return {name: int(value) for name, value in (pair.split("=") for pair in told.split())}


def _counted_root() -> Path:
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
