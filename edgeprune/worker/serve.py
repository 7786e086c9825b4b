"""The child process that holds one file in one runtime.

It reads requests from standard input and answers on standard output, one JSON line each. One process a file, so that
memory and thread pools are its own.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Any

import numpy as np

from edgeprune.worker import sensors
from edgeprune.worker.loaded import UnfitError
from edgeprune.worker.runtimes import RUNTIMES

AT_LEAST_SAMPLES = 3
"""Fewest timed calls of a block, however slow the file."""
KEPT_OUTPUTS = 1000
"""So many values of the first output are handed on, to be compared with those of another machine."""
_WINDOW_NS = 50_000_000  # a warm-up window: long enough for a median, short enough to see the caches fill
_STEADY_WINDOWS = 2


class ServedModel:
    """One file in one runtime, with its inputs."""

    def __init__(self) -> None:
        self._call: Callable[[], int] = lambda: 0

    def load(self, path: str, runtime: str, threads: int, inputs: str, layout: str) -> dict[str, Any]:
        """Load a file and call it once.

        Args:
            path: the file.
            runtime: a name of `RUNTIMES`.
            threads: for the runtime to use.
            inputs: a .npy file, float32 [k, C, H, W]; the calls take its images in turn.
            layout: of the file's input, "NCHW" or "NHWC".

        Returns:
            load_ns, first_ns, runtime_version, placement (see `LoadedModel`); of the first output for the first image
            output_sha256 (of its bytes) and output (its first `KEPT_OUTPUTS` values).
        """
        images = np.load(inputs)
        if layout == "NHWC":
            images = images.transpose(0, 2, 3, 1)
        begin = time.perf_counter_ns()
        model = RUNTIMES[runtime].load(path, threads)
        load_ns = time.perf_counter_ns() - begin
        feeds = [model.prepare(images[i : i + 1]) for i in range(len(images))]
        begin = time.perf_counter_ns()
        output = model.run(feeds[0])
        first_ns = time.perf_counter_ns() - begin
        self._call = _timed_calls(model.run, feeds)
        gc.collect()
        gc.disable()  # a collection in the middle of a block would be timed as the model's
        digest = hashlib.sha256(np.ascontiguousarray(output).tobytes()).hexdigest()
        told = {"load_ns": load_ns, "first_ns": first_ns, "runtime_version": model.version, "output_sha256": digest}
        told["placement"] = dict(model.placement())
        return told | {"output": np.asarray(output, np.float64).ravel()[:KEPT_OUTPUTS].tolist()}

    def warm_up(self, at_least: int, limit_seconds: float, tolerance: float) -> dict[str, Any]:
        """Call until the times are stable; see `warm_up`."""
        return warm_up(self._call, at_least, limit_seconds, tolerance)

    def block(self, seconds: float) -> dict[str, Any]:
        """Time calls for `seconds`, at least `AT_LEAST_SAMPLES`.

        Returns:
            samples_ns, peak_rss_bytes, and sensors: other_cores, the CPU time other processes used meanwhile (absent
            where /proc/stat is).
        """
        before, begin = _other_cpu_seconds(), time.perf_counter_ns()
        samples: list[int] = []
        while len(samples) < AT_LEAST_SAMPLES or time.perf_counter_ns() - begin < seconds * 1e9:
            samples.append(self._call())
        wall, after = (time.perf_counter_ns() - begin) / 1e9, _other_cpu_seconds()
        seen = {} if before is None or after is None else {"other_cores": round(max(0.0, after - before) / wall, 3)}
        return {"samples_ns": samples, "peak_rss_bytes": peak_rss_bytes(), "sensors": seen}


def warm_up(call: Callable[[], int], at_least: int, limit_seconds: float, tolerance: float) -> dict[str, Any]:
    """Call until the median of short windows stops improving.

    Args:
        call: does the work once and returns its time in ns.
        at_least: fewest calls.
        limit_seconds: hard limit, stable or not (a call under way is finished).
        tolerance: an improvement below this share counts as none.

    Returns:
        calls, seconds, and whether times became stable.
    """
    best, steady, calls, spent = float("inf"), 0, 0, 0
    while True:
        window: list[int] = []
        end = spent + _WINDOW_NS
        while (len(window) < AT_LEAST_SAMPLES or spent < end) and spent < limit_seconds * 1e9:
            window.append(call())
            spent += window[-1]
        calls, middle = calls + len(window), median(window)
        steady = 0 if middle < best * (1 - tolerance) else steady + 1
        best = min(best, middle)
        stable = steady >= _STEADY_WINDOWS and calls >= at_least
        if stable or spent >= limit_seconds * 1e9:
            return {"calls": calls, "seconds": round(spent / 1e9, 3), "stable": stable}


def peak_rss_bytes() -> int:
    """The most memory this process ever held."""
    status = sensors.Board().read("/proc/self/status") or ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # Linux carries ru_maxrss of the parent over fork and exec, so it is only the second choice.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve() -> int:
    """Answer requests until standard input closes."""
    # Some runtimes print to file descriptor 1; replies get a copy of it, and all else goes to standard error.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _die_with_parent()
    model = ServedModel()
    operations: dict[str, Callable[..., dict[str, Any]]] = {
        "load": model.load,
        "warm_up": model.warm_up,
        "block": model.block,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = operations[request.pop("operation")](**request)
        except Exception as error:
            reason = str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"
            reply = {"error": reason, "fix": getattr(error, "fix", "")}
        replies.write(json.dumps(reply) + "\n")
    return 0


def _timed_calls(run: Callable[[Any], np.ndarray], feeds: list[Any]) -> Callable[[], int]:
    """A function that runs the next input and returns the time in ns."""
    turn = 0

    def call() -> int:
        nonlocal turn
        feed = feeds[turn % len(feeds)]
        turn += 1
        begin = time.perf_counter_ns()
        run(feed)
        return time.perf_counter_ns() - begin

    return call


def _other_cpu_seconds() -> float | None:
    """CPU seconds since boot that were not this process's; None where the system does not say."""
    busy = sensors.busy_cpu_seconds(sensors.Board())
    return None if busy is None else busy - time.process_time()


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, also in the middle of a call that never returns."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG, <linux/prctl.h>
