"""What is known of a board that is reached over SSH."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

# Runs on whatever `python3` there is, so it is plain: it must be able to say that it is too old.
OPEN = """
import json, os, platform, sys, tempfile
if sys.version_info < (3, 9):
    sys.exit("python3 is too old: " + platform.python_version())
cache = os.path.expanduser("~/.cache/edgeprune")
os.makedirs(cache, mode=0o700, exist_ok=True)
folder = tempfile.mkdtemp(prefix="run-", dir=cache)
with open(os.path.join(folder, "keeper.py"), "wb") as file:
    file.write(sys.stdin.buffer.read())
boot = "/proc/sys/kernel/random/boot_id"
installed = os.path.join(cache, "venv", "bin", "python")
print(json.dumps({
    "folder": folder,
    "python": installed if os.path.exists(installed) else sys.executable,
    "system_python": sys.executable,
    "machine": platform.machine(),
    "libc": platform.libc_ver(),
    "version": sys.version_info[:3],
    "boot": open(boot).read().strip() if os.path.exists(boot) else platform.node(),
    "bits": 64 if sys.maxsize > 2**32 else 32,
}))
"""


@dataclass(frozen=True)
class Board:
    """What is found out on opening.

    Attributes:
        folder: of this run, on the board.
        python: the one that was set up, else the system's.
        system_python: the system's.
        machine: as uname says: "aarch64".
        libc: name and version: ("glibc", "2.36").
        version: of the system's Python.
        boot: names the running system: the same for every way to it.
        bits: of the system's Python: 32 also where a 32-bit system runs on a 64-bit kernel.
    """

    folder: str
    python: str
    system_python: str
    machine: str
    libc: tuple[str, str]
    version: tuple[int, int, int]
    boot: str
    bits: int

    @property
    def cache(self) -> str:
        """The folder that holds all edgeprune ever makes on the board."""
        return str(PurePosixPath(self.folder).parent)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Board:
        """The board that the opening call describes."""
        lists = {key: tuple(document[key]) for key in ("libc", "version")}
        return cls(**{**document, **lists})


@dataclass(frozen=True)
class Left:
    """A run whose folder is on the board.

    Attributes:
        folder: of the run.
        events: the file with what its command wrote.
        alive: whether the command still works.
        code: of its exit; None while it is alive, or if it was cut down.
        words: the last lines it said.
    """

    folder: str
    events: str
    alive: bool
    code: int | None
    words: Sequence[str]
