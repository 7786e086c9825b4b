"""ONNX to TFLite through TensorFlow: for what litert-torch cannot convert, and where it cannot be installed.

A converter that is kept up exists (onnx2tf), but it wants other versions of everything and files from the internet.
`convert` imports TensorFlow and prints; it is called in the other process (`edgeprune.export.child`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import ExportError, MissingExtraError
from edgeprune.export.child import RefusedError, apart
from edgeprune.export.graph import conversion_error
from edgeprune.export.tflite_layout import laid_out


def tensorflow_file(
    onnx_content: bytes,
    precision: str = "fp32",
    images: npt.NDArray[np.float32] | None = None,
    *,
    integer_ends: bool = False,
) -> bytes:
    """An ONNX file of one image input and fixed sizes as TFLite: NHWC images in, NHWC images out.

    Args:
        onnx_content: the file.
        precision: "fp32", or see `edgeprune.export.tflite_quantise.quantised`; TensorFlow's own quantizer does it here.
        images: to calibrate int8 with, float32 [n >= 1, channels, height, width].
        integer_ends: whether input and output of an int8 file are int8.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        ExportError: an operator has no form here, or the converter crashed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtraError("tensorflow", "TFLite by TensorFlow")
    try:
        content: bytes = apart(
            "edgeprune.export.tensorflow_graph:convert", onnx_content, precision, images, integer_ends
        )
    except RefusedError as refused:
        if refused.kind in ("ImportError", "ModuleNotFoundError"):
            fix = "pip install --force-reinstall 'edgeprune[tensorflow]'"
            raise ExportError("TensorFlow cannot be imported", where=refused.text[:300], fix=fix) from refused
        what = "the model cannot be written as TFLite by TensorFlow"
        raise conversion_error(what, refused.kind, refused.text, said=refused.said) from refused
    return content


def convert(onnx_content: bytes, precision: str, images: npt.NDArray[np.float32] | None, integer_ends: bool) -> bytes:
    """Convert a file; see `tensorflow_file`."""
    import tensorflow as tf

    function = _frozen(onnx_content)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        assert images is not None
        converter.representative_dataset = _calibration(images)
        kinds = tf.lite.OpsSet
        converter.target_spec.supported_ops = [kinds.TFLITE_BUILTINS_INT8] + (
            [] if integer_ends else [kinds.TFLITE_BUILTINS]
        )
        if integer_ends:
            converter.inference_input_type = converter.inference_output_type = tf.int8
    return laid_out(converter.convert())


def _calibration(images: npt.NDArray[np.float32]) -> Callable[[], Iterator[list[npt.NDArray[np.float32]]]]:
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return lambda: ([last[place : place + 1]] for place in range(len(last)))


def _frozen(onnx_content: bytes) -> Any:
    """The network as a TensorFlow function without variables: weights are constants of it.

    The converter takes one with variables too, and writes a file that gives NaN.
    """
    import onnx
    import tensorflow as tf

    from edgeprune.export.tensorflow_values import Value, images, plain

    graph = onnx.load_from_string(onnx_content).graph
    stored = {tensor.name: Value(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    (entry,) = (one for one in graph.input if one.name not in stored)
    batch, channels, height, width = (axis.dim_value for axis in entry.type.tensor_type.shape.dim)

    def network(image: Any) -> tuple[Any, ...]:
        values = {**stored, entry.name: Value(image, last=True)}
        for node in graph.node:
            values.update(zip(node.output, _computed(node, values), strict=False))
        outputs = [values[one.name] for one in graph.output]
        ends = [images(value) if len(value.shape) == 4 else plain(value) for value in outputs]
        return tuple(tf.identity(tensor) for tensor in ends)

    shape = tf.TensorSpec([batch or 1, height, width, channels], tf.float32, name=entry.name)
    function = tf.function(network, input_signature=[shape], autograph=False).get_concrete_function()
    assert not function.variables
    return function


def _computed(node: Any, values: dict[str, Any]) -> list[Any]:
    """The outputs of one node."""
    import onnx

    from edgeprune.export.tensorflow_operators import OPERATORS

    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        raise NotImplementedError(f"no TensorFlow form is known for the ONNX operator {node.op_type} ({node.name})")
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    inputs = [values[name] if name else None for name in node.input]
    try:
        found = OPERATORS[node.op_type](inputs, attributes)
    except NotImplementedError as error:
        raise NotImplementedError(f"no TensorFlow form is known for {node.op_type} ({node.name}): {error}") from None
    return found if isinstance(found, list) else [found]
