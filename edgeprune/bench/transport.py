"""How files and commands reach the device."""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from collections.abc import Generator, Sequence
from pathlib import Path
from subprocess import Popen
from typing import Protocol

import edgeprune.worker
from edgeprune.bench.container import Container
from edgeprune.bench.device import ContainerDevice, LocalDevice, parse_device
from edgeprune.bench.faults import ended
from edgeprune.bench.process import end, kill, start, this_machine
from edgeprune.bench.ssh import Ssh


class Transport(Protocol):
    """A device that can run the worker.

    A context manager: on leaving, nothing of ours runs or lies on the device any more.
    """

    @property
    def name(self) -> str:
        """What the user calls the device: "local", "ssh://pi@raspberrypi.local", "docker://IMAGE"."""

    @property
    def python(self) -> str:
        """The Python on the device that has numpy and the runtimes."""

    @property
    def machine(self) -> str:
        """Tells the machine that works there from others, whatever the user calls it; known once entered."""

    def __enter__(self) -> Transport: ...

    def __exit__(self, *exception: object) -> None: ...

    def put(self, path: Path, *beside: str) -> str:
        """Make a file of this machine available on the device.

        Args:
            path: the file.
            beside: files that it needs beside it there, named relative to its folder.

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

    def interrupt(self) -> None:
        """End what `run` runs in another thread, which then raises KeyboardInterrupt there."""


class Local:
    """This machine."""

    name = "local"
    python = sys.executable

    def __init__(self) -> None:
        self._process: Popen[str] | None = None
        self._interrupted = False

    @property
    def machine(self) -> str:
        """This one."""
        return this_machine()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is left behind: `run` ends what it started."""

    def put(self, path: Path, *_: str) -> str:
        """The file itself; nothing is copied."""
        return str(path.resolve())

    def get(self, source: str, path: Path) -> None:
        """Copy a file."""
        shutil.copyfile(source, path)

    def run(self, argv: Sequence[str]) -> Generator[str, None, None]:
        """Run a command and yield its lines; see `Transport.run`."""
        with tempfile.TemporaryFile() as log:
            process = self._process = start(argv, log)
            assert process.stdout
            try:
                yield from process.stdout
                code = process.wait()
            finally:
                end(process)
            if self._interrupted:
                raise KeyboardInterrupt
            if code:
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines()[-3:]
                raise ended(code, said, self.name)

    def interrupt(self) -> None:
        """End what runs; see `Transport.interrupt`."""
        self._interrupted = True
        if self._process:
            kill(self._process)


def open_device(text: str) -> Transport:
    """The transport for a device string; `with` connects it.

    Args:
        text: "local", "ssh://[user@]host[:port]", "docker://IMAGE" or "podman://IMAGE".

    Raises:
        UsageError: it is none of these.
    """
    device = parse_device(text)
    if isinstance(device, LocalDevice):
        return Local()
    return Container(device) if isinstance(device, ContainerDevice) else Ssh(device)


def pack_worker(path: Path, main: str = "edgeprune.worker.__main__:main") -> None:
    """Write the worker as one zip file that any Python from 3.9 on, with numpy and a runtime, can run.

    The same sources give the same bytes.

    Args:
        path: the file to write, by convention ending in .pyz.
        main: what it starts, "module:function".
    """
    module, _, function = main.partition(":")
    # Without edgeprune/__init__.py an edgeprune that is installed on the device would be found first.
    texts = {"__main__.py": f"import {module}\n\n{module}.{function}()\n".encode(), "edgeprune/__init__.py": b""}
    for source in sorted(Path(edgeprune.worker.__path__[0]).glob("*.py")):
        texts[f"edgeprune/worker/{source.name}"] = source.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980, whenever it is written
