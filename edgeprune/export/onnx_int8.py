"""ONNX in int8: quantise and dequantise around each operator (QDQ), weights per channel, by ONNX Runtime's quantizer.

Which range of values an activation gets is decided by three ways to calibrate; the one whose outputs are nearest to the
fp32 file's, on images that none of them saw, is taken. For x86 weights of 7 bits are tried as well, in the same way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.export.calibration import Calibration
from edgeprune.export.execute import Run, opened
from edgeprune.export.mixed import Making, Operator, layers_of
from edgeprune.export.onnx_run import session_of
from edgeprune.export.onnx_sort import sort_nodes
from edgeprune.export.onnx_store import Stored, is_large, ready, save
from edgeprune.export.race import settled
from edgeprune.target import Target

Array = npt.NDArray[np.float32]
METHODS = ("minmax", "percentile", "entropy")
"""The extremes that occur; all but one value in 100,000 of them; the range that loses least information."""
_CHUNK = 4
"""Images whose activations are held at once."""
_HISTOGRAM_IMAGES = 64
"""Histograms are made of so many images at most: they take a hundred times as long as extremes."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Activations:
    """How activations are stored; weights are int8 in 7 or 8 bits, symmetric and per channel always.

    Attributes:
        signed: as int8, else as uint8.
        symmetric: with zero in the middle of the range.
    """

    signed: bool
    symmetric: bool

    @property
    def name(self) -> str:
        """As in the literature, activations first: "U8S8" or "S8S8"."""
        return "S8S8" if self.signed else "U8S8"


def activations_for(target: Target) -> Activations:
    """What a board's processor and runtimes want.

    x86 multiplies unsigned by signed bytes: with signed activations int8 is slower there than fp32. ARM multiplies
    signed by signed. Zero in the middle of the range leaves what comes out of a ReLU, which is never negative, half of
    the 256 steps, so it is there only where a runtime takes nothing else, as TensorRT does. ONNX Runtime works an
    activation's zero into the sums when it loads a file; only that of weights decides which kernel it takes
    (`TryConvSymPrepack` of its qlinearconv.cc).
    """
    x86 = target.arch in ("x86_64", "i686")
    return Activations(signed=not x86, symmetric=target.int8_symmetric)


def quantised(proto: Any, calibration: Calibration, activations: Activations) -> tuple[Any, dict[str, Any]]:
    """The same network in int8, float32 in and out.

    Args:
        proto: a ModelProto in float32; weights too large for one file leave it.
        calibration: whose values are looked at, and what to choose by.
        activations: how they are stored.

    Returns:
        The new ModelProto, and what to tell: the activations' type, the way it was calibrated, for each way the error
        of the outputs with weights of 8 bits, as a share of the size of the fp32 file's, in how many bits weights are,
        the error then, and where layers may stay in float, what `edgeprune.export.race.settled` found.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        given, prepared = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        large = is_large(proto)
        save(proto, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True, save_as_external_data=large)
        _name_nodes(prepared)
        expected = _outputs(given, calibration.held_out)
        ranges, files, errors = {}, {}, {}
        for method in METHODS:
            ranges[method] = _ranges(prepared, calibration.images, method, activations, large)
            files[method] = _in_int8(prepared, ranges[method], activations)
            errors[method] = _error(expected, _outputs_of(files[method], calibration.held_out))
        best = min(METHODS, key=lambda method: errors[method])
        file, told, bits, error = files[best], dict[str, Any](), 8, errors[best]
        if not activations.signed:
            narrow = _in_int8(prepared, ranges[best], activations, bits=7)
            other = _error(expected, _outputs_of(narrow, calibration.held_out))
            file, bits, error = (narrow, 7, other) if other < error else (file, bits, error)
        if calibration.goal or calibration.race:
            making = _making(prepared, ranges[best], activations, bits)
            file, told = settled(making, calibration.goal, calibration.race)
    told |= {"activations": activations.name, "symmetric": activations.symmetric, "calibration": best}
    told |= {"weight_bits": bits, "error": round(error, 6)}
    return file, {**told, "errors": {method: round(error, 6) for method, error in errors.items()}}


def _name_nodes(path: Path) -> None:
    """Give each node a name of its own, by which it can be left in float."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    names = [node.name for node in model.graph.node]
    if "" in names or len(set(names)) < len(names):
        for place, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{place}"
        onnx.save(model, path)


def _making(prepared: Path, ranges: Any, activations: Activations, bits: int) -> Making[Any]:
    import onnx

    graph = onnx.load(prepared, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    layers = layers_of(_operator(node, stored) for node in graph.node)

    def write(in_float: Set[str]) -> Any:
        nodes = [key for name, keys in layers.items() if name in in_float for key in keys]
        return _in_int8(prepared, ranges, activations, nodes, bits)

    return Making(tuple(layers), write, _run, "onnx", _save)


def _run(proto: Any) -> Run:
    with ready(proto) as file:
        return opened("onnx", file)


def _save(proto: Any, path: Path) -> None:
    copied = type(proto)()
    copied.CopyFrom(proto)
    save(copied, path)


def _operator(node: Any, stored: Set[str]) -> Operator:
    """A node; that of a layer is called as its weights are, without ".weight"."""
    weights = [name for name in node.input[:2] if name in stored] if node.op_type in _LAYERS else []
    layer = weights[0].removesuffix(".weight") if weights else ""
    return Operator(node.name, tuple(node.input), tuple(node.output), layer)


def _ranges(prepared: Path, images: Array, method: str, activations: Activations, large: bool) -> Any:
    """The range of each activation by one of `METHODS`; `large`: the prepared file's weights lie beside it."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    kinds = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    with tempfile.TemporaryDirectory(dir=prepared.parent) as folder:
        calibrator = create_calibrator(
            prepared,
            _operators(),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=kinds[method],
            use_external_data_format=large,
            extra_options={"symmetric": activations.symmetric},
        )
        shown = images if method == "minmax" else images[:_HISTOGRAM_IMAGES]
        for start in range(0, len(shown), _CHUNK):  # what is collected in one go is held in memory
            calibrator.collect_data(_Reader(shown[start : start + _CHUNK]))
        return calibrator.compute_data()


class _Reader:
    """Images one by one, as ONNX Runtime's calibrators want them."""

    def __init__(self, images: Array) -> None:
        self._feeds: Iterator[Mapping[str, Array]] = ({"input": image[None]} for image in images)

    def get_next(self) -> Mapping[str, Array] | None:
        return next(self._feeds, None)


def _in_int8(prepared: Path, ranges: Any, activations: Activations, in_float: Sequence[str] = (), bits: int = 8) -> Any:
    """The prepared file quantised, but for the nodes of these names.

    Weights of 7 bits cannot saturate where x86 without VNNI adds two products of bytes in 16 bits.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    quantizer = QDQQuantizer(
        load_model_with_shape_infer(prepared),
        per_channel=True,
        reduce_range=bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if activations.signed else QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=list(in_float),
        op_types_to_quantize=_operators(),
        extra_options={"ActivationSymmetric": activations.symmetric},
    )
    quantizer.quantize_model()
    written = quantizer.model.model
    sort_nodes(written.graph)
    return written


def _operators() -> list[str]:
    """All that ONNX Runtime can quantise."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def _outputs_of(proto: Any, images: Array) -> list[Array]:
    with ready(proto) as file:
        return _outputs(file, images)


def _outputs(file: Stored, images: Array) -> list[Array]:
    session = session_of(file)
    rows = [session.run(None, {"input": images[at : at + 1]}) for at in range(len(images))]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _error(expected: list[Array], got: list[Array]) -> float:
    """The root of the squared difference of all outputs, as a share of that of the expected ones; infinite for NaN."""
    difference = sum(
        float(((one - other).astype(np.float64) ** 2).sum()) for one, other in zip(expected, got, strict=True)
    )
    size = sum(float((one.astype(np.float64) ** 2).sum()) for one in expected)
    error = float(np.sqrt(difference / size)) if size else float(np.sqrt(difference))
    return error if np.isfinite(error) else float("inf")
