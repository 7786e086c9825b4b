"""A file run on this machine, in its own runtime: images in the model's layout in, float outputs in its layout out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.artifact import Artifact
from edgeprune.errors import EdgepruneError, MissingExtraError, ParityError, UsageError
from edgeprune.export.onnx_run import session_of
from edgeprune.export.onnx_store import Stored
from edgeprune.export.quiet import quiet
from edgeprune.tflite_graph import operators_of
from edgeprune.worker import infer
from edgeprune.worker.loaded import arranged

Array = npt.NDArray[np.float32]
Run = Callable[[Array], list[Array]]
"""Computes a file's outputs, in the model's own layout, for one image [1, channels, height, width]."""


def outputs_of(artifact: Artifact, run: Path, images: Array) -> list[Array]:
    """A file's outputs for images, one image at a time, as a board would.

    Args:
        artifact: the file, of which `path` is in the folder `run`.
        run: the run folder.
        images: normalised as the model wants them, float32 [n, channels, height, width].

    Returns:
        Each output, float32 [n, ...].

    Raises:
        ParityError: the file cannot be run.
        UsageError: there is no runtime here for its format.
        MissingExtraError: the format's runtime is not installed.
    """
    with _running(artifact):
        compute, images = opened(artifact.format, run / artifact.path), fed(artifact, images)
        rows = [compute(np.ascontiguousarray(images[place : place + 1])) for place in range(len(images))]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def witness_of(artifact: Artifact, run: Path, images: Array) -> list[Array] | None:
    """The same outputs by kernels written apart from those that boards run: TFLite's reference kernels, plain loops.

    Returns:
        Each output; None for a format of which there is one implementation here, and for a file with an operator that
        the reference kernels are known to compute wrongly.
    """
    if artifact.format != "tflite":
        return None
    with _running(artifact, by="the format's reference kernels"):
        content = (run / artifact.path).read_bytes()
        if _sums_bytes(content):
            return None
        compute, images = _litert(content, reference=True), fed(artifact, images)
        rows = [compute(np.ascontiguousarray(images[place : place + 1])) for place in range(len(images))]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _sums_bytes(content: bytes) -> bool:
    """Whether a TFLite file adds int8 numbers along an axis (SUM).

    The reference kernel takes them for uint8, up to ai-edge-litert 2.3.0 at least (google-ai-edge/LiteRT, issue 4079);
    the kernels that boards run do not.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    sums = (one for kind, one in operators_of(model, graph) if kind == "SUM")
    return any(graph.Tensors(one.Inputs(0)).Type() == schema.TensorType.INT8 for one in sums)


def classes_of(artifact: Artifact, run: Path, batches: Iterable[Array]) -> Iterator[npt.NDArray[np.int64]]:
    """The highest class of each image by a file's first output, batch by batch, int64 [n] each.

    Args:
        artifact: see `outputs_of`; its errors are raised here, too.
        run: the run folder.
        batches: normalised as the model wants them, float32 [n, channels, height, width] each.
    """
    with _running(artifact):
        compute = opened(artifact.format, run / artifact.path)
    for batch in batches:
        with _running(artifact):
            batch = fed(artifact, batch)
            rows = [compute(np.ascontiguousarray(batch[place : place + 1]))[0] for place in range(len(batch))]
        yield np.concatenate(rows).argmax(axis=1)


def fed(artifact: Artifact, images: Array) -> Array:
    """Normalised images as the runs here want them of a file: pixels from 0 to 1 where it normalises itself."""
    return arranged(images, "NCHW", artifact.folded)


def opened(form: str, file: Stored) -> Run:
    """A file made ready to run.

    Raises:
        UsageError: there is no runtime here for its format.
        MissingExtraError: the format's runtime is not installed.
        Exception: whatever the runtime raises of a file that it cannot read.
    """
    if form not in _OPENERS:
        raise UsageError(f"no runtime here to check a file of format {form!r}", fix=f"Known: {', '.join(_OPENERS)}")
    return _OPENERS[form](file)


@contextmanager
def _running(artifact: Artifact, by: str = "") -> Iterator[None]:
    """Keep a runtime quiet, and tell what it says of a file that it cannot run. `by`: what runs it, in words."""
    try:
        with quiet():
            yield
    except (EdgepruneError, MemoryError):
        raise
    except Exception as error:  # runtimes raise unrelated classes for a file they cannot read or run
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
        raise failed(artifact, f"{by or artifact.runtime} cannot run it: {reason}") from error


def failed(artifact: Artifact, where: str) -> ParityError:
    """What to say of a file that is not handed over."""
    if artifact.precision == "fp32":
        ways = "Choose another format with --formats, and please report the model."
    elif artifact.precision == "int8":
        more = "Allow fewer points with" if "mixed" in artifact.details else "Add"
        ways = f"{more} --max-drop: layers that cost too much stay in float. Or leave int8 out of --precisions."
    else:
        ways = f"Leave {artifact.precision} out of --precisions, or choose another format."
    what = f"{artifact.path} does not compute what the model computes"
    return ParityError(what, where=where, fix=f"It is not handed over. {ways}")


def _onnxruntime(file: Stored) -> Run:
    session = session_of(file)
    entry = session.get_inputs()[0]

    def compute(image: Array) -> list[Array]:
        outputs: list[Array] = session.run(None, {entry.name: onnx_input(image, entry.type)})
        return outputs

    return compute


def onnx_input(images: Array, kind: str) -> npt.NDArray[Any]:
    """Images in the type that an ONNX file takes: those that take bytes take them channels last."""
    raw = kind == "tensor(uint8)"
    return infer.stored(images.transpose(0, 2, 3, 1), np.uint8, infer.PIXEL, 0) if raw else images


def _litert(file: Stored, *, reference: bool = False) -> Run:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise MissingExtraError("tflite", "checking a TFLite file") from error
    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    content = file if isinstance(file, bytes) else file.read_bytes()
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    entry, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()

    def compute(image: Array) -> list[Array]:
        interpreter.set_tensor(entry["index"], np.ascontiguousarray(stored(image.transpose(0, 2, 3, 1), entry)))
        interpreter.invoke()
        values = [meant(interpreter.get_tensor(output["index"]), output) for output in outputs]
        return [value.transpose(0, 3, 1, 2) if value.ndim == 4 else value for value in values]

    return compute


def stored(values: Array, tensor: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Numbers as a tensor of the file holds them: integers in steps of its scale, where it has one."""
    return infer.stored(values, tensor["dtype"], *tensor["quantization"])


def meant(values: npt.NDArray[Any], tensor: Mapping[str, Any]) -> Array:
    """What the numbers that a tensor of the file holds stand for."""
    return infer.meant(values, *tensor["quantization"])


_OPENERS: Mapping[str, Callable[[Stored], Run]] = {"onnx": _onnxruntime, "tflite": _litert}
