"""What each operator of a TFLite file takes, by LiteRT's own profiler.

LiteRT's Python package has no door to its profiler, so this takes the one of its C library (litert/c/litert_profiler.h,
litert_compiled_model.h). Its text summary adds up operators of one kind and number, of all calls so far, and of each
part of a network that XNNPACK takes, for all parts are numbered from 0. So its events are read, too, in the order they
happened. Their layout changes with versions: how long one is is measured, and they are believed where they add up to
what the summary says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ctypes import (
    CDLL,
    CFUNCTYPE,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_size_t,
    c_uint64,
    c_void_p,
    cast,
    create_string_buffer,
    memmove,
    sizeof,
)
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from edgeprune.worker.litert import load_litert
from edgeprune.worker.loaded import UnfitError

LIBRARY = "libLiteRt.so"
"""Beside the package's modules, from version 2 on."""
WARM_UP_CALLS = 10
_CPU = 1  # LiteRtHwAccelerators
_WRITE = 1  # LiteRtTensorBufferLockMode
_ROW = re.compile(
    r"^\s*(?P<kind>\S.*?)"
    + r"\s+[\d.]+" * 2
    + r"\s+(?P<ms>[\d.]+)\s+[\d.]+%\s+[\d.]+%\s+\S+\s+(?P<times>\d+)\s+(?P<name>\S.*)$"
)
_NEEDED = (
    "LiteRtGetProfileSummary",
    "LiteRtGetProfilerEvents",
    "LiteRtCompiledModelGetProfiler",
    "LiteRtGetRankedTensorType",
)
_WORD = 8
_UNTOUCHED = b"\xa5" * _WORD
_LONGEST_EVENT = 64  # words; LiteRT 2.3: 13
_ALL_EVENTS = frozenset(1 << bit for bit in range(9))  # LiteRtProfilerEventType, litert_profiler_event.h
_OPERATORS = frozenset((2, 4, 8))  # the interpreter's, a delegate's, a delegate's that counts as the interpreter's
_US_OF_ROUNDING = 1.0


class Row(NamedTuple):
    """An operator; of the summary, those of one kind and number.

    Attributes:
        kind: what it computes, and by which kernel.
        name: its number.
        ms: of all of them together.
        times: how many there are.
    """

    kind: str
    name: str
    ms: float
    times: int = 1


class _Event(Structure):
    """How a ProfiledEventData begins (litert_profiler_event.h)."""

    _fields_ = (("tag", c_char_p), ("type", c_int), ("start_us", c_uint64), ("elapsed_us", c_uint64))


def profile_litert(path: str, threads: int, image: np.ndarray, calls: int) -> dict[str, Any]:
    """Profile a file in LiteRT with its XNNPACK kernels.

    Args:
        path: the file, of one input and one output.
        threads: for the runtime to use.
        image: float32 [1, ...] in the file's layout.
        calls: how many to take the medians of.

    Returns:
        version, call_ns (the sum of its operators: LiteRT times no whole) and operators in the order they ran: name,
        kind, ns (median over the calls, without fractions of a microsecond), place. Where this version's events cannot
        be read, operators of one kind and number are one, and ns the mean of their time together.

    Raises:
        UnfitError: this version's library offers no profiler.
    """
    import ai_edge_litert

    version = str(ai_edge_litert.__version__)
    source = Path(ai_edge_litert.__file__).with_name(LIBRARY)
    library = CDLL(str(source)) if source.exists() else None
    if not all(hasattr(library, name) for name in _NEEDED):
        raise UnfitError(
            f"LiteRT {version} offers no profiler", "Take ai-edge-litert 2.3 or newer, or profile in onnxruntime."
        )
    model = _Model(library, path, threads)
    model.feed(load_litert(path, 1).prepare(image))
    for _ in range(WARM_UP_CALLS):
        model.run()
    told = [model.profiled_run() for _ in range(calls)]
    tables = believed(read_summary(told[-1][0]), [events for _, events in told])
    operators = [
        {"name": one.name, "kind": one.kind, "ns": median(table[at].ms for table in tables) * 1e6, "place": "CPU"}
        for at, one in enumerate(tables[0])
    ]
    return {"version": version, "call_ns": sum(one["ns"] for one in operators), "operators": operators}


def believed(summary: Sequence[Row], calls: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """The events of each call, where they add up to the summary of all; else the mean call that this tells of."""
    if _agree(summary, [event for events in calls for event in events]):
        return list(calls)
    return [[one._replace(ms=one.ms / len(calls)) for one in summary]]


def _agree(summary: Sequence[Row], events: Sequence[Row]) -> bool:
    """Whether there are as many of each kind, and their times are the same but for what the summary rounds."""
    for kind in {one.kind for one in (*summary, *events)}:
        mine, theirs = ([one for one in rows if one.kind == kind] for rows in (summary, events))
        times = sum(one.times for one in mine)
        off = sum(one.ms for one in mine) - sum(one.ms for one in theirs)
        if times != len(theirs) or abs(off) * 1e3 > _US_OF_ROUNDING * times:
            return False
    return True


def read_summary(text: str) -> list[Row]:
    """The operators in the order they first ran, of a summary of LiteRT's profiler."""
    rows = []
    for line in text.partition("Run Order")[2].partition("Top by")[0].splitlines():
        match = _ROW.match(line)
        if match:
            times = int(match["times"])
            rows.append(Row(match["kind"].removeprefix("Delegate/"), match["name"], float(match["ms"]) * times, times))
    return rows


def read_events(buffer: Any, number: int) -> list[Row]:
    """The operators in the order they ran, of what LiteRT wrote into a buffer; none if that is not as it should be.

    Args:
        buffer: a ctypes array, `_UNTOUCHED` again and again before.
        number: of events in it.
    """
    words = bytes(buffer)
    written = len(words) // _WORD
    while written and words[(written - 1) * _WORD : written * _WORD] == _UNTOUCHED:
        written -= 1
    length = written // number * _WORD if number else 0
    if length < sizeof(_Event) or written % number:
        return []
    events = [_Event.from_buffer(buffer, at * length) for at in range(number)]
    if not {one.type for one in events} <= _ALL_EVENTS:
        return []  # before any of what should be a tag is followed
    ran = [one for one in events if one.type in _OPERATORS]
    return [Row((one.tag or b"").decode(), str(at), one.elapsed_us / 1e3) for at, one in enumerate(ran)]


class _Model:
    """A compiled model with its profiler; lives as long as the process, which does nothing else."""

    def __init__(self, library: Any, path: str, threads: int) -> None:
        self._library = library
        self._environment, self._source, options = c_void_p(), c_void_p(), c_void_p()
        self._do("LiteRtCreateEnvironment", c_int(0), None, byref(self._environment))
        self._do("LiteRtCreateModelFromFile", self._environment, path.encode(), byref(self._source))
        self._do("LiteRtCreateOptions", byref(options))
        self._do("LiteRtSetOptionsHardwareAccelerators", options, c_int(_CPU))
        self._kept: list[Any] = []  # what the library holds pointers to
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        self._add(options, "xnnpack", f"num_threads = {threads}\n")  # litert_cpu_options.cc
        self._compiled, self._profiler = c_void_p(), c_void_p()
        self._do("LiteRtCreateCompiledModel", self._environment, self._source, options, byref(self._compiled))
        self._do("LiteRtCompiledModelGetProfiler", self._compiled, byref(self._profiler))
        self._input, self._output = self._buffer("Input"), self._buffer("Output")

    def feed(self, image: np.ndarray) -> None:
        """Put an image, as the file wants it, into the input."""
        size, there = c_size_t(), c_void_p()
        self._do("LiteRtGetTensorBufferPackedSize", self._input, byref(size))
        if size.value != image.nbytes:
            raise UnfitError(
                f"its input is of {size.value} bytes, the image of {image.nbytes}",
                "Files of one input can be profiled.",
            )
        self._do("LiteRtLockTensorBuffer", self._input, byref(there), c_int(_WRITE))
        memmove(there, image.ctypes.data, image.nbytes)
        self._do("LiteRtUnlockTensorBuffer", self._input)

    def run(self) -> None:
        """One inference."""
        one, sources, sinks = c_size_t(1), (c_void_p * 1)(self._input), (c_void_p * 1)(self._output)
        self._do("LiteRtRunCompiledModel", self._compiled, c_size_t(0), one, sources, one, sinks)

    def profiled_run(self) -> tuple[str, list[Row]]:
        """One inference, and what the profiler says: its summary of all so far, and the events of this one."""
        said, number = c_char_p(), c_int()
        self._do("LiteRtResetProfiler", self._profiler)
        self._do("LiteRtStartProfiler", self._profiler)
        self.run()
        self._do("LiteRtStopProfiler", self._profiler)
        self._do("LiteRtGetProfileSummary", self._profiler, self._compiled, byref(said))
        self._do("LiteRtGetNumProfilerEvents", self._profiler, byref(number))
        size = number.value * _LONGEST_EVENT * _WORD
        buffer = create_string_buffer(_UNTOUCHED * (size // _WORD), size)
        if number.value:  # asked for none, it calls the buffer too small
            self._do("LiteRtGetProfilerEvents", self._profiler, number, buffer)
        return (said.value or b"").decode(), read_events(buffer, number.value)

    def _add(self, options: c_void_p, name: str, text: str) -> None:
        payload, opaque = create_string_buffer(text.encode()), c_void_p()
        deleter = CFUNCTYPE(None, c_void_p)(lambda _: None)
        self._kept += [payload, deleter]
        self._do("LiteRtCreateOpaqueOptions", name.encode(), cast(payload, c_void_p), deleter, byref(opaque))
        self._do("LiteRtAddOpaqueOptions", options, opaque)

    def _buffer(self, side: str) -> c_void_p:
        graph, tensor, needs, buffer = c_void_p(), c_void_p(), c_void_p(), c_void_p()
        kind = create_string_buffer(256)  # a LiteRtRankedTensorType, 72 bytes, only handed on
        self._do("LiteRtGetModelSubgraph", self._source, c_size_t(0), byref(graph))
        self._do(f"LiteRtGetSubgraph{side}", graph, c_size_t(0), byref(tensor))
        self._do("LiteRtGetRankedTensorType", tensor, kind)
        self._do(
            f"LiteRtGetCompiledModel{side}BufferRequirements", self._compiled, c_size_t(0), c_size_t(0), byref(needs)
        )
        self._do("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs, byref(buffer))
        return buffer

    def _do(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RuntimeError(f"{function} failed with status {status}")
