"""The runtimes a file can be timed in, each with what executes it. A new one is a function and a row in `RUNTIMES`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from edgeprune.worker.litert import load_litert, load_litert_gpu
from edgeprune.worker.loaded import LoadedModel
from edgeprune.worker.onnx_session import load_onnxruntime


@dataclass(frozen=True)
class Runtime:
    """A row of the table.

    Attributes:
        format: of the files it reads, "onnx" or "tflite".
        module: what must be importable.
        load: (path, threads) -> LoadedModel.
        accelerator: it computes elsewhere than on the CPU: threads change nothing, and numbers may be coarser than
            the file's (TF32, fp16).
    """

    format: str
    module: str
    load: Callable[[str, int], LoadedModel]
    accelerator: bool = False

    def installed(self) -> bool:
        """Whether the runtime is there (it is not imported)."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # the parent package is missing
            return False


def _provider(name: str, *, accelerator: bool) -> Runtime:
    return Runtime("onnx", "onnxruntime", partial(load_onnxruntime, provider=name), accelerator)


RUNTIMES = {
    "onnxruntime": Runtime("onnx", "onnxruntime", load_onnxruntime),
    "onnxruntime-xnnpack": _provider("XnnpackExecutionProvider", accelerator=False),
    "onnxruntime-cuda": _provider("CUDAExecutionProvider", accelerator=True),
    "onnxruntime-tensorrt": _provider("TensorrtExecutionProvider", accelerator=True),
    "litert": Runtime("tflite", "ai_edge_litert.interpreter", load_litert),
    "litert-gpu": Runtime("tflite", "ai_edge_litert.compiled_model", load_litert_gpu, accelerator=True),
}
"""Name -> how to load a file into it. The first of a format is its default."""
