"""Processes of this machine, in groups of their own: Ctrl-C reaches us alone, and we end them with all they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
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


def end(process: subprocess.Popen[str]) -> None:
    """End a program and all of its group, kindly first."""
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
