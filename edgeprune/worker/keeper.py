"""What keeps a command alive on the board while the connection comes and goes. The standard library alone.

The host calls it over SSH, one operation a call: `python3 keeper.py OPERATION FOLDER [ARGUMENT...]`. FOLDER is the
run's own. `start` detaches a command from the connection and lets its lines go to a file; `follow` shows that file from
any byte on, as often as the connection is made anew; `stop` ends the command with all it started. Nobody can leave a
stale lock behind: the one who keeps the command holds a lock of the kernel, which ends with the process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

LOCK_NAME = "lock"
"""Beside the runs' folders: whoever holds it measures. Its text names the holder."""
_EVENTS, _WORDS, _OUTCOME, _GROUP, _ALIVE = "events.jsonl", "words.txt", "outcome.json", "group", "alive"
_GRACE_SECONDS = 5.0
_CHUNK = 1 << 20
_OUTCOME_LENGTH = 16
_PAUSE_SECONDS = 0.05
_FOLLOW_SECONDS = 0.2  # longer: each look costs the board time while something is measured


def main() -> None:
    """Do one operation, and exit with what it says went wrong."""
    operations: dict[str, Callable[..., None]] = {
        "receive": receive,
        "send": send,
        "start": start,
        "follow": follow,
        "outcome": outcome,
        "stop": stop,
        "close": close,
        "left": left,
        "clean": clean,
    }
    try:
        operations[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
    except OSError as error:
        sys.exit(f"{error.strerror}: {error.filename or sys.argv[2]}")


def receive(path: Path, digest: str) -> None:
    """Write standard input to a file, and check that all of it came."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in iter(lambda: sys.stdin.buffer.read(_CHUNK), b""):
            found.update(chunk)
            file.write(chunk)
    if found.hexdigest() != digest:
        path.unlink()
        sys.exit(f"{path.name} was damaged or cut off on its way")


def send(path: Path) -> None:
    """Write a file to standard output."""
    with path.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)


def start(folder: Path, holder: str, *argv: str) -> None:
    """Start a command that does not end with this call.

    Args:
        folder: of the run.
        holder: who asks, for those who find the board busy.
        argv: the command.
    """
    lock = (folder.parent / LOCK_NAME).open("a+")
    if not _held(lock):
        lock.seek(0)
        sys.exit(f"busy: {lock.read().strip()}")
    lock.truncate(0)
    lock.write(f"{holder} since {time.strftime('%Y-%m-%d %H:%M:%S %Z')}\n")
    lock.flush()
    for name in (_EVENTS, _WORDS, _OUTCOME, _GROUP):
        (folder / name).unlink(missing_ok=True)
    alive = (folder / _ALIVE).open("w")
    _held(alive)
    (folder / _EVENTS).touch()
    _write_outcome(folder, None)  # its place on the disk, for when that is full
    if os.fork():
        return
    os.setsid()
    _detach()
    try:
        _keep(folder, argv)
    finally:
        os._exit(0)  # both locks end here, after the outcome is written


def follow(folder: Path, offset: str) -> None:
    """Show what the command wrote, from a byte on, until the command has ended or the connection is gone."""
    with (folder / _EVENTS).open("rb") as events:
        events.seek(int(offset))
        while True:
            ended = not _is_kept(folder)  # asked before reading, so that nothing written in between is missed
            shutil.copyfileobj(events, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            if ended or _input_closed():
                return
            time.sleep(_FOLLOW_SECONDS)


def outcome(folder: Path) -> None:
    """Print how the command ended: {"code", "words"}; code is null if it or the board was cut down."""
    print(json.dumps(_outcome(folder)))


def left(cache: Path) -> None:
    """Print what runs there are: a list of {"folder", "events", "alive", "code", "words"}."""
    folders = [path.parent for path in sorted(cache.glob(f"run-*/{_EVENTS}"))]
    runs = [(folder, _is_kept(folder)) for folder in folders]  # asked before reading how they ended
    print(
        json.dumps(
            [
                {"folder": str(folder), "events": str(folder / _EVENTS), "alive": alive, **_outcome(folder)}
                for folder, alive in runs
            ]
        )
    )


def stop(folder: Path) -> None:
    """End the command and all it started, kindly first. Nothing happens if it has ended."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if not _is_kept(folder):
            return
        _signal_group(folder, kind)
        deadline = time.monotonic() + _GRACE_SECONDS
        while _is_kept(folder) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)


def close(folder: Path) -> None:
    """End the command and remove the run's folder."""
    if folder.exists():
        stop(folder)
        shutil.rmtree(folder)


def clean(cache: Path) -> None:
    """Remove everything, unless a bench is running."""
    if not cache.exists():
        return
    lock = (cache / LOCK_NAME).open("a+")
    if not _held(lock):
        lock.seek(0)
        sys.exit(f"busy: {lock.read().strip()}")
    shutil.rmtree(cache)


def _outcome(folder: Path) -> dict[str, Any]:
    words = (folder / _WORDS).read_text(encoding="utf-8", errors="replace") if (folder / _WORDS).exists() else ""
    code = json.loads((folder / _OUTCOME).read_text()) if (folder / _OUTCOME).exists() else None
    lines = words.strip().splitlines()[-3:]
    if code and shutil.disk_usage(folder).free < _CHUNK:  # then the command could not say so itself
        lines.append(os.strerror(errno.ENOSPC))
    return {"code": code, "words": lines}


def _keep(folder: Path, argv: tuple[str, ...]) -> None:
    """Run the command to its end. Its standard input stays open, and closes if this process is killed."""
    with (folder / _EVENTS).open("ab") as events, (folder / _WORDS).open("ab") as words:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=events, stderr=words, cwd=folder, start_new_session=True
            )
        except OSError as error:
            words.write(f"cannot start {argv[0]}: {error.strerror}\n".encode())
            words.flush()
            code = 127
        else:
            (folder / _GROUP).write_text(str(process.pid))
            code = process.wait()
            _signal_group(folder, signal.SIGKILL)  # whatever it left running
    _write_outcome(folder, code)


def _write_outcome(folder: Path, code: int | None) -> None:
    path = folder / _OUTCOME
    with path.open("r+" if path.exists() else "w") as file:
        file.write(json.dumps(code).ljust(_OUTCOME_LENGTH))


def _detach() -> None:
    """Let go of the connection: it stays open as long as anybody holds its streams."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _held(file: IO[Any], kind: int = fcntl.LOCK_EX) -> bool:
    """Take a file's lock, for as long as this process or a fork of it keeps the file open; False if another has it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_kept(folder: Path) -> bool:
    """Whether the command's keeper lives."""
    try:
        with (folder / _ALIVE).open("r") as alive:
            return not _held(alive, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _signal_group(folder: Path, kind: int) -> None:
    with suppress(FileNotFoundError, ProcessLookupError):
        os.killpg(int((folder / _GROUP).read_text()), kind)


def _input_closed() -> bool:
    """Whether the connection has ended; the host sends nothing else."""
    ready, _, _ = select.select([0], [], [], 0)
    return bool(ready) and not os.read(0, 1)


if __name__ == "__main__":
    main()
