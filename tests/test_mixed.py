"""Layers of an int8 file that stay in float: found by what they cost, no more of them than it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from export_nets import COST, SHAPE, Outlier, Several, Shared, Tiny, images_of, model_of, outputs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.data import ImageSet
from edgeprune.export import mixed as room
from edgeprune.export.calibration import calibration_of
from edgeprune.export.child import end_child
from edgeprune.export.execute import opened
from edgeprune.export.goal import Goal
from edgeprune.export.mixed import Making, Operator, layers_of, mixed
from edgeprune.export.onnx import export_onnx, named_weights
from edgeprune.export.tflite import export_tflite
from edgeprune.target import load_target

ARM = load_target("rpi4")


def coloured(count, seed):
    """Images that differ in colour, so that not all are of one class."""
    random = np.random.default_rng(seed)
    grain = random.integers(-30, 31, (count, *SHAPE[1:], 3))
    return (random.integers(30, 226, (count, 1, 1, 3)) + grain).astype(np.uint8)


def goal_of(model, most, count=200):
    """The model's own classes of such images."""
    images = coloured(count, seed=5)
    truth = outputs_of(model, model.input.normalise(images)).argmax(1)
    return Goal(ImageSet(images, None, "noise", count), model.input, truth, count, most, "agreement")


def centred(network):
    """A network that tells colours apart: no class is likelier than the others from the start."""
    model = model_of(network)
    with torch.no_grad():
        model.module.head.bias -= model.module(torch.from_numpy(model.input.normalise(coloured(200, seed=1)))).mean(0)
    return model


def graph(*rows):
    return layers_of(Operator(key, tuple(inputs), tuple(outputs), layer) for key, inputs, outputs, layer in rows)


def test_what_is_computed_from_a_layer_before_the_next_one_belongs_to_it():
    found = graph(
        ("scale", ["input"], ["x0"], ""),
        ("conv", ["x0"], ["x1"], "first"),
        ("relu", ["x1"], ["x2"], ""),
        ("conv again", ["x2"], ["x3"], "second"),
        ("add", ["x3", "x2"], ["x4"], ""),
        ("pool", ["x2"], ["x5"], ""),
    )
    assert found == {"first": ("scale", "conv", "relu", "pool"), "second": ("conv again", "add")}


def test_a_layer_that_is_used_twice_is_one():
    rows = (("a", ["input"], ["x"], "one"), ("b", ["x"], ["y"], "one"), ("relu", ["y"], ["z"], ""))
    assert graph(*rows) == {"one": ("a", "b", "relu")}


def test_a_graph_without_weights_has_no_layers():
    assert graph(("relu", ["input"], ["x"], "")) == {}


COUNT = 100
NOISE = ImageSet(np.zeros((COUNT, 1, 1, 1), np.uint8), None, "nothing", COUNT)


def counted(costs, most, float_cost=0, share=1.0):
    """A network of layers that each cost so many points in int8, searched; the result and the files that were made."""
    layers, made = tuple(f"l{at}" for at in range(len(costs))), []

    def run(in_float):
        price = float_cost + sum(cost for name, cost in zip(layers, costs, strict=True) if name not in in_float)
        wrong, place = min(COUNT, round(price)), iter(range(10**6))

        def compute(image):
            right = next(place) % COUNT >= wrong
            return [np.array([[float(right), 0.5, price / 1e4]], np.float32)]

        return compute

    def write(in_float):
        made.append(in_float)
        return in_float

    spec = model_of(Tiny).input
    goal = Goal(
        NOISE,
        replace(spec, shape=(1, 1, 1), mean=(0.5,), std=(0.5,)),
        np.zeros(COUNT, np.int64),
        COUNT,
        most,
        "top1",
        share,
    )
    return *mixed(Making(layers, write, run), goal), made


def test_a_file_that_loses_little_enough_stays_in_int8_and_costs_no_search():
    file, told, made = counted([0, 1, 1], most=2)
    assert (file, told["lost"], told["in_float"], told["steps"], told["missed"]) == (frozenset(), 2, [], [], "")
    assert len(made) == 1


def test_no_more_layers_leave_int8_than_may_stay_in_float():
    file, told, _ = counted([1, 20, 0, 6, 2], most=3, share=0.39)
    assert (file, told["in_float"], told["lost"]) == ({"l1"}, ["l1"], 9)
    assert told["missed"] == "at most 3 points of top-1 were to be lost, and 9.00 are by the best mix found"


def test_where_no_layer_may_stay_in_float_none_is_looked_at():
    file, told, made = counted([1, 20, 0, 6, 2], most=3, share=0.19)
    assert (file, told["in_float"], made) == (frozenset(), [], [frozenset()])
    assert told["missed"].endswith("29.00 are; with a layer in float it would be too slow")


def test_the_layers_that_cost_most_leave_int8_first_and_no_more_than_it_takes():
    file, told, _ = counted([1, 20, 0, 6, 2], most=3)
    assert file == {"l1", "l3"}
    assert told["in_float"] == ["l1", "l3"]
    assert (told["lost_in_int8"], told["lost_in_float"], told["lost"]) == (29, 0, 3)
    assert [(step["layers"], step["before"], step["after"]) for step in told["steps"]] == [
        (["l1"], 29, 9),
        (["l3"], 9, 3),
    ]
    assert told["steps"][0]["distances"][0] > told["steps"][1]["distances"][0] > 0


def test_where_float_itself_loses_too_much_nothing_is_searched_and_the_file_stays_in_int8():
    file, told, made = counted([5, 0], most=1, float_cost=2)
    assert file == frozenset()
    assert told["missed"] == (
        "at most 1 points of top-1 were to be lost, and 2.00 are in float already, so all layers are left in int8: "
        "cut less, or recover with more"
    )
    assert len(made) == 2


def test_where_no_mix_is_good_enough_the_best_is_taken_and_it_is_said():
    file, told, _ = counted([4, 4, 4], most=0)
    assert len(file) == 2
    assert told["missed"] == "at most 0 points of top-1 were to be lost, and 4.00 are by the best mix found"


def test_a_network_without_layers_is_judged_all_the_same():
    layers = Making((), lambda _: "file", lambda _: lambda image: [np.array([[0.0, 1.0]], np.float32)])
    goal = Goal(NOISE, model_of(Tiny).input, np.zeros(COUNT, np.int64), COUNT, 1, "agreement")
    goal = replace(goal, spec=replace(goal.spec, shape=(1, 1, 1), mean=(0.5,), std=(0.5,)))
    file, told = mixed(layers, goal)
    assert file == "file"
    assert told["missed"] == (
        "at most 1 points of top-1 agreement were to be lost, and 100.00 are: no layer can be taken out of int8"
    )


@settings(max_examples=30, deadline=None)
@given(costs=st.lists(st.integers(0, 9), min_size=1, max_size=12), most=st.integers(0, 40))
def test_the_file_keeps_the_goal_or_says_that_it_does_not_within_a_bounded_number_of_tries(costs, most):
    file, told, made = counted(costs, most)
    assert told["lost"] == sum(cost for at, cost in enumerate(costs) if f"l{at}" not in file)
    assert (told["lost"] <= most) == (told["missed"] == "")
    assert told["lost"] <= told["lost_in_int8"]
    assert len(made) <= 2 + len(costs) + len(list(room._counts(len(costs))))
    assert (file, told) == counted(costs, most)[:2]


def test_the_number_of_tries_grows_as_the_logarithm_of_the_number_of_layers():
    assert list(room._counts(1)) == []
    assert list(room._counts(20)) == [1, 2, 3, 4, 5, 6, 8, 10, 13, 17]
    assert len(list(room._counts(1000))) < 4 * np.log(1000)


def exported(network, most, out, exporter=export_onnx, **settings):
    model = centred(network)
    calibration = replace(calibration_of(model.input.normalise(coloured(32, seed=2))), goal=goal_of(model, most))
    return exporter(model, COST, ARM, "int8", out, calibration, **settings)


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "loud.onnx"
    return exported(Outlier, 2.0, out), out


def test_layers_of_an_onnx_file_that_int8_spoils_are_in_float(loud):
    artifact, out = loud
    told = artifact.details["mixed"]
    assert told["lost_in_int8"] > 2 >= told["lost"]
    assert {"loud", "after"} <= set(told["in_float"]) < {"stem", "loud", "after", "head"}
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(out).graph.initializer if len(tensor.dims) > 1}
    for layer in ("stem", "loud", "after", "head"):
        assert (f"{layer}.weight" in stored) == (layer in told["in_float"]), stored


def test_what_is_told_is_what_the_file_does(loud):
    artifact, out = loud
    told, goal = artifact.details["mixed"], goal_of(centred(Outlier), 2.0)
    assert goal.lost(opened("onnx", out.read_bytes())) == told["lost"]
    assert (told["images"], told["metric"], told["max_drop"], told["layers"]) == (200, "agreement", 2.0, 4)


def test_the_same_model_and_images_give_the_same_bytes(loud, tmp_path):
    assert exported(Outlier, 2.0, tmp_path / "again.onnx").sha256 == loud[0].sha256


def test_a_network_that_int8_does_not_hurt_is_the_file_it_was_without_a_goal(tmp_path):
    model = centred(Tiny)
    calibration = calibration_of(model.input.normalise(coloured(32, seed=2)))
    plain = export_onnx(model, COST, ARM, "int8", tmp_path / "plain.onnx", calibration)
    judged = exported(Tiny, 50.0, tmp_path / "judged.onnx")
    assert judged.sha256 == plain.sha256
    assert "mixed" not in plain.details
    assert judged.details["mixed"]["in_float"] == []


@pytest.mark.parametrize("network", [Tiny, Shared, Several])
def test_all_layers_in_float_are_all_of_an_onnx_file_in_float(network, tmp_path, monkeypatch):
    whole = lambda making, _: (making.write(frozenset(making.layers)), {"layers": list(making.layers)})  # noqa: E731
    monkeypatch.setattr("edgeprune.export.race.mixed", whole)
    calibration = replace(calibration_of(images_of(32)), goal=goal_of(model_of(Tiny), 0.0))
    artifact = export_onnx(model_of(network), COST, ARM, "int8", tmp_path / "x.onnx", calibration)
    assert artifact.details["mixed"]["layers"]
    kinds = {node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}


@pytest.mark.slow
@pytest.mark.parametrize("int8", ["static", "dynamic"])
def test_layers_of_a_tflite_file_that_int8_spoils_are_in_float_under_the_models_names(int8, tmp_path):
    pytest.importorskip("ai_edge_quantizer", reason="needs the [tflite] extra", exc_type=ImportError)
    most = 2.0 if int8 == "static" else 0.0
    artifact = exported(Outlier, most, tmp_path / "x.tflite", export_tflite, converter="litert", int8=int8)
    end_child()
    told = artifact.details["mixed"]
    assert told["layers"] == 4
    assert set(told["in_float"]) <= {"stem", "loud", "after", "head"}
    assert goal_of(centred(Outlier), most).lost(opened("tflite", (tmp_path / "x.tflite").read_bytes())) == told["lost"]
    if int8 == "static":
        assert told["lost_in_int8"] > 2 >= told["lost"]
        assert {"loud", "after"} <= set(told["in_float"])


def test_weights_are_named_in_the_order_they_are_computed_with():
    assert [name for name, _ in named_weights(model_of(Outlier))] == ["stem", "loud", "after", "head"]


def test_the_outlier_network_is_what_it_says():
    with torch.no_grad():
        model = model_of(Outlier)
        x = torch.relu(model.module.loud(torch.relu(model.module.stem(torch.from_numpy(images_of(8))))))
    assert x[:, 0].max() > 200 * x[:, 1:].max()
