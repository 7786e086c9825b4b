"""A board over SSH, by the system's own `ssh`: the user's configuration, keys and jump hosts hold here too.

One login serves a whole run: the first call leaves a master connection behind, and the others go through it. Files
travel on a call's standard streams, so that the board needs nothing but sshd and Python. Commands run detached from the
connection (see `edgeprune.worker.keeper`): where it is lost, it is made anew and nothing is.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath
from threading import Event
from typing import IO, Any

from edgeprune.bench.board import OPEN, Board, Left
from edgeprune.bench.device import SshDevice
from edgeprune.bench.faults import ConnectionLostError, ended, fault
from edgeprune.errors import DeviceError
from edgeprune.files import sha256_of
from edgeprune.worker import keeper

RETRY_SECONDS = (1, 2, 4, 8, 16, 30, 60)
"""Pauses before each attempt to take up a lost connection: two minutes, enough for a board's Wi-Fi to come back."""
_OPTIONS = {
    "BatchMode": "yes",  # a password cannot be asked for: it is an error that says so
    "ControlMaster": "auto",
    "ControlPersist": "60",  # the master ends by itself should we be killed
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "LogLevel": "ERROR",  # no banners among the errors
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
}
_CLOSE_SECONDS = 20


class Ssh:
    """A board over SSH; a `Transport`."""

    def __init__(self, device: SshDevice) -> None:
        self._device = device
        self._board: Board | None = None
        self._sent: set[str] = set()
        self._to_close = True
        self._process: subprocess.Popen[bytes] | None = None
        self._interrupted = Event()

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return str(self._device)

    @property
    def python(self) -> str:
        """The Python that `edgeprune bench --setup` made on the board, else the board's own."""
        return self.board.python

    @property
    def machine(self) -> str:
        """The board, whichever way it is reached."""
        return self.board.boot

    @property
    def board(self) -> Board:
        """What is known of the board, once entered."""
        if self._board is None:
            raise ValueError("the board is not opened: use `with`")
        return self._board

    def __enter__(self) -> Ssh:
        # Not $TMPDIR if that is long: the path of a socket has at most 108 characters, and ssh adds some.
        near = tempfile.gettempdir()
        self._scratch = tempfile.mkdtemp(prefix="edgeprune-", dir=near if len(near) < 50 else "/tmp")
        try:
            with Path(keeper.__file__).open("rb") as source:
                said = self._call(["python3", "-c", OPEN], source)
            self._board = Board.from_json(json.loads(said))
        except BaseException as error:
            self._hang_up()
            if isinstance(error, ValueError):
                raise DeviceError(
                    "its shell prints text of its own at login", where=self.name, fix="Silence ~/.bashrc there."
                ) from None
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if self._to_close:
                self._keeper("close", self.board.folder)
        except DeviceError:
            # What ended the run is worth more than that it could not be tidied up.
            if exception[0] is None:
                raise
        finally:
            self._hang_up()

    def put(self, path: Path, *beside: str) -> str:
        """Copy a file to the board, see `Transport.put`; once, however often it is asked for."""
        names = (path.name, *beside)
        digests = [sha256_of(path.parent / name) for name in names]
        # A folder for what belongs together: the same model file may have had other weights beside it.
        place = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        folder = PurePosixPath(self.board.folder) / place[:16]
        there = str(folder / path.name)
        if there not in self._sent:
            for name, digest in zip(names, digests, strict=True):
                with (path.parent / name).open("rb") as file:
                    self._keeper("receive", str(folder / PurePath(name).as_posix()), digest, stdin=file)
            self._sent.add(there)
        return there

    def get(self, source: str, path: Path) -> None:
        """Copy a file of the board."""
        path.write_bytes(self._keeper("send", source))

    def run(self, argv: Sequence[str]) -> Generator[str, None, None]:
        """Run a command and yield its lines; see `Transport.run`. A lost connection is taken up again."""
        folder = self.board.folder
        outcome: dict[str, Any] = {}
        try:
            self._keeper("start", folder, f"{getpass.getuser()}@{socket.gethostname()}", *argv)
            yield from self._followed(folder)
            outcome = json.loads(self._keeper("outcome", folder))
        finally:
            if not outcome and self._to_close:
                with suppress(DeviceError):  # where the board cannot be reached, the command ends with its work
                    self._keeper("stop", folder)
        if outcome["code"] != 0:
            raise ended(outcome["code"], outcome["words"], self.name)

    def interrupt(self) -> None:
        """End what runs; see `Transport.interrupt`."""
        self._interrupted.set()
        if self._process:
            self._process.kill()

    def left(self) -> tuple[Left, ...]:
        """The runs on the board, those of lost connections and of other users of this account included."""
        return tuple(Left(**one) for one in json.loads(self._keeper("left", self.board.cache)))

    def remove(self, folder: str) -> None:
        """Remove a run's folder; a command that still works is ended."""
        self._keeper("close", folder)

    def clean(self) -> None:
        """Remove everything edgeprune ever made on the board.

        Raises:
            DeviceError: a bench is running there.
        """
        self._keeper("clean", self.board.cache)
        self._to_close = False

    def _followed(self, folder: str) -> Generator[str, None, None]:
        """The command's lines to its end, across lost connections."""
        seen, failures, pipe = 0, 0, subprocess.PIPE
        while True:
            argv = self._ssh(["python3", f"{folder}/keeper.py", "follow", folder, str(seen)])
            process = self._started(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
            with _ending(process) as output:
                for line in output:
                    if not line.endswith(b"\n"):
                        break  # torn off; it will come whole
                    seen, failures = seen + len(line), 0
                    yield line.decode(errors="replace")
                if process.wait() == 0:
                    return
            if self._interrupted.is_set():
                raise KeyboardInterrupt
            if failures == len(RETRY_SECONDS):
                self._to_close = False
                raise ConnectionLostError(self.name)
            self._interrupted.wait(RETRY_SECONDS[failures])
            failures += 1

    def _keeper(self, operation: str, *words: str, stdin: IO[bytes] | None = None) -> bytes:
        return self._call(["python3", f"{self.board.folder}/keeper.py", operation, *words], stdin)

    def _call(self, argv: Sequence[str], stdin: IO[bytes] | None = None) -> bytes:
        """Run a short command to its end.

        Raises:
            DeviceError: it failed, or ssh did; in the user's words where the fault is known.
        """
        # A file, not a pipe: the master that the first call leaves behind keeps it open.
        with tempfile.TemporaryFile() as words:
            process = self._started(
                self._ssh(argv), stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words
            )
            try:
                said, _ = process.communicate()
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                words.seek(0)
                raise fault(process.returncode, words.read().decode(errors="replace"), self._device)
        return said

    def _ssh(self, argv: Sequence[str]) -> list[str]:
        """The words that run a command on the board."""
        device = self._device
        options = [f"-o{key}={value}" for key, value in _OPTIONS.items()]
        where = [*(["-l", device.user] if device.user else []), *(["-p", str(device.port)] if device.port else [])]
        return ["ssh", *options, f"-oControlPath={self._scratch}/s", *where, "--", device.host, shlex.join(argv)]

    def _started(self, argv: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        try:
            # A session of its own: Ctrl-C reaches us alone, and we still need the connection to end what runs there.
            self._process = subprocess.Popen(argv, start_new_session=True, **streams)
        except FileNotFoundError:
            raise DeviceError("ssh is not installed on this machine", fix="apt-get install openssh-client") from None
        return self._process

    def _hang_up(self) -> None:
        """Close the connection."""
        argv = ["ssh", "-O", "exit", f"-oControlPath={self._scratch}/s", "--", self._device.host]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(argv, capture_output=True, timeout=_CLOSE_SECONDS, check=False)
        shutil.rmtree(self._scratch, ignore_errors=True)


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[IO[bytes]]:
    """The process's output; the process does not outlive the block."""
    assert process.stdin
    assert process.stdout
    with process.stdin, process.stdout:
        try:
            yield process.stdout
        finally:
            process.kill()
            process.wait()
