"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import signal
from contextlib import suppress


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, also in the middle of a call that never returns."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG, <linux/prctl.h>
