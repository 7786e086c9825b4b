"""One slot for each board: runs that measure on it take turns, those of a sweep on several machines too."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeprune.bench.device import SshDevice, parse_device
from edgeprune.files import output_error, plain_name

VARIABLE = "EDGEPRUNE_SLOTS"
"""The environment variable that names the folder of the slots; without it nobody waits for anybody."""
_HELD: set[Path] = set()


@contextmanager
def slot(device: str) -> Iterator[None]:
    """Wait until nobody else measures on a board, and let nobody else while the block runs.

    Within a block that holds it, it is held already. The kernel gives it back where a process is killed.

    Args:
        device: a device string. This machine and a container on it are one board; two names of one board over SSH are
            two, but there the board's own lock says that it is busy.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = os.environ.get(VARIABLE)
    here = not isinstance(parse_device(device), SshDevice)
    path = Path(folder or ".") / f"{'local' if here else plain_name(device)}.lock"
    if not folder or path in _HELD:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise output_error(error, path) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _HELD.add(path)
        try:
            yield
        finally:
            _HELD.discard(path)
