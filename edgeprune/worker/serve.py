"""The child process that holds one file in one runtime.

It reads requests from standard input and answers on standard output, one JSON line each. One process a file, so that
memory and thread pools are its own. From "load" to "release" a fork of it answers, which holds the file and ends then:
it itself only imports the runtime, so that each load begins with new memory and not with the seconds of an import.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import itertools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from statistics import median
from typing import Any

import numpy as np

from edgeprune.worker import sensors
from edgeprune.worker.lifetime import die_with_parent
from edgeprune.worker.loaded import LoadedModel, UnfitError, arranged
from edgeprune.worker.runtimes import RUNTIMES

AT_LEAST_SAMPLES = 3
"""Fewest timed calls of a block, however slow the file."""
KEPT_OUTPUTS = 1000
"""So many values of the first output are handed on, to be compared with those of another machine."""
_WINDOW_NS = 50_000_000  # a warm-up window: long enough for a median, short enough to see the caches fill
_STEADY_WINDOWS = 2

_Times = Callable[[float, int], list[int]]


class ServedModel:
    """One file in one runtime, with its inputs."""

    def __init__(self) -> None:
        self._times: _Times = lambda *_: []
        self._elsewhere = False

    def load(
        self,
        path: str,
        runtime: str,
        threads: int,
        inputs: str,
        layout: str,
        folded: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Load a file and call it once.

        Args:
            path: the file.
            runtime: a name of `RUNTIMES`.
            threads: for the runtime to use.
            inputs: a .npy file, float32 [k, C, H, W]; the calls take its images in turn.
            layout: of the file's input, "NCHW" or "NHWC".
            folded: see `edgeprune.worker.loaded.arranged`.

        Returns:
            load_ns, first_ns, runtime_version, placement (see `LoadedModel`); of the first output for the first image
            output_sha256 (of its bytes) and output (its first `KEPT_OUTPUTS` values).
        """
        images = arranged(np.load(inputs), layout, folded)
        begin = time.perf_counter_ns()
        model = RUNTIMES[runtime].load(path, threads)
        load_ns = time.perf_counter_ns() - begin
        feeds = [model.prepare(images[i : i + 1]) for i in range(len(images))]
        begin = time.perf_counter_ns()
        output = model.run(feeds[0])
        first_ns = time.perf_counter_ns() - begin
        self._elsewhere = model.times is not None
        self._times = _timed_there(model, feeds) if self._elsewhere else _timed_here(model.run, feeds)
        gc.collect()
        gc.disable()  # a collection in the middle of a block would be timed as the model's
        digest = hashlib.sha256(np.ascontiguousarray(output).tobytes()).hexdigest()
        told = {"load_ns": load_ns, "first_ns": first_ns, "runtime_version": model.version, "output_sha256": digest}
        told["placement"] = dict(model.placement())
        return told | {"output": np.asarray(output, np.float64).ravel()[:KEPT_OUTPUTS].tolist()}

    def warm_up(self, at_least: int, limit_seconds: float, tolerance: float) -> dict[str, Any]:
        """Call until the times are stable; see `warm_up`."""
        if not self._elsewhere:
            return warm_up(lambda: self._times(0.0, 1)[0], at_least, limit_seconds, tolerance)
        # Each of its processes warms up by itself, so it is enough to look whether that sufficed.
        samples = self._times(limit_seconds / 10, max(2, at_least))
        middle = len(samples) // 2
        stable = median(samples[middle:]) >= median(samples[:middle]) * (1 - tolerance)
        return {"calls": len(samples), "seconds": round(sum(samples) / 1e9, 3), "stable": stable}

    def block(self, seconds: float) -> dict[str, Any]:
        """Time calls for `seconds`, at least `AT_LEAST_SAMPLES`.

        Returns:
            samples_ns, peak_rss_bytes, and sensors: other_cores, the CPU time other processes used meanwhile (absent
            where /proc/stat is).
        """
        before, begin = _other_cpu_seconds(), time.perf_counter_ns()
        samples = self._times(seconds, AT_LEAST_SAMPLES)
        wall, after = (time.perf_counter_ns() - begin) / 1e9, _other_cpu_seconds()
        seen = {} if before is None or after is None else {"other_cores": round(max(0.0, after - before) / wall, 3)}
        peak = _children_rss_bytes() if self._elsewhere else peak_rss_bytes()
        return {"samples_ns": samples, "peak_rss_bytes": peak, "sensors": seen}


def profile(
    path: str,
    runtime: str,
    threads: int,
    inputs: str,
    layout: str,
    calls: int,
    folded: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What each operator of a file takes; the arguments are those of `ServedModel.load`.

    Returns:
        what the runtime's `profile` returns.

    Raises:
        UnfitError: the runtime offers no profile here.
    """
    profiler = RUNTIMES[runtime].profile
    if profiler is None:
        raise UnfitError(f"{runtime}'s Python package offers no profile", f"Leave --profile or {runtime} out.")
    return profiler(path, threads, arranged(np.load(inputs)[:1], layout, folded), calls)


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


def _children_rss_bytes() -> int:
    """The most memory any process that this one started and saw the end of ever held."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def serve() -> int:
    """Answer requests until standard input closes."""
    # Some runtimes print to file descriptor 1; replies get a copy of it, and all else goes to standard error.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    die_with_parent()
    model, forked = ServedModel(), False
    operations: dict[str, Callable[..., dict[str, Any]]] = {
        "load": model.load,
        "warm_up": model.warm_up,
        "block": model.block,
        "release": dict,
        "profile": profile,
    }
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("operation")
        if operation == "load" and not forked:
            forked = _forked(request["runtime"])
            if not forked:
                continue
        try:
            reply = operations[operation](**request)
        except Exception as error:
            reason = str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"
            reply = {"error": reason, "fix": getattr(error, "fix", "")}
        replies.write(json.dumps(reply) + "\n")
        if operation == "release":
            os._exit(0)
    return 0


def _forked(runtime: str) -> bool:
    """True in a new fork of this process; False in this one once that has ended, of itself or at "release".

    What kills it kills this process, too, so that whoever waits for an answer learns of what.
    """
    with suppress(Exception):  # the fork will say what is wrong with it
        importlib.import_module(RUNTIMES[runtime].module)
    own = os.getpid()
    fork = os.fork()
    if fork == 0:
        die_with_parent()
        if os.getppid() != own:
            os._exit(1)
        return True
    code = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    if code < 0:
        with suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(own, -code)
    if code > 0:
        os._exit(code)
    return False


def _timed_here(run: Callable[[Any], np.ndarray], feeds: list[Any]) -> _Times:
    """A function that runs the inputs in turn for some seconds, at least so many, and returns each time in ns."""
    turn = itertools.cycle(feeds)

    def times(seconds: float, at_least: int) -> list[int]:
        started, samples = time.perf_counter_ns(), list[int]()
        while len(samples) < at_least or time.perf_counter_ns() - started < seconds * 1e9:
            feed = next(turn)
            begin = time.perf_counter_ns()
            run(feed)
            samples.append(time.perf_counter_ns() - begin)
        return samples

    return times


def _timed_there(model: LoadedModel, feeds: list[Any]) -> _Times:
    """The same where the runtime times itself; one input for all calls of a block."""
    turn = itertools.cycle(feeds)

    def times(seconds: float, at_least: int) -> list[int]:
        assert model.times
        return model.times(next(turn), seconds, at_least)

    return times


def _other_cpu_seconds() -> float | None:
    """CPU seconds since boot that were not this process's or its children's; None where the system does not say."""
    busy = sensors.busy_cpu_seconds(sensors.Board())
    own = os.times()  # with that of processes this one started and saw the end of
    return None if busy is None else busy - (own.user + own.system + own.children_user + own.children_system)
