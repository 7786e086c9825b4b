"""The first tensor inside a file that is not what the model computes, by breaking one layer of it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from export_nets import COST, Several, Shared, Tiny, images_of, model_of
from onnx import numpy_helper
from torch import Tensor, nn

from edgeprune.errors import ParityError
from edgeprune.export.calibration import Calibration
from edgeprune.export.divergence import divergence_of
from edgeprune.export.execute import outputs_of
from edgeprune.export.onnx import export_onnx
from edgeprune.export.parity import check, judge
from edgeprune.target import load_target

LAYERS = ["stem", "depthwise", "down", "head"]
PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The same network in ONNX, in each precision."""
    run, model = tmp_path_factory.mktemp("run"), model_of(Tiny)
    calibration = Calibration(images_of(16), images_of(24)[16:])
    return model, run, {one: written(model, run, one, calibration) for one in PRECISIONS}


def written(model, run, precision, calibration):
    target = load_target("rpi4")
    return export_onnx(model, COST, target, precision, run / f"tiny-{precision}.onnx", calibration)


def broken(originals, precision, tmp_path, layer, change):
    """The file with the stored weights of one layer changed, as a new file."""
    model, run, artifacts = originals
    artifact = artifacts[precision]
    proto = onnx.load(run / artifact.path)
    stored = {one.name.removesuffix("_quantized"): one for one in proto.graph.initializer}[f"{layer}.weight"]
    values = numpy_helper.to_array(stored)
    stored.CopyFrom(numpy_helper.from_array(change(values.copy()).astype(values.dtype), stored.name))
    onnx.save(proto, tmp_path / artifact.path)
    return model, artifact


def looked_into(model, artifact, run, images):
    return divergence_of(artifact, run, model, images, outputs_of(artifact, run, images))


def largest_negated(values):
    """Of each channel the largest weight has the other sign: in one that ReLU makes 0 it does not show."""
    rows = values.reshape(len(values), -1)
    places = np.abs(rows.astype(np.float32)).argmax(axis=1)
    rows[np.arange(len(rows)), places] *= -1
    return rows.reshape(values.shape)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_in_a_good_file_no_layer_diverges(originals, precision):
    model, run, artifacts = originals
    found = looked_into(model, artifacts[precision], run, images_of())
    assert not found.found
    assert (found.compared, found.layers, found.unseen) == (4, 4, ())
    assert str(found).startswith("no layer by itself diverges")
    assert found.error < found.tolerated / 2


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_layer_with_a_wrong_weight_in_each_channel_is_named_and_none_after_it(
    originals, precision, layer, tmp_path
):
    model, artifact = broken(originals, precision, tmp_path, layer, largest_negated)
    found = looked_into(model, artifact, tmp_path, images_of())
    assert found.found
    assert found.layer == layer
    assert found.operator in ("Conv", "Gemm")
    assert found.tensor in {name for node in onnx.load(tmp_path / artifact.path).graph.node for name in node.output}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_of_two_broken_layers_the_first_is_named(originals, precision, tmp_path):
    model, run, artifacts = originals
    for layer, source in (("down", run), ("stem", tmp_path)):
        whole = (model, source, artifacts)
        broken(whole, precision, tmp_path, layer, lambda values: values[::-1])
    assert looked_into(model, artifacts[precision], tmp_path, images_of()).layer == "stem"


def test_the_gate_names_the_tensor_and_its_layer(originals, tmp_path):
    model, artifact = broken(originals, "fp32", tmp_path, "depthwise", lambda values: values * 1.01)
    with pytest.raises(
        ParityError, match=r"first tensor that diverges: convolution \(Conv, layer depthwise\)"
    ) as caught:
        check(artifact, tmp_path, model, images_of(9))
    value, tensor = caught.value.where.splitlines()
    assert "of the largest output, 0.0001 is tolerated" in value
    assert tensor.endswith("of its largest value, 0.0001 is tolerated; 4 of 4 layers were compared")


def test_weights_that_are_not_finite_are_named(originals, tmp_path):
    model, artifact = broken(originals, "fp32", tmp_path, "down", lambda values: values * np.nan)
    verdict = judge(artifact, tmp_path, model, images_of())
    assert verdict.divergence is not None
    assert verdict.divergence.layer == "down"
    assert verdict.artifact.parity is None
    assert json.loads(json.dumps(verdict.divergence.to_json()))["error"] is None


def test_what_differs_between_two_layers_shows_at_the_second(originals, tmp_path):
    model, run, artifacts = originals
    artifact = artifacts["fp32"]
    proto = onnx.load(run / artifact.path)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type = "Abs"
    onnx.save(proto, tmp_path / artifact.path)
    assert looked_into(model, artifact, tmp_path, images_of()).layer == "depthwise"


def test_what_differs_after_the_last_layer_shows_at_the_output(tmp_path):
    class Ends(Tiny):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tanh(super().forward(images))

    model = model_of(Ends)
    artifact = written(model, tmp_path, "fp32", None)
    proto = onnx.load(tmp_path / artifact.path)
    next(node for node in proto.graph.node if node.op_type == "Tanh").op_type = "Sigmoid"
    onnx.save(proto, tmp_path / artifact.path)
    found = looked_into(model, artifact, tmp_path, images_of())
    assert (found.found, found.layer, found.tensor) == (True, "", "output 0")
    assert "output 0 (after the last layer)" in str(found)


@pytest.mark.parametrize("network", [Several, Shared])
def test_networks_that_are_hard_to_match_give_no_false_alarm(network, tmp_path):
    model = model_of(network)
    artifact = written(model, tmp_path, "fp32", None)
    assert not looked_into(model, artifact, tmp_path, images_of()).found


class Scaled(Tiny):
    """A layer that a constant follows: converters may work that into its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((16, 1, 1), 2.0))

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(images)))
        return self.head((self.down(x) * self.scale).mean((2, 3)))


def test_a_layer_that_cannot_be_compared_is_named_where_the_fault_may_be_its(tmp_path):
    model = model_of(Scaled)
    artifact = written(model, tmp_path, "fp32", None)
    assert not looked_into(model, artifact, tmp_path, images_of()).found
    proto = onnx.load(tmp_path / artifact.path)
    (stored,) = (one for one in proto.graph.initializer if list(one.dims) == [16, 8, 3, 3])
    assert stored.name != "down.weight"  # onnxsim has worked the constant into it
    stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored) * np.float32(1.5), stored.name))
    onnx.save(proto, tmp_path / artifact.path)
    found = looked_into(model, artifact, tmp_path, images_of())
    assert (found.layer, found.unseen, found.compared, found.layers) == ("head", ("down",), 2, 3)
    assert str(found).endswith("2 of 3 layers were compared; or down before it, which cannot be matched")


class Wide(nn.Module):
    """Another network with the same input and output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 7, 3), nn.Linear(7, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).mean((2, 3)))


def test_a_file_of_another_network_has_no_layers_to_compare(originals):
    _, run, artifacts = originals
    verdict = judge(artifacts["fp32"], run, model_of(Wide), images_of())
    assert verdict.fault is not None
    assert verdict.fault.where.endswith("none of the file's layers can be matched with the model's")
