"""What makes a virtual environment on the board, from wheels that were carried over. The standard library alone.

The wheels are unpacked, not installed by pip: that works without a network, without python3-pip and python3-venv
(Debian leaves both out), and takes seconds on a slow board. What is lost are console scripts, which nothing here needs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

CURRENT = "venv"
"""The link, beside the environments, to the one in use."""
RECORD = "wheels.json"
"""In an environment: what is in it. Written last, so that an environment without it is a torn one."""


def main() -> None:
    """`python3 install.py CACHE MANIFEST.json`; prints the environment's Python.

    The manifest: `name` of the environment's folder, `modules` that must be importable in the end, `wheels` {file name:
    SHA-256}, `paths` of the files.
    """
    cache, manifest = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    target = cache / manifest["name"]
    if not (target / RECORD).exists():
        shutil.rmtree(target, ignore_errors=True)
        try:
            fill(target, [Path(path) for path in manifest["paths"]])
            check(target, manifest["modules"])
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        (target / RECORD).write_text(json.dumps(manifest["wheels"], indent=1))
    link = cache / (CURRENT + ".new")
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.replace(cache / CURRENT)
    for other in cache.glob("venv-*"):
        if other != target:
            shutil.rmtree(other)
    print(cache / CURRENT / "bin" / "python")


def fill(target: Path, wheels: Sequence[Path]) -> None:
    """Make an environment and unpack wheels into it."""
    venv.create(target, with_pip=False, symlinks=True)
    unpack(wheels, target / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages")


def unpack(wheels: Sequence[Path], packages: Path) -> None:
    """Unpack wheels into a folder that Python finds packages in."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    # "Wheels spread": the .data folders hold what goes elsewhere (packaging.python.org, binary distribution format).
    for data in packages.glob("*.data"):
        for part in ("purelib", "platlib"):
            if (data / part).exists():
                shutil.copytree(data / part, packages, dirs_exist_ok=True)
        shutil.rmtree(data)


def check(target: Path, modules: Sequence[str]) -> None:
    """Import each module once; what fails, fails now and not in a bench."""
    for module in modules:
        done = subprocess.run(
            [str(target / "bin" / "python"), "-c", f"import {module}"], capture_output=True, text=True, check=False
        )
        if done.returncode < 0:
            sys.exit(f"{module} was installed, but importing it is killed by signal {-done.returncode}")
        if done.returncode:
            sys.exit(f"{module} was installed, but cannot be imported: {done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
