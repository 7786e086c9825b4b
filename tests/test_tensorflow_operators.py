"""Every ONNX operator that has a TensorFlow form, by itself, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import ExportError
from edgeprune.export.child import apart, end_child
from edgeprune.export.tensorflow_graph import tensorflow_file

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import

SHAPE = (1, 6, 8, 10)
NUMBERS = np.random.default_rng(3)


@pytest.fixture(scope="module", autouse=True)
def _installed():
    pytest.importorskip("tensorflow", reason="needs the [tensorflow] extra", exc_type=ImportError)
    yield
    end_child()


def floats(*shape: int) -> np.ndarray:
    return NUMBERS.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def pads(top: int, left: int, bottom: int, right: int) -> dict[str, list[int]]:
    return {"pads": [top, left, bottom, right]}


def case(operator: str, *stored: np.ndarray | None, outputs: int = 1, positive: bool = False, **attributes):
    shown = ",".join(f"{name}={value}" for name, value in attributes.items()) or "x".join(
        str(one.shape) for one in stored if one is not None
    )
    return pytest.param(operator, stored, outputs, positive, attributes, id=f"{operator}-{shown}"[:70])


POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
KERNEL, NARROW = floats(4, 6, 3, 3), floats(6, 1, 3, 3)
CASES = [
    *(case(name) for name in ("Abs", "Cos", "Elu", "Erf", "Exp", "Flatten", "GlobalAveragePool", "GlobalMaxPool")),
    *(case(name) for name in ("HardSwish", "Identity", "Mish", "Neg", "Relu", "Sigmoid", "Sin", "Softplus", "Tanh")),
    *(case(name, positive=True) for name in ("Log", "Reciprocal", "Sqrt")),
    *(case(name, floats(1, 6, 1, 1)) for name in ("Add", "Div", "Max", "Min", "Mul", "Sub", "Sum")),
    *(case(name, floats(*shape)) for name in ("Add", "Mul") for shape in ((), (10,), (8, 1), (6, 1, 1), (1, 6, 8, 10))),
    case("Sum", floats(6, 1, 1), floats(10)),
    case("Pow", np.float32(2), positive=True),
    case("AveragePool", **POOL, **pads(1, 1, 1, 1)),
    case("AveragePool", **POOL, **pads(1, 1, 1, 1), count_include_pad=1),
    case("AveragePool", **POOL, **pads(1, 0, 1, 0), ceil_mode=1),
    case("AveragePool", **POOL, **pads(1, 0, 1, 0), ceil_mode=1, count_include_pad=1),
    case("AveragePool", **POOL, auto_pad="SAME_UPPER"),
    case("MaxPool", **POOL),
    case("MaxPool", **POOL, **pads(1, 1, 1, 1)),
    case("MaxPool", **POOL, **pads(1, 1, 1, 1), ceil_mode=1),
    case("MaxPool", **POOL, auto_pad="SAME_UPPER"),
    case("MaxPool", kernel_shape=[5, 5], strides=[1, 1], **pads(2, 2, 2, 2)),
    case("BatchNormalization", floats(6), floats(6), floats(6), np.abs(floats(6)) + 0.1, epsilon=1e-3),
    case("Cast", to=TensorProto.FLOAT),
    case("Clip", np.float32(-0.3), np.float32(0.4)),
    case("Clip", np.float32(0), np.float32(6)),
    case("Clip", np.float32(0)),
    case("Clip", None, np.float32(0.2)),
    case("Concat", floats(1, 2, 8, 10), axis=1),
    case("Concat", floats(1, 6, 8, 3), axis=-1),
    case("Conv", KERNEL, floats(4), **pads(1, 1, 1, 1)),
    case("Conv", KERNEL, **pads(1, 1, 1, 1), strides=[2, 2]),
    case("Conv", KERNEL, **pads(0, 2, 1, 0), strides=[2, 1]),
    case("Conv", KERNEL, **pads(2, 2, 2, 2), dilations=[2, 2]),
    case("Conv", KERNEL, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", KERNEL, auto_pad="SAME_LOWER", strides=[2, 2]),
    case("Conv", KERNEL, auto_pad="VALID"),
    case("Conv", floats(4, 3, 3, 3), floats(4), group=2),
    case("Conv", NARROW, floats(6), group=6, **pads(1, 1, 1, 1), strides=[2, 2]),
    case("Conv", NARROW, group=6, **pads(2, 2, 2, 2), dilations=[2, 2]),
    case("Conv", NARROW, group=6, strides=[1, 2]),
    case("Conv", floats(12, 1, 3, 3), group=6),
    case("ConvTranspose", floats(6, 4, 3, 3), floats(4), **pads(1, 1, 1, 1), strides=[2, 2], output_padding=[1, 1]),
    case("ConvTranspose", floats(6, 2, 2, 2), group=2, strides=[2, 2]),
    case("ConvTranspose", floats(6, 4, 3, 4), **pads(0, 1, 1, 0)),
    case("Dropout"),
    case("Expand", ints(1, 6, 8, 10)),
    case("Flatten", axis=2),
    case("Gather", ints(4, 0, 2), axis=1),
    case("Gather", np.array(3), axis=2),
    case("HardSigmoid"),
    case("HardSigmoid", alpha=1 / 6, beta=0.5),
    case("InstanceNormalization", floats(6), floats(6), epsilon=1e-3),
    case("LayerNormalization", floats(10), floats(10), axis=-1),
    case("LayerNormalization", floats(6, 8, 10), axis=1),
    case("LeakyRelu", alpha=0.2),
    *(case(name, axis=axis) for name in ("Softmax", "LogSoftmax") for axis in (1, -1)),
    case("MatMul", floats(10, 3)),
    case("PRelu", floats(6, 1, 1)),
    case("Pad", ints(0, 0, 1, 2, 0, 1, 0, 3), np.float32(0.5)),
    case("Pad", ints(1, 2, 3, 0), np.float32(0), ints(2, -1)),
    case("Pad", ints(0, 0, 1, 2, 0, 0, 3, 1), mode="reflect"),
    *(case(name, ints(2, 3), keepdims=keep) for name in ("ReduceMean", "ReduceMax", "ReduceSum") for keep in (0, 1)),
    *(case(name, ints(1), keepdims=keep) for name in ("ReduceMin", "ReduceL2", "ReduceMean") for keep in (0, 1)),
    case("ReduceMean", ints(2), keepdims=0),
    case("Reshape", ints(1, 3, 2, -1)),
    case("Reshape", ints(0, -1)),
    case("Resize", None, None, ints(1, 6, 16, 20), mode="linear", coordinate_transformation_mode="half_pixel"),
    case("Resize", None, None, ints(1, 6, 15, 19), mode="linear", coordinate_transformation_mode="align_corners"),
    case(
        "Resize",
        None,
        np.array([1, 1, 2, 2], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    case("Slice", ints(1, -3), ints(6, 100), ints(1, 3), ints(2, 1)),
    case("Slice", ints(2), ints(-1), ints(2)),
    case("Split", ints(2, 4), outputs=2, axis=1),
    case("Split", outputs=3, axis=1, num_outputs=3),
    case("Squeeze", ints(0)),
    case("Transpose", perm=[0, 2, 3, 1]),
    case("Transpose", perm=[0, 1, 3, 2]),
    case("Unsqueeze", ints(1, 4)),
]


def file_of(operator, stored, outputs, attributes, shape=SHAPE) -> bytes:
    """An ONNX file of one operator."""
    names = [f"stored_{place}" if one is not None else "" for place, one in enumerate(stored)]
    if operator == "Constant":
        attributes = {"value": numpy_helper.from_array(stored[0])}
    results = [f"output_{place}" for place in range(outputs)]
    node = helper.make_node(operator, ["input", *names], results, name="the_node", **attributes)
    return model_bytes([node], stored, shape, results)


def model_bytes(nodes, stored, shape, results) -> bytes:
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results],
        [numpy_helper.from_array(np.asarray(one), f"stored_{at}") for at, one in enumerate(stored) if one is not None],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


def onnx_outputs(content: bytes, image: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": image})


def tflite_outputs(content: bytes, image: np.ndarray) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(
        interpreter.get_input_details()[0]["index"], np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    )
    interpreter.invoke()
    values = [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]
    return [value.transpose(0, 3, 1, 2) if value.ndim == 4 else value for value in values]


def same(content: bytes, image: np.ndarray) -> None:
    expected, got = onnx_outputs(content, image), tflite_outputs(tensorflow_file(content), image)
    assert [one.shape for one in got] == [one.shape for one in expected]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("operator", "stored", "outputs", "positive", "attributes"), CASES)
def test_an_operator_computes_what_onnx_runtime_computes(operator, stored, outputs, positive, attributes):
    image = floats(*SHAPE)
    same(file_of(operator, stored, outputs, attributes), np.abs(image) + 0.1 if positive else image)


def test_a_linear_layer_computes_what_onnx_runtime_computes():
    flat = helper.make_node("Flatten", ["input"], ["flat"])
    stored = (floats(3, 24), floats(3))
    gemm = helper.make_node("Gemm", ["flat", "stored_0", "stored_1"], ["output_0"], transB=1, alpha=0.5, beta=2.0)
    same(model_bytes([flat, gemm], stored, (1, 6, 2, 2), ["output_0"]), floats(1, 6, 2, 2))


def test_a_constant_is_read_from_its_node():
    constant = helper.make_node("Constant", [], ["fixed"], value=numpy_helper.from_array(floats(6, 1, 1)))
    add = helper.make_node("Add", ["input", "fixed"], ["output_0"])
    same(model_bytes([constant, add], (), SHAPE, ["output_0"]), floats(*SHAPE))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_channels_become_pixels_in_the_order_asked_for(mode):
    same(file_of("DepthToSpace", (), 1, {"blocksize": 2, "mode": mode}, (1, 8, 3, 5)), floats(1, 8, 3, 5))


@pytest.mark.parametrize("before", ["Relu", "Neg"])
def test_padded_max_pooling_is_right_after_what_is_never_negative_and_after_the_rest(before):
    first = helper.make_node(before, ["input"], ["some"])
    pool = helper.make_node("MaxPool", ["some"], ["output_0"], **POOL, **pads(1, 1, 1, 1))
    same(model_bytes([first, pool], (), (1, 4, 7, 9), ["output_0"]), floats(1, 4, 7, 9))


def test_channels_last_code_between_two_transposes_needs_none():
    last = helper.make_node("Transpose", ["input"], ["last"], perm=[0, 2, 3, 1])
    norm = helper.make_node("LayerNormalization", ["last", "stored_0"], ["normed"], axis=-1)
    first = helper.make_node("Transpose", ["normed"], ["output_0"], perm=[0, 3, 1, 2])
    content = model_bytes([last, norm, first], (floats(6),), SHAPE, ["output_0"])
    same(content, floats(*SHAPE))
    from edgeprune.export.tflite import inspect

    assert "TRANSPOSE" not in inspect(tensorflow_file(content))["operators"]


def test_every_operator_of_the_table_has_a_case():
    tested = {param.values[0] for param in CASES} | {"Gemm", "Constant", "DepthToSpace"}
    assert tested == set(apart("test_tensorflow_operators:known"))


def known() -> list[str]:
    from edgeprune.export.tensorflow_operators import OPERATORS

    return list(OPERATORS)


@pytest.mark.parametrize(
    ("operator", "attributes", "reason"),
    [("Det", {}, "the ONNX operator Det"), ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "holes")],
)
def test_what_has_no_form_is_named(operator, attributes, reason):
    with pytest.raises(ExportError, match="cannot be written as TFLite by TensorFlow") as caught:
        tensorflow_file(file_of(operator, (), 1, attributes, (1, 3, 4, 4)))
    assert reason in caught.value.where
    assert "the_node" in caught.value.where
