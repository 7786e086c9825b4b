"""A wish to stop, kept until it can be met without loss."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

_KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether a signal asked for the end; the first waits for `meet`, a second one is met at once."""

    def __init__(self) -> None:
        self._earlier: dict[int, Any] = {}
        self._asked: int | None = None

    @property
    def asked(self) -> bool:
        """Whether there was a signal."""
        return self._asked is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self._asked is not None:
            self._pass_on(number, frame)
        self._asked = number

    def meet(self) -> None:
        """Do now what the signal would have done when it came.

        Raises:
            KeyboardInterrupt: as the program's own way to end.
        """
        if self._asked is not None:
            self._pass_on(self._asked, None)
            raise KeyboardInterrupt

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        earlier = self._earlier.get(number)
        if callable(earlier):
            earlier(number, frame)

    def _install(self) -> None:
        for kind in _KINDS:
            if signal.getsignal(kind) not in (signal.SIG_IGN, None):
                self._earlier[kind] = signal.signal(kind, self)

    def _remove(self) -> None:
        for kind, earlier in self._earlier.items():
            signal.signal(kind, earlier)


@contextmanager
def stopping() -> Iterator[Stop]:
    """While the block runs, signals wait to be met; outside of the main thread they are left to it."""
    stop = Stop()
    if current_thread() is main_thread():
        stop._install()
    try:
        yield stop
    finally:
        stop._remove()
