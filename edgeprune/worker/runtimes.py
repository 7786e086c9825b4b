"""The runtimes a file can be timed in. A new one is a function and a row in `RUNTIMES`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LoadedModel:
    """A file, loaded and ready.

    Attributes:
        version: of the runtime.
        prepare: one image, float32 [1, ...] in the file's layout, to what `run` takes; not timed.
        run: one inference, from an input in memory to the first output in memory; this is what is timed.
    """

    version: str
    prepare: Callable[[np.ndarray], Any]
    run: Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Runtime:
    """A row of the table.

    Attributes:
        module: what must be importable.
        load: (path, threads) -> LoadedModel.
    """

    module: str
    load: Callable[[str, int], LoadedModel]

    def installed(self) -> bool:
        """Whether the runtime is there (it is not imported)."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # the parent package is missing
            return False


def load_onnxruntime(path: str, threads: int) -> LoadedModel:
    """Load an ONNX file into onnxruntime's CPU provider, operators one after another."""
    # From 1.29 on it tells its makers of every import, and its uploader's thread would be timed too.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # The pool's threads spin while they wait for work, also after a call has returned, and would steal the cores of
    # the file that is measured next. This lets them spin within a call and stops them at its end
    # (onnxruntime_session_options_config_keys.h).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, kind = session.get_inputs()[0].name, session.get_inputs()[0].type
    dtypes = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    if kind not in dtypes:
        raise ValueError(f"input {name!r} is a {kind}; float and float16 inputs are supported")
    output = [session.get_outputs()[0].name]

    def prepare(image: np.ndarray) -> Any:
        return {name: np.ascontiguousarray(image, dtype=dtypes[kind])}

    def run(feed: Any) -> np.ndarray:
        return np.asarray(session.run(output, feed)[0])

    return LoadedModel(str(onnxruntime.__version__), prepare, run)


def load_litert(path: str, threads: int) -> LoadedModel:
    """Load a TFLite file into LiteRT with its XNNPACK kernels."""
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    dtype, (scale, zero) = entry["dtype"], entry["quantization"]

    def prepare(image: np.ndarray) -> Any:
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            image = np.clip(np.round(image / scale + zero), limits.min, limits.max)
        return np.ascontiguousarray(image, dtype=dtype)

    def run(image: Any) -> np.ndarray:
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output))

    return LoadedModel(str(ai_edge_litert.__version__), prepare, run)


RUNTIMES = {
    "onnxruntime": Runtime("onnxruntime", load_onnxruntime),
    "litert": Runtime("ai_edge_litert.interpreter", load_litert),
}
"""Name -> how to load a file into it."""
