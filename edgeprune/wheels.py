"""Wheels for another machine than this one: what pip downloads for its processor, Python and C library."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeprune.errors import DeviceError, OutputError, UsageError

PACKAGES = {"onnxruntime": ("numpy", "onnxruntime"), "litert": ("numpy", "ai-edge-litert")}
"""What a runtime needs, by the runtime's name; pip adds what these need."""

SYSTEMS: Mapping[str, tuple[str, str]] = {
    "3.9": ("2.31", "Debian 11, Raspberry Pi OS Bullseye"),
    "3.10": ("2.35", "Ubuntu 22.04, JetPack 6"),
    "3.11": ("2.36", "Debian 12, Raspberry Pi OS Bookworm"),
    "3.12": ("2.39", "Ubuntu 24.04"),
    "3.13": ("2.41", "Debian 13, Raspberry Pi OS Trixie"),
}
"""Version of Python -> version of glibc, and the systems these are of: wheels are chosen by both."""
DEFAULT_PYTHON = "3.11"
_OLDEST_GLIBC = 17  # of 2.17: manylinux2014, the oldest there are arm64 wheels for


@dataclass(frozen=True)
class Platform:
    """What decides which wheels a machine can take.

    Attributes:
        machine: as uname says: "aarch64".
        python: major and minor version.
        libc: name and version: ("glibc", "2.36").
        bits: of its Python: 32 also where a 32-bit system runs on a 64-bit kernel.
    """

    machine: str
    python: tuple[int, int]
    libc: tuple[str, str]
    bits: int = 64

    def __str__(self) -> str:
        return f"{self.machine}, Python {self.python[0]}.{self.python[1]}, {' '.join(self.libc)}"


def platform_with(machine: str, python: str) -> Platform:
    """What a machine with some version of Python takes, of the system that has this version.

    Args:
        machine: as uname says: "aarch64".
        python: one of `SYSTEMS`.

    Raises:
        UsageError: the version is not known.
    """
    if python not in SYSTEMS:
        known = "; ".join(f"{version} ({systems})" for version, (_, systems) in SYSTEMS.items())
        raise UsageError(f"no system with Python {python!r} is known", where="--python", fix=f"There are: {known}.")
    major, minor = map(int, python.split("."))
    return Platform(machine, (major, minor), ("glibc", SYSTEMS[python][0]))


def package_of(missing: str) -> str:
    """What to install where a runtime is missing, or a package that it needs."""
    return PACKAGES.get(missing, (missing,))[-1]


def wheels_in(folder: Path) -> Path:
    """Where the wheels are in a folder that the user names: there, or a floor below as in a bundle.

    Raises:
        UsageError: it holds none.
    """
    for place in (folder, folder / "wheels"):
        if any(place.glob("*.whl")):
            return place
    raise UsageError("no wheels here", where=str(folder), fix="Name a folder of wheels, or a bundle, with --wheels.")


def download(
    platform: Platform, names: Sequence[str], folder: Path, where: str, source: Path | None = None
) -> list[Path]:
    """Fetch wheels, in the versions that are installed here where the platform has these.

    Args:
        platform: that they are for.
        names: of packages; what these need comes too.
        folder: to put them into.
        where: the user's word for the machine, for errors.
        source: a folder of wheels, or a bundle, to choose from instead of asking an index.

    Returns:
        The files, sorted.

    Raises:
        UsageError: the source holds no wheels.
        DeviceError: there are none for the platform.
        OutputError: the disk is full.
    """
    command = pip_download(platform, names, folder, where)
    if source:
        command += ["--no-index", "--find-links", str(wheels_in(source))]
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        pins = Path(scratch) / "constraints.txt"
        pins.write_text("\n".join(_installed()), encoding="utf-8")
        # A machine with an older Python may not have the versions of this one: then the newest it can have. A folder
        # has the versions that it has.
        for constraints in [[]] if source else (["--constraint", str(pins)], []):
            done = subprocess.run([*command, *constraints], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return sorted(folder.glob("*.whl"))
            if os.strerror(errno.ENOSPC) in done.stderr:
                raise OutputError(
                    "the disk is full",
                    where=str(folder),
                    fix="Free some space; $TMPDIR names the folder for temporary files.",
                )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    raise DeviceError(
        f"no wheels of {', '.join(names)} for {platform}",
        where=" | ".join(errors[-2:]),
        fix=f"Put them into {source}, or leave --wheels out."
        if source
        else "Is this machine online? If so, the board's system is too old or too rare.",
    )


def pip_download(platform: Platform, names: Sequence[str], folder: Path, where: str) -> list[str]:
    """The command that downloads wheels for a platform.

    Raises:
        DeviceError: there can be none for it.
    """
    name, version = platform.libc
    if platform.bits != 64:
        raise DeviceError(
            "its system is a 32-bit one, and the runtimes are made for 64-bit ones alone",
            where=where,
            fix="Install the 64-bit edition of the system.",
        )
    if name != "glibc":
        raise DeviceError(
            "its C library is not glibc, and the runtimes need that",
            where=where,
            fix="Take a system such as Debian, Ubuntu or Raspberry Pi OS.",
        )
    minor = int(version.split(".")[1])
    tags = [f"manylinux_2_{number}" for number in range(minor, _OLDEST_GLIBC - 1, -1)] + ["manylinux2014"]
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{platform.machine}")]
    fixed = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--implementation", "cp"]
    return [
        *(sys.executable, "-m", "pip", "download", *fixed, "--python-version", ".".join(map(str, platform.python))),
        *(*platforms, "--dest", str(folder), *names),
    ]


def _installed() -> list[str]:
    """What is installed here, as constraints: board and host then run the same, also of what pip adds by itself."""
    found = {one.name: one.version for one in metadata.distributions() if one.name}
    return sorted(f"{name}=={version}" for name, version in found.items())
