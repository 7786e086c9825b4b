"""The first tensor inside a TFLite file that is not what the model computes, by breaking one layer of it."""

from __future__ import annotations

import numpy as np
import pytest
from export_nets import COST, Tiny, images_of, model_of

from edgeprune.errors import ParityError
from edgeprune.export.calibration import calibration_of
from edgeprune.export.divergence import divergence_of
from edgeprune.export.execute import outputs_of
from edgeprune.export.parity import check
from edgeprune.export.tflite import export_tflite
from edgeprune.target import load_target

pytestmark = pytest.mark.slow  # the converter and the quantizer alone take seconds to import

SHAPES = {
    "stem": (8, 3, 3, 3),
    "depthwise": (1, 3, 3, 8),
    "down": (16, 3, 3, 8),
    "head": (5, 16),
}
"""Layer -> shape of its weights in the file."""
KINDS = {2: np.float16, 4: np.float32, 1: np.int8}
"""Bytes a number -> its type."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory, tflite_extra):
    run, model, target = tmp_path_factory.mktemp("run"), model_of(Tiny), load_target("rpi4")
    calibration = calibration_of(images_of(32), "noise")
    return (
        model,
        run,
        {
            one: export_tflite(model, COST, target, one, run / f"tiny-{one}.tflite", calibration)
            for one in ("fp32", "fp16", "int8")
        },
    )


def turn_around(content: bytearray, shape: tuple[int, ...]) -> None:
    """Bring the stored weights of one shape into the opposite order."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    tensors = [graph.Tensors(place) for place in range(graph.TensorsLength())]
    held = [model.Buffers(one.Buffer()) for one in tensors if tuple(one.ShapeAsNumpy()) == shape]
    (numbers,) = (one.DataAsNumpy() for one in held if one.DataLength())
    values = numbers.view(KINDS[len(numbers) // int(np.prod(shape))])
    values[:] = values[::-1].copy()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_in_a_good_file_no_layer_diverges(originals, precision):
    model, run, artifacts = originals
    images = images_of()
    found = divergence_of(artifacts[precision], run, model, images, outputs_of(artifacts[precision], run, images))
    assert not found.found
    assert (found.compared, found.layers, found.unseen) == (4, 4, ())
    assert found.error < found.tolerated / 2


@pytest.mark.parametrize("layer", SHAPES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_broken_layer_is_named_and_none_after_it(originals, precision, layer, tmp_path):
    model, run, artifacts = originals
    artifact, images = artifacts[precision], images_of()
    content = bytearray((run / artifact.path).read_bytes())
    turn_around(content, SHAPES[layer])
    (tmp_path / artifact.path).write_bytes(content)
    found = divergence_of(artifact, tmp_path, model, images, outputs_of(artifact, tmp_path, images))
    assert found.found
    assert found.layer == layer
    assert found.operator == {"depthwise": "DEPTHWISE_CONV_2D", "head": "FULLY_CONNECTED"}.get(layer, "CONV_2D")


def test_the_gate_names_the_tensor_and_its_layer(originals, tmp_path):
    model, run, artifacts = originals
    content = bytearray((run / artifacts["fp32"].path).read_bytes())
    turn_around(content, SHAPES["down"])
    (tmp_path / artifacts["fp32"].path).write_bytes(content)
    with pytest.raises(ParityError, match=r"first tensor that diverges: t\d+ \(CONV_2D, layer down\)"):
        check(artifacts["fp32"], tmp_path, model, images_of(9))
