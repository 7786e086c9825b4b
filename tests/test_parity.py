from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from export_nets import COST, Tiny, images_of, model_of, outputs_of
from onnx import numpy_helper

from edgeprune.errors import ParityError, UsageError
from edgeprune.export import parity
from edgeprune.export.onnx import export_onnx
from edgeprune.target import load_target


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    model = model_of(Tiny)
    return model, export_onnx(model, COST, load_target("rpi4"), "fp32", run / "tiny.onnx"), run


@pytest.fixture
def exported(original, tmp_path):
    """A copy of the file that a test may damage."""
    model, artifact, run = original
    (tmp_path / artifact.path).write_bytes((run / artifact.path).read_bytes())
    return model, artifact, tmp_path


def rewrite(path, change):
    proto = onnx.load(path)
    change(proto)
    onnx.save(proto, path)


def scale_weight(place, factor):
    def change(proto):
        largest = sorted(proto.graph.initializer, key=lambda tensor: -len(tensor.raw_data))[place]
        values = numpy_helper.to_array(largest) * np.float32(factor)
        largest.CopyFrom(numpy_helper.from_array(values, largest.name))

    return change


def test_a_good_file_gets_its_parity_and_nothing_else_changes(exported):
    model, artifact, run = exported
    checked = parity.check(artifact, run, model, images_of(9))
    assert checked.parity.passed
    assert checked.parity.images == 9
    assert checked.parity.top1_agreement == 1.0
    assert 0 <= checked.parity.max_rel < 1e-5 < checked.parity.tolerance == parity.TOLERANCES["fp32"].max_rel
    assert dataclasses.replace(checked, parity=None) == artifact


def test_a_format_of_one_implementation_has_no_witness(exported):
    model, artifact, run = exported
    assert "witness" not in parity.check(artifact, run, model, images_of()).details


def test_the_measured_difference_is_that_of_the_file(exported):
    model, artifact, run = exported
    rewrite(run / artifact.path, lambda proto: shift_output(proto, 2e-5))
    images = images_of()
    checked = parity.check(artifact, run, model, images)
    assert checked.parity.max_abs == pytest.approx(2e-5, rel=0.05)
    assert checked.parity.max_rel == pytest.approx(checked.parity.max_abs / np.abs(outputs_of(model, images)).max())


def shift_output(proto, by, classes=slice(None), kind="Add"):
    """Append an operator to the one output."""
    shift = np.zeros(5, np.float32)
    shift[classes] = by
    proto.graph.initializer.append(numpy_helper.from_array(shift, "shift"))
    for node in proto.graph.node:
        for place, name in enumerate(node.output):
            if name == "output":
                node.output[place] = "before"
    proto.graph.node.append(onnx.helper.make_node(kind, ["before", "shift"], ["output"]))


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("factor", [-1, 1.01, 0])
def test_a_file_with_changed_weights_is_refused_and_its_worst_value_named(exported, place, factor):
    model, artifact, run = exported
    rewrite(run / artifact.path, scale_weight(place, factor))
    with pytest.raises(ParityError, match=r"image \d, output 0\[\d\]: expected .* got ") as caught:
        parity.check(artifact, run, model, images_of())
    assert artifact.path in caught.value.what
    assert caught.value.exit_code == 5


def test_the_worst_image_and_class_are_those_that_are_named(exported):
    model, artifact, run = exported
    rewrite(run / artifact.path, lambda proto: shift_output(proto, 7.0, classes=3))
    images = images_of(1)
    with pytest.raises(ParityError, match=r"image 0, output 0\[3\]") as caught:
        parity.check(artifact, run, model, images)
    assert f"expected {outputs_of(model, images)[0, 3]:.4g}"[:-1] in caught.value.where


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_that_gives_no_finite_numbers_is_refused_and_says_so(exported, value):
    model, artifact, run = exported
    rewrite(run / artifact.path, lambda proto: shift_output(proto, value, classes=2))
    with pytest.raises(ParityError, match=r"image 0, output 0: got (nan|inf), not a finite number"):
        parity.check(artifact, run, model, images_of())


def test_a_model_that_itself_gives_nan_is_blamed_rather_than_the_file(exported):
    model, artifact, run = exported
    images = images_of(3)
    images[1, 0, 0, 0] = np.nan
    with pytest.raises(ParityError, match="torch model tiny itself") as caught:
        parity.check(artifact, run, model, images)
    assert "image 1" in caught.value.where


def test_a_file_with_another_output_shape_is_refused_and_both_shapes_named(exported):
    _, artifact, run = exported
    wider = model_of(Tiny)
    wider.module.head = torch.nn.Linear(16, 6)
    with pytest.raises(ParityError, match=r"\[\[5\]\], the model's have \[\[6\]\]"):
        parity.check(artifact, run, wider, images_of())


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_file_that_cannot_be_run_is_refused(exported, content):
    model, artifact, run = exported
    (run / artifact.path).write_bytes(content)
    with pytest.raises(ParityError, match="onnxruntime cannot run it"):
        parity.check(artifact, run, model, images_of())


@pytest.mark.parametrize(
    ("precision", "details", "way"),
    [
        ("fp32", {}, "Choose another format with --formats"),
        ("fp16", {}, "Leave fp16 out of --precisions"),
        ("int8", {}, "Add --max-drop: layers that cost too much stay in float"),
        ("int8", {"mixed": {}}, "Allow fewer points with --max-drop"),
    ],
)
def test_what_may_help_is_said_of_a_file_that_is_too_far_off(exported, precision, details, way):
    model, artifact, run = exported
    rewrite(run / artifact.path, lambda proto: shift_output(proto, 1e3, classes=2))
    wrong = dataclasses.replace(artifact, precision=precision, details={**artifact.details, **details})
    with pytest.raises(ParityError) as caught:
        parity.check(wrong, run, model, images_of())
    assert caught.value.fix.startswith(f"It is not handed over. {way}")


@pytest.fixture
def tied(tmp_path):
    """A model whose classes 0 and 1 are nearly the same, 1 a little higher, and a file where 0 is a little higher."""
    model = model_of(Tiny)
    with torch.no_grad():
        model.module.head.weight[1] = model.module.head.weight[0]
        model.module.head.bias[0], model.module.head.bias[1] = 20.0, 20.0 + 1e-5
    artifact = export_onnx(model, COST, load_target("rpi4"), "fp32", tmp_path / "tied.onnx")
    rewrite(tmp_path / "tied.onnx", lambda proto: shift_output(proto, 1e-3, classes=0))
    return model, artifact, tmp_path


def test_classes_that_lie_nearer_than_the_tolerance_count_as_the_same(tied):
    model, artifact, run = tied
    assert set(outputs_of(model, images_of()).argmax(1)) == {1}
    assert parity.check(artifact, run, model, images_of()).parity.top1_agreement == 1.0


def test_too_few_images_with_the_same_class_are_refused_even_if_the_values_are_near(tied, monkeypatch):
    model, artifact, run = tied
    strict = parity.Tolerance(max_rel=1e-4, near_tie=0.0, top1_agreement=0.75)
    monkeypatch.setattr(parity, "TOLERANCES", {"fp32": strict})
    with pytest.raises(ParityError, match=r"0\.0% of 4 images keep their highest class, 75\.0% must"):
        parity.check(artifact, run, model, images_of())


def test_no_images_or_an_unknown_precision_or_format_is_a_usage_error(exported):
    model, artifact, run = exported
    with pytest.raises(UsageError, match="at least one image"):
        parity.check(artifact, run, model, images_of(0))
    with pytest.raises(UsageError, match="int4"):
        parity.check(dataclasses.replace(artifact, precision="int4"), run, model, images_of())
    with pytest.raises(UsageError, match="openvino"):
        parity.check(dataclasses.replace(artifact, format="openvino"), run, model, images_of())
