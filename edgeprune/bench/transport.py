"""How files and commands reach the device."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipapp
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Protocol

import edgeprune.worker
from edgeprune.bench.device import LocalDevice, parse_device
from edgeprune.bench.ssh import Ssh
from edgeprune.errors import DeviceError

_GRACE_SECONDS = 5.0


class Transport(Protocol):
    """A device that can run the worker.

    A context manager: on leaving, nothing of ours runs or lies on the device any more.
    """

    @property
    def name(self) -> str:
        """What the user calls the device: "local", "ssh://pi@raspberrypi.local"."""

    @property
    def python(self) -> str:
        """The Python on the device that has numpy and the runtimes."""

    def __enter__(self) -> Transport: ...

    def __exit__(self, *exception: object) -> None: ...

    def put(self, path: Path) -> str:
        """Make a file of this machine available on the device.

        Returns:
            The path under which the device finds it.
        """

    def get(self, source: str, path: Path) -> None:
        """Copy a file of the device to `path` on this machine."""

    def run(self, argv: Sequence[str]) -> Generator[str, None, None]:
        """Run a command on the device and yield its lines as they come.

        The command's standard input stays open while it is kept alive. Closing the iterator, by an exception or
        Ctrl-C too, ends the command and whatever it started.

        Raises:
            DeviceError: the command cannot be started, or ends with another exit code than 0 (after its last line was
            yielded).
        """


class Local:
    """This machine."""

    name = "local"
    python = sys.executable

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is left behind: `run` ends what it started."""

    def put(self, path: Path) -> str:
        """The file itself; nothing is copied."""
        return str(path.resolve())

    def get(self, source: str, path: Path) -> None:
        """Copy a file."""
        shutil.copyfile(source, path)

    def run(self, argv: Sequence[str]) -> Generator[str, None, None]:
        """Run a command and yield its lines; see `Transport.run`."""
        with tempfile.TemporaryFile() as log:
            process = _start(argv, log)
            assert process.stdout
            try:
                yield from process.stdout
                code = process.wait()
            finally:
                _end(process)
            if code:
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines()[-3:]
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                raise DeviceError(f"the worker {how}", where=" | ".join(said))


def open_device(text: str) -> Transport:
    """The transport for a device string; `with` connects it.

    Args:
        text: "local" or "ssh://[user@]host[:port]".

    Raises:
        UsageError: it is neither.
    """
    device = parse_device(text)
    return Local() if isinstance(device, LocalDevice) else Ssh(device)


def pack_worker(path: Path) -> None:
    """Write the worker as one zip file that any Python from 3.9 on, with numpy and a runtime, can run.

    Args:
        path: the file to write, by convention ending in .pyz.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "edgeprune"
        (package / "worker").mkdir(parents=True)
        # Without this file an edgeprune that is installed on the device would be found first.
        (package / "__init__.py").touch()
        for source in Path(edgeprune.worker.__path__[0]).glob("*.py"):
            shutil.copyfile(source, package / "worker" / source.name)
        zipapp.create_archive(folder, path, main="edgeprune.worker.__main__:main")


def _start(argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    try:
        # A session of its own: Ctrl-C reaches us alone, and we end the whole group.
        return subprocess.Popen(list(argv), stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True)
    except OSError as error:
        raise DeviceError(f"cannot start {argv[0]}: {error.strerror}", where="local") from error


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all of its group, kindly first."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        os.killpg(process.pid, kind)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
