"""What each operator of a TFLite file takes, by LiteRT's own profiler.

LiteRT's Python package has no door to its profiler, so this takes the one of its C library (litert/c/litert_profiler.h,
litert_compiled_model.h). Only handles and its text summary cross over, no structs: their layout changes with versions.
"""

from __future__ import annotations

import re
from ctypes import CDLL, CFUNCTYPE, byref, c_char_p, c_int, c_size_t, c_void_p, cast, create_string_buffer, memmove
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeprune.worker.litert import load_litert
from edgeprune.worker.loaded import UnfitError

LIBRARY = "libLiteRt.so"
"""Beside the package's modules, from version 2 on."""
WARM_UP_CALLS = 10
_CPU = 1  # LiteRtHwAccelerators
_WRITE = 1  # LiteRtTensorBufferLockMode
_ROW = re.compile(
    r"^\s*(?P<kind>\S.*?)" + r"\s+[\d.]+" * 2 + r"\s+(?P<ms>[\d.]+)\s+[\d.]+%\s+[\d.]+%\s+\S+\s+\d+\s+(?P<name>\S.*)$"
)
_NEEDED = ("LiteRtGetProfileSummary", "LiteRtCompiledModelGetProfiler", "LiteRtGetRankedTensorType")


def profile_litert(path: str, threads: int, image: np.ndarray, calls: int) -> dict[str, Any]:
    """Profile a file in LiteRT with its XNNPACK kernels.

    Args:
        path: the file, of one input and one output.
        threads: for the runtime to use.
        image: float32 [1, ...] in the file's layout.
        calls: how many to take the medians of.

    Returns:
        version, call_ns (the sum of its operators: LiteRT times no whole) and operators in the order they ran: name,
        kind, ns (median over the calls, without fractions of a microsecond), place.

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
    tables = [read_summary(model.profiled_run()) for _ in range(calls)]
    operators = [
        {"name": name, "kind": kind, "ns": median(table[at][2] for table in tables) * 1e6, "place": "CPU"}
        for at, (kind, name, _) in enumerate(tables[0])
    ]
    return {"version": version, "call_ns": sum(one["ns"] for one in operators), "operators": operators}


def read_summary(text: str) -> list[tuple[str, str, float]]:
    """(kind, name, milliseconds) of each operator in the order they ran, of a summary of LiteRT's profiler."""
    rows = []
    for line in text.partition("Run Order")[2].partition("Top by")[0].splitlines():
        match = _ROW.match(line)
        if match:
            rows.append((match["kind"].removeprefix("Delegate/"), match["name"], float(match["ms"])))
    return rows


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

    def profiled_run(self) -> str:
        """One inference, and what the profiler says of it."""
        said = c_char_p()
        self._do("LiteRtResetProfiler", self._profiler)
        self._do("LiteRtStartProfiler", self._profiler)
        self.run()
        self._do("LiteRtStopProfiler", self._profiler)
        self._do("LiteRtGetProfileSummary", self._profiler, self._compiled, byref(said))
        return (said.value or b"").decode()

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
