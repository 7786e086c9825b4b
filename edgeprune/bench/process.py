"""Processes of this machine, in groups of their own: Ctrl-C reaches us alone, and we end them with all they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from edgeprune.errors import DeviceError

_GRACE_SECONDS = 5.0


def start(argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[str]:
    """Start a program whose lines can be read and whose standard input stays open.

    Args:
        argv: its words.
        log: where its standard error goes.

    Raises:
        DeviceError: it cannot be started.
    """
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(list(argv), stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True)
    except OSError as error:
        raise DeviceError(f"cannot start {argv[0]}: {error.strerror}", where="this machine") from error


def kill(process: subprocess.Popen[str]) -> None:
    """End a program and all of its group, kindly first; also from another thread than the one that reads its lines."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


def end(process: subprocess.Popen[str]) -> None:
    """End a program and all of its group, and let go of its streams."""
    kill(process)
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


def this_machine() -> str:
    """Tells the machine we run on from others, until it restarts: the kernel's boot_id (random(4)), else its name."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else socket.gethostname()
