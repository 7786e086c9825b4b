"""Setting a board up: the runtimes, carried over as wheels, so that a board without internet works.

Nothing is installed unasked; `clean` removes all of it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeprune.bench.device import ContainerDevice, SshDevice, how_to_install, parse_device
from edgeprune.bench.ssh import Board, Ssh
from edgeprune.errors import DeviceError, UsageError
from edgeprune.worker import install

PACKAGES = {"onnxruntime": ("numpy", "onnxruntime"), "litert": ("numpy", "ai-edge-litert")}
"""What a runtime needs, by the runtime's name; pip adds what these need."""
_MODULES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "ai-edge-litert": "ai_edge_litert.interpreter"}
_OLDEST_GLIBC = 17  # of 2.17: manylinux2014, the oldest there are arm64 wheels for


@dataclass(frozen=True)
class Installed:
    """What is on the board after `set_up`.

    Attributes:
        python: the one that has the runtimes.
        packages: "name==version" each.
        wheels: file name -> SHA-256.
    """

    python: str
    packages: tuple[str, ...]
    wheels: Mapping[str, str]


def set_up(device: str, runtimes: Sequence[str], say: Callable[[str], None] = lambda _: None) -> Installed:
    """Make a virtual environment with the runtimes on a board.

    The wheels are downloaded here, for the board's machine, Python and C library, in the versions that are installed
    here where there are such. What was set up before is replaced.

    Args:
        device: "ssh://[user@]host[:port]".
        runtimes: names of `PACKAGES`.
        say: told of each step.

    Raises:
        UsageError: the device is this machine, or a runtime is not known.
        DeviceError: the board cannot be reached or has no room, or there are no wheels for it.
    """
    unknown = [name for name in runtimes if name not in PACKAGES]
    if unknown:
        raise UsageError(f"no runtime {unknown[0]!r}", fix=f"There are: {', '.join(PACKAGES)}.")
    names = list(dict.fromkeys(package for runtime in runtimes for package in PACKAGES[runtime]))
    with _board(device) as ssh, tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        say(f"{ssh.name}: {ssh.board.machine}, Python {'.'.join(map(str, ssh.board.version))}")
        wheels = download(ssh.board, names, Path(folder), ssh.name)
        digests = {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}
        say(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 1e6:.0f} MB")
        key = json.dumps([digests, ssh.board.version, ssh.board.system_python])
        manifest = {
            "name": f"venv-{hashlib.sha256(key.encode()).hexdigest()[:12]}",
            "modules": [_MODULES[name] for name in names],
            "wheels": digests,
            "paths": [ssh.put(wheel) for wheel in wheels],
        }
        document = Path(folder) / "manifest.json"
        document.write_text(json.dumps(manifest))
        program, there = ssh.put(Path(install.__file__)), ssh.put(document)
        *_, python = ssh.run([ssh.board.system_python, program, ssh.board.cache, there])
    packages = tuple("==".join(name.split("-")[:2]) for name in sorted(digests))
    return Installed(python.strip(), packages, digests)


def clean(device: str) -> None:
    """Remove everything edgeprune made on a board.

    Raises:
        UsageError: the device is this machine.
        DeviceError: the board cannot be reached, or a bench is running there.
    """
    with _board(device) as ssh:
        ssh.clean()


def _board(text: str) -> Ssh:
    device = parse_device(text)
    if isinstance(device, ContainerDevice):
        raise UsageError("an image is set up where it is built", where=text, fix=how_to_install("onnxruntime", text))
    if not isinstance(device, SshDevice):
        raise UsageError("this machine needs no set-up: what is installed here is used", where=text)
    return Ssh(device)


def download(board: Board, names: Sequence[str], folder: Path, device: str) -> list[Path]:
    """Fetch the wheels for a board.

    Raises:
        DeviceError: there are none.
    """
    # A board with an older Python may not have the versions of this machine: then the newest it can have.
    for requirements in ([_pinned(name) for name in names], list(names)):
        done = subprocess.run(_pip(board, requirements, folder, device), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return sorted(folder.glob("*.whl"))
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    raise DeviceError(
        f"no wheels of {', '.join(names)} for {board.machine}, Python {board.version[0]}.{board.version[1]}, "
        f"{' '.join(board.libc)}",
        where=" | ".join(errors[-2:]),
        fix="Is this machine online? If so, the board's system is too old or too rare.",
    )


def _pip(board: Board, requirements: Sequence[str], folder: Path, device: str) -> list[str]:
    """The command that downloads wheels for another machine."""
    name, version = board.libc
    if board.bits != 64:
        raise DeviceError(
            "its system is a 32-bit one, and the runtimes are made for 64-bit ones alone",
            where=device,
            fix="Install the 64-bit edition of the system.",
        )
    if name != "glibc":
        raise DeviceError(
            "its C library is not glibc, and the runtimes need that",
            where=device,
            fix="Take a system such as Debian, Ubuntu or Raspberry Pi OS.",
        )
    minor = int(version.split(".")[1])
    tags = [f"manylinux_2_{number}" for number in range(minor, _OLDEST_GLIBC - 1, -1)] + ["manylinux2014"]
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{board.machine}")]
    python = f"{board.version[0]}.{board.version[1]}"
    fixed = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--implementation", "cp"]
    return [
        *(sys.executable, "-m", "pip", "download", *fixed, "--python-version", python),
        *(*platforms, "--dest", str(folder), *requirements),
    ]


def _pinned(name: str) -> str:
    """The version that is installed here, so that board and host run the same; free where none is."""
    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name
