"""Setting a board up: the runtimes, carried over as wheels, so that a board without internet works.

Nothing is installed unasked; `clean` removes all of it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.bench.device import ContainerDevice, SshDevice, how_to_install, parse_device
from edgeprune.bench.ssh import Ssh
from edgeprune.errors import UsageError
from edgeprune.wheels import PACKAGES, Platform, download
from edgeprune.worker import install

_MODULES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "ai-edge-litert": "ai_edge_litert.interpreter"}


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


def set_up(
    device: str, runtimes: Sequence[str], say: Callable[[str], None] = lambda _: None, source: Path | None = None
) -> Installed:
    """Make a virtual environment with the runtimes on a board.

    The wheels are downloaded here, for the board's machine, Python and C library, in the versions that are installed
    here where there are such. What was set up before is replaced.

    Args:
        device: "ssh://[user@]host[:port]".
        runtimes: names of `PACKAGES`.
        say: told of each step.
        source: a folder of wheels, or a bundle, to take them from instead of downloading.

    Raises:
        UsageError: the device is this machine, a runtime is not known, or the source holds no wheels.
        DeviceError: the board cannot be reached or has no room, or there are no wheels for it.
    """
    unknown = [name for name in runtimes if name not in PACKAGES]
    if unknown:
        raise UsageError(f"no runtime {unknown[0]!r}", fix=f"There are: {', '.join(PACKAGES)}.")
    names = list(dict.fromkeys(package for runtime in runtimes for package in PACKAGES[runtime]))
    with _board(device) as ssh, tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        board = ssh.board
        say(f"{ssh.name}: {board.machine}, Python {'.'.join(map(str, board.version))}")
        platform = Platform(board.machine, board.version[:2], board.libc, board.bits)
        wheels = download(platform, names, Path(folder), ssh.name, source)
        digests = {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}
        say(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 1e6:.0f} MB")
        key = json.dumps([digests, board.version, board.system_python])
        manifest = {
            "name": f"venv-{hashlib.sha256(key.encode()).hexdigest()[:12]}",
            "modules": [_MODULES[name] for name in names],
            "wheels": digests,
            "paths": [ssh.put(wheel) for wheel in wheels],
        }
        document = Path(folder) / "manifest.json"
        document.write_text(json.dumps(manifest))
        program, there = ssh.put(Path(install.__file__)), ssh.put(document)
        *_, python = ssh.run([board.system_python, program, board.cache, there])
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
