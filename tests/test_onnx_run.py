"""Int8 files for ARM are run exactly on whatever processor there is here; those for x86 as programs run them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.export.execute import opened
from edgeprune.export.onnx_run import session_of

LARGEST = {np.int8: (127, 0), np.uint8: (255, 0)}


def multiplied(kind):
    """A convolution of bytes near their largest: two products of them exceed 16 bits."""
    most, zero = LARGEST[kind]
    stored = {
        "step": np.float32(1),
        "zero": kind(zero),
        "weights": np.full((8, 64, 1, 1), 127, np.int8),
        "steps": np.full(8, 1 / 127, np.float32),
        "zeros": np.zeros(8, np.int8),
        "wide": np.float32(64),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "step", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["read"]),
        helper.make_node("DequantizeLinear", ["weights", "steps", "zeros"], ["kernel"], axis=0),
        helper.make_node("Conv", ["read", "kernel"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "wide", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "wide", "zero"], ["output"]),
    ]
    entry, sink = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 4, 4])
        for name, channels in (("input", 64), ("output", 8))
    )
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()]
    graph = helper.make_graph(nodes, "sums", [entry], [sink], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return proto.SerializeToString(), np.full((1, 64, 4, 4), most, np.float32)


def test_sums_of_signed_bytes_do_not_saturate():
    content, images = multiplied(np.int8)
    (got,) = opened("onnx", content)(images)
    np.testing.assert_array_equal(got, np.full((1, 8, 4, 4), 64 * 127, np.float32))


@pytest.mark.parametrize(("kind", "exact"), [(np.int8, "1"), (np.uint8, "")])
def test_only_files_with_signed_activations_are_run_unlike_programs_run_them(kind, exact):
    options = session_of(multiplied(kind)[0]).get_session_options()
    assert said(options) == exact


def said(options):
    try:
        return options.get_session_config_entry("session.x64quantprecision")
    except RuntimeError:
        return ""


def test_a_float_file_is_run_as_programs_run_it():
    node = helper.make_node("Relu", ["input"], ["output"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("input", "output")]
    graph = helper.make_graph([node], "kept", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert said(session_of(proto.SerializeToString()).get_session_options()) == ""


def test_what_is_no_onnx_file_is_refused_by_the_runtime():
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf):
        session_of(b"not a model")
