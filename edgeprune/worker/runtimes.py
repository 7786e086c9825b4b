"""The runtimes a file can be timed in, each with what executes it. A new one is a function and a row in `RUNTIMES`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgeprune.worker.litert import load_litert, load_litert_gpu
from edgeprune.worker.litert_profile import profile_litert
from edgeprune.worker.loaded import LoadedModel
from edgeprune.worker.onnx_profile import profile_onnxruntime
from edgeprune.worker.onnx_session import load_onnxruntime
from edgeprune.worker.trtexec import find_trtexec, load_trtexec, profile_trtexec

Profiler = Callable[[str, int, np.ndarray, int], "dict[str, Any]"]


@dataclass(frozen=True)
class Runtime:
    """A row of the table.

    Attributes:
        format: of the files it reads, "onnx" or "tflite".
        part_of: what is installed to have it: "onnxruntime", "litert", "trtexec".
        module: what must be importable; empty for a program.
        load: (path, threads) -> LoadedModel.
        accelerator: it computes elsewhere than on the CPU: threads change nothing, and numbers may be coarser than
            the file's (TF32, fp16).
        profile: (path, threads, image, calls) -> version, call_ns and operators, see `edgeprune.worker.onnx_profile`;
            None where its Python package offers none.
        builds: it builds an engine of each new file first, which can take many minutes on a board.
    """

    format: str
    part_of: str
    module: str
    load: Callable[[str, int], LoadedModel]
    profile: Profiler | None
    accelerator: bool = False
    builds: bool = False

    def installed(self) -> bool:
        """Whether the runtime is there (it is not imported)."""
        if not self.module:
            return find_trtexec() is not None
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # the parent package is missing
            return False


def _provider(name: str, *, accelerator: bool, builds: bool = False) -> Runtime:
    return Runtime(
        "onnx",
        "onnxruntime",
        "onnxruntime",
        partial(load_onnxruntime, provider=name),
        partial(profile_onnxruntime, provider=name),
        accelerator,
        builds,
    )


RUNTIMES = {
    "onnxruntime": Runtime("onnx", "onnxruntime", "onnxruntime", load_onnxruntime, profile_onnxruntime),
    "onnxruntime-xnnpack": _provider("XnnpackExecutionProvider", accelerator=False),
    "onnxruntime-cuda": _provider("CUDAExecutionProvider", accelerator=True),
    "onnxruntime-tensorrt": _provider("TensorrtExecutionProvider", accelerator=True, builds=True),
    "tensorrt": Runtime("onnx", "trtexec", "", load_trtexec, profile_trtexec, accelerator=True, builds=True),
    "litert": Runtime("tflite", "litert", "ai_edge_litert.interpreter", load_litert, profile_litert),
    "litert-gpu": Runtime("tflite", "litert", "ai_edge_litert.compiled_model", load_litert_gpu, None, accelerator=True),
}
"""Name -> how to load a file into it. The first of a format is its default."""
