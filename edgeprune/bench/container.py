"""A container on this machine, by the engine's own command line: `docker` or `podman`.

It gets no network, a root folder it cannot write, and the run's files read-only; it is removed when it ends. Images are
neither pulled nor built here.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from edgeprune.bench.device import ContainerDevice
from edgeprune.bench.faults import ended, engine_fault
from edgeprune.bench.process import end, kill, start, this_machine
from edgeprune.errors import DeviceError

_FILES = PurePosixPath("/edgeprune")
"""Where the run's files are seen inside."""
_OPTIONS = (
    "--rm",
    "--init",  # as process 1 a crash would hang, and children would stay zombies
    "--interactive",
    "--pull=never",
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--env=HOME=/tmp",
    "--log-driver=none",  # else the engine writes every event to the disk while we measure
    "--user=0:0",  # rootless engines take it for the user; the image's own could not read the files
    "--security-opt=no-new-privileges",
    "--security-opt=label=disable",  # SELinux would hide the files; relabelling them would outlast the run
)
_REMOVE_SECONDS = 60


class Container:
    """A container of an image; a `Transport`. Each command runs in one of its own."""

    python = "python3"

    def __init__(self, device: ContainerDevice) -> None:
        self._device = device
        self._sent: dict[Path, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._interrupted = False

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return str(self._device)

    @property
    def machine(self) -> str:
        """This one."""
        return this_machine()

    def __enter__(self) -> Container:
        argv = [self._device.engine, "image", "inspect", "--format", "{{.Id}}", self._device.image]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        except OSError:
            fix = "Install it, or name the other of docker:// and podman://."
            raise DeviceError(f"{argv[0]} is not installed on this machine", where=self.name, fix=fix) from None
        if done.returncode:
            raise engine_fault(done.stderr, self._device) or ended(done.returncode, done.stderr.splitlines(), self.name)
        self._scratch = Path(tempfile.mkdtemp(prefix="edgeprune-"))
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def put(self, path: Path, *beside: str) -> str:
        """Copy a file to where the container sees it, see `Transport.put`; once, however often it is asked for."""
        if path not in self._sent:
            there = self._scratch / str(len(self._sent)) / path.name
            for name in (path.name, *beside):
                (there.parent / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path.parent / name, there.parent / name)
            self._sent[path] = str(_FILES / there.relative_to(self._scratch))
        return self._sent[path]

    def get(self, source: str, path: Path) -> None:
        """Copy back a file that was put there; what a container writes itself ends with it."""
        shutil.copyfile(self._scratch / PurePosixPath(source).relative_to(_FILES), path)

    def run(self, argv: Sequence[str]) -> Generator[str, None, None]:
        """Run a command and yield its lines; see `Transport.run`."""
        name = f"edgeprune-{secrets.token_hex(8)}"
        with tempfile.TemporaryFile() as log:
            process = self._process = start(self._command(name, argv), log)
            assert process.stdout
            try:
                yield from process.stdout
                code = process.wait()
            finally:
                cut_off = process.poll() is None or self._interrupted
                end(process)  # the engine passes the signal on
                if cut_off:
                    self._remove(name)
            if self._interrupted:
                raise KeyboardInterrupt
            if code:
                log.seek(0)
                said = log.read().decode(errors="replace").strip()
                # As a shell does, an engine says 128 + N for signal N.
                signalled = 128 - code if code > 128 else code
                raise engine_fault(said, self._device) or ended(signalled, said.splitlines()[-3:], self.name)

    def interrupt(self) -> None:
        """End what runs; see `Transport.interrupt`."""
        self._interrupted = True
        if self._process:
            kill(self._process)

    def _command(self, name: str, argv: Sequence[str]) -> list[str]:
        mount = f"--volume={self._scratch}:{_FILES}:ro"
        fixed = [self._device.engine, "run", *_OPTIONS, f"--name={name}", mount, f"--entrypoint={argv[0]}"]
        return [*fixed, self._device.image, *argv[1:]]

    def _remove(self, name: str) -> None:
        """Make sure that nothing is left; there may be nothing."""
        argv = [self._device.engine, "rm", "--force", name]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(argv, capture_output=True, timeout=_REMOVE_SECONDS, check=False, stdin=subprocess.DEVNULL)
