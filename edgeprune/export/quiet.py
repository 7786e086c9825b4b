"""Silence around converters, which print, log and warn from Python and from C++. What they said is kept for errors."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO


class Said:
    """What a converter printed while it was silenced.

    Args:
        printed: took Python's streams.
        written: the file that took the descriptors.
    """

    def __init__(self, printed: io.StringIO, written: IO[bytes]) -> None:
        self._printed, self._written = printed, written

    def text(self) -> str:
        """All of it so far."""
        self._written.seek(0)
        return self._printed.getvalue() + self._written.read().decode(errors="replace")


@contextlib.contextmanager
def quiet() -> Iterator[Said]:
    """Keep stdout and stderr clean for the block: Python's streams, and the file descriptors that C++ writes to.

    Both belong to the whole process: what other threads print meanwhile is swallowed too.
    """
    disabled = logging.root.manager.disable
    printed = io.StringIO()  # never closed: a log handler made at import inside the block keeps it
    with tempfile.TemporaryFile() as written, contextlib.ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        undo.callback(logging.disable, disabled)
        logging.disable(logging.CRITICAL)
        for descriptor in (1, 2):
            undo.enter_context(_redirected(descriptor, written.fileno()))
        undo.enter_context(contextlib.redirect_stdout(printed))
        undo.enter_context(contextlib.redirect_stderr(printed))
        yield Said(printed, written)


@contextlib.contextmanager
def _redirected(descriptor: int, to: int) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        saved = os.dup(descriptor)
    except OSError:  # a closed descriptor (a daemon) has nothing to keep clean
        yield
        return
    try:
        os.dup2(to, descriptor)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved, descriptor)
        os.close(saved)
