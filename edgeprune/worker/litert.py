"""TFLite files in LiteRT, on the processor or on a GPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.worker.infer import stored
from edgeprune.worker.loaded import LoadedModel, UnfitError

GPU_DEVICES = ("dri/renderD*", "nvidia[0-9]*", "nvhost-gpu", "nvgpu", "mali*", "kgsl-3d0")
"""In /dev: what a GPU's driver shows under Linux. Without any, Vulkan can only be one that computes on the CPU."""
_TOO_NEW = re.compile(r"Didn't find op for builtin opcode ('\w+' version '\d+')")
_UPDATE = "Update ai-edge-litert there."
_GPU_NEEDS = "It takes a GPU with a Vulkan or OpenCL driver that knows the file's operators; or leave litert-gpu out."


def load_litert(path: str, threads: int) -> LoadedModel:
    """Load a TFLite file into LiteRT with its XNNPACK kernels.

    Raises:
        UnfitError: the file is too new for it.
    """
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    version = str(ai_edge_litert.__version__)
    try:
        interpreter = Interpreter(model_path=path, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        newer = _TOO_NEW.search(str(error))
        if newer is None:
            raise
        raise UnfitError(f"LiteRT {version} is too old for the file: it has no {newer[1]}", _UPDATE) from error
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]

    def run(image: Any) -> np.ndarray:
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output))

    scale, zero_point = entry["quantization"]

    def prepare(image: np.ndarray) -> np.ndarray:
        return stored(image, entry["dtype"], scale, zero_point)

    return LoadedModel(version, prepare, run, lambda: {"CPU": 1.0})


def load_litert_gpu(path: str, threads: int) -> LoadedModel:  # noqa: ARG001
    """Load a TFLite file into LiteRT's compiled model, all of it on the GPU.

    The CPU is not offered to it: LiteRT then refuses a file that the GPU cannot execute as a whole, and no share of the
    work can be somewhere else unseen. It computes in fp16 where the GPU can.

    Args:
        path: the file; its input and output are float32.
        threads: not used; every runtime is loaded alike.

    Raises:
        UnfitError: there is no GPU that LiteRT can use, or it cannot execute the whole file.
    """
    import ai_edge_litert
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator

    version = str(ai_edge_litert.__version__)
    if not any(next(Path("/dev").glob(pattern), None) for pattern in GPU_DEVICES):
        raise UnfitError("this machine shows no GPU device", _GPU_NEEDS)
    try:
        model = CompiledModel.from_file(path, hardware_accel=HardwareAccelerator.GPU)
    except RuntimeError as error:
        raise UnfitError(f"LiteRT {version} cannot put the whole file on a GPU here", _GPU_NEEDS) from error
    if not model.is_fully_accelerated():
        raise UnfitError(
            f"LiteRT {version} put only a part of the file on the GPU, and does not say how much of it", _GPU_NEEDS
        )
    signature, names = next(iter(model.get_signature_list().items()))
    (entry,) = model.get_input_tensor_details(signature).values()
    result = model.get_output_tensor_details(signature)[names["outputs"][0]]
    if {entry["dtype"], result["dtype"]} != {"float32"}:
        raise ValueError(f"input is {entry['dtype']}, output {result['dtype']}; float32 is supported on the GPU")
    source = {name: model.create_input_buffer_by_name(signature, name) for name in names["inputs"]}
    sink = {name: model.create_output_buffer_by_name(signature, name) for name in names["outputs"]}
    feed, fetch, shape = next(iter(source.values())), sink[names["outputs"][0]], tuple(result["shape"])

    def run(image: Any) -> np.ndarray:
        feed.write(image)
        model.run_by_name(signature, source, sink)
        return np.asarray(fetch.read(int(np.prod(shape)), np.float32)).reshape(shape)

    def prepare(image: np.ndarray) -> np.ndarray:
        return stored(image, np.float32, None, None)

    return LoadedModel(version, prepare, run, lambda: {"GPU": 1.0})
