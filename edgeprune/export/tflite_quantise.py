"""Smaller numbers in a TFLite file, by ai-edge-quantizer: a float file becomes one with fp16 or int8 weights.

`half`, `ranges`, `static` and `dynamic` import it and print; they are called in the other process
(`edgeprune.export.child`).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import MissingExtraError
from edgeprune.export.child import RefusedError, apart
from edgeprune.export.graph import conversion_error
from edgeprune.export.tflite_biases import halved_biases
from edgeprune.export.tflite_layout import laid_out

_HERE = "edgeprune.export.tflite_quantise"
_ALL = ".*"


def quantised(
    content: bytes, precision: str, images: npt.NDArray[np.float32] | None = None, *, integer_ends: bool = False
) -> bytes:
    """A float TFLite file in another precision.

    Args:
        content: the file, of one float32 NHWC input.
        precision: "fp16": weights are stored in halves, and computed with in fp32; "int8": all in int8, weights
            by channel, with scales from the least and greatest value each tensor takes for `images`; "int8-dynamic":
            int8 weights only, activations are quantised at every call anew.
        images: to calibrate int8 with, float32 [n >= 1, channels, height, width].
        integer_ends: whether input and output of an int8 file are int8 with the file's own scales, or float32.

    Returns:
        The new file: the same bytes for the same input.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
        ExportError: it refuses the file, or crashed.
    """
    if precision == "fp16":
        half_sized: bytes = _called(precision, "half", content)
        return half_sized
    return quantiser(content, precision, images, integer_ends=integer_ends)(())


def quantiser(
    content: bytes, precision: str, images: npt.NDArray[np.float32] | None, *, integer_ends: bool
) -> Callable[[Sequence[str]], bytes]:
    """What writes a float file in "int8" or "int8-dynamic", with the operators of some output tensors left in float.

    See `quantised`. The images are looked at once, here.
    """
    if precision == "int8-dynamic":
        return lambda in_float: _called(precision, "dynamic", content, tuple(in_float))
    assert images is not None
    found = _called(precision, "ranges", content, images, integer_ends)
    return lambda in_float: _called(precision, "static", content, found, integer_ends, tuple(in_float))


def _called(precision: str, function: str, *arguments: Any) -> Any:
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise MissingExtraError("tflite", f"TFLite in {precision}")
    try:
        return apart(f"{_HERE}:{function}", *arguments)
    except RefusedError as refused:
        what = f"the model cannot be written as TFLite in {precision}"
        raise conversion_error(what, refused.kind, refused.text, said=refused.said) from refused


def half(content: bytes) -> bytes:
    """Weights and biases as fp16. The runtime widens them when it loads the file."""
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager

    recipe = recipe_manager.RecipeManager()
    recipe.add_weight_only_config(
        _ALL,
        qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    return laid_out(halved_biases(_rewritten(content, recipe)))


def dynamic(content: bytes, in_float: Sequence[str]) -> bytes:
    """Weights as int8 by channel; activations are quantised while the network runs."""
    from ai_edge_quantizer import qtyping, recipe_manager

    recipe = recipe_manager.RecipeManager()
    recipe.add_dynamic_config(_ALL, qtyping.TFLOperationName.ALL_SUPPORTED, num_bits=8)
    _leave(recipe, in_float)
    return _rewritten(content, recipe)


def static(content: bytes, found: Any, integer_ends: bool, in_float: Sequence[str]) -> bytes:
    """Weights as int8 by channel and activations as int8, both fixed in the file."""
    recipe = _static(integer_ends)
    _leave(recipe, in_float)
    return _rewritten(content, recipe, found)


def _static(integer_ends: bool) -> Any:
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager

    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(_ALL, qtyping.TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    if not integer_ends:
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            recipe.add_quantization_config(_ALL, end, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    return recipe


def _leave(recipe: Any, in_float: Sequence[str]) -> None:
    """Leave operators in float, by the names of their output tensors."""
    from ai_edge_quantizer import algorithm_manager, qtyping

    if in_float:
        # The quantizer knows an operator as the names of its outputs, a semicolon behind each.
        names = f"^(?:{'|'.join(map(re.escape, in_float))});$"
        every, nothing = qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_manager.AlgorithmName.NO_QUANTIZE
        recipe.add_quantization_config(names, every, algorithm_key=nothing)


def ranges(content: bytes, images: npt.NDArray[np.float32], integer_ends: bool) -> Any:
    """The least and greatest value of each tensor over all images.

    The quantizer's own `calibrate` averages over images instead, which cuts off what few of them reach: ResNet-20 is
    0.63 off in the worst output then, 0.08 by these.
    """
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    looker = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    ((signature, names),) = looker.get_signature_list().items()
    (name,) = names["inputs"]
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    feeds = [{name: last[place : place + 1]} for place in range(len(last))]
    looker.calibrate({signature: feeds}, _static(integer_ends))
    return looker.get_model_qsvs()


def _rewritten(content: bytes, recipe: Any, ranges: Any = None) -> bytes:
    from ai_edge_quantizer import quantizer

    worker = quantizer.Quantizer(bytearray(content), recipe.get_quantization_recipe())
    result = worker.quantize(ranges, enable_progress_report=False)
    return laid_out(bytes(result.quantized_model))
