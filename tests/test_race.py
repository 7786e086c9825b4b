"""Layers that take longer in int8 stay in float, where the file with them so is surely faster."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import jsonschema
import numpy as np
import onnx
import pytest
from export_nets import COST, Outlier, Tiny, images_of, model_of
from hypothesis import given
from hypothesis import strategies as st
from program_runs import fault, run_here, run_program
from report_samples import FULL
from test_bench_session import an_artifact
from told_race import FASTER, UNSURE, Told

from edgeprune import racing
from edgeprune.bench.by_layer import by_layer
from edgeprune.bench.work import layers_of
from edgeprune.data import ImageSet
from edgeprune.errors import DeviceError, TrustError, UsageError
from edgeprune.export.calibration import calibration_of
from edgeprune.export.child import end_child
from edgeprune.export.goal import Goal
from edgeprune.export.mixed import Making
from edgeprune.export.onnx import export_onnx
from edgeprune.export.race import quickest, settled
from edgeprune.export.tflite import export_tflite
from edgeprune.journal import Journal, Nobody
from edgeprune.profile import OperatorTime, Profile
from edgeprune.racing import BoardRace, race_of
from edgeprune.report.document import SCHEMA_FILE, Report
from edgeprune.report.render import html, markdown, terminal
from edgeprune.report.tables import tables
from edgeprune.request import Request
from edgeprune.target import load_target


def making(*layers, **more):
    return Making(layers, frozenset, None, "onnx", lambda file, path: path.write_text(",".join(sorted(file))), **more)


def raced(layers, lap=FASTER, taken=frozenset(), **more):
    race = Told(layers, lap)
    return *quickest(making(*layers, **more), (taken, taken), race), race


TIMES = {"l0": (0.2, 0.5), "l1": (0.9, 0.3), "l2": (0.51, 0.5), "l3": (0.4, 0.2)}


def test_layers_that_take_longer_in_int8_stay_in_float_where_that_is_faster():
    file, told, race = raced(TIMES)
    assert file == {"l1", "l3"}
    assert told["in_float"] == ["l1", "l3"]
    (step,) = told["steps"]
    assert (step["layers"], step["kept"], step["ratio"], step["ci95"]) == (["l1", "l3"], True, 1.2, [1.1, 1.3])
    assert (step["int8_ms"], step["float_ms"]) == (pytest.approx(1.3), pytest.approx(0.5))
    assert race.raced == [("onnx", b"", b"l1,l3")]


def test_a_file_that_is_not_surely_faster_is_not_taken_and_it_is_told():
    file, told, _ = raced(TIMES, UNSURE)
    assert file == frozenset()
    assert (told["in_float"], told["steps"][0]["kept"], told["missed"]) == ([], False, "")


def test_where_no_layer_takes_longer_nothing_is_raced():
    file, told, race = raced({"l0": (0.2, 0.5), "l1": (0.5, 0.49)})
    assert (file, told["steps"], told["missed"], race.raced) == (frozenset(), [], "", [])


def test_layers_that_are_in_float_already_stay_there_and_are_not_told_again():
    file, told, race = raced(TIMES, taken=frozenset({"l1"}))
    assert file == {"l1", "l3"}
    assert told["in_float"] == ["l3"]
    assert race.raced == [("onnx", b"l1", b"l1,l3")]


def test_layers_are_known_by_what_profiles_call_them():
    race = Told({"conv_2d 0": (0.9, 0.3), "conv_2d 1": (0.1, 0.3)})
    names = {"conv_2d 0": "stem", "conv_2d 1": "head"}
    file, told = quickest(making("stem", "head", names=names), (frozenset(), frozenset()), race)
    assert (file, told["in_float"]) == ({"stem"}, ["stem"])


@pytest.mark.parametrize("error", [DeviceError("the board is gone"), TrustError("too busy")])
def test_a_board_that_fails_or_is_not_trusted_costs_no_file(error):
    file, told, _ = raced(TIMES, error)
    assert file == frozenset()
    assert told["missed"] == f"l1, l3 took longer in int8 than in float and stay in int8: {error.what}"
    assert told["steps"] == []


def test_layers_that_the_runtime_does_not_tell_are_not_guessed():
    file, told = quickest(making("a", "b"), (frozenset(), frozenset()), Told({"": (0.9, 0.1)}))
    assert file == frozenset()
    assert told["missed"] == "layers were not timed: the runtime does not tell what layers take"


def test_a_network_whose_layers_cannot_be_taken_out_is_told():
    file, told = settled(Making((), lambda _: b"file", None), None, Told({}))
    assert (file, told["race"]["missed"]) == (b"file", "no layer can be taken out of int8")


def test_what_costs_more_accuracy_than_is_allowed_is_not_kept_however_fast():
    count = 100
    noise = ImageSet(np.zeros((count, 1, 1, 1), np.uint8), None, "nothing", count)
    spec = replace(model_of(Tiny).input, shape=(1, 1, 1), mean=(0.5,), std=(0.5,))

    def run(in_float):
        wrong, place = 3 * len(in_float), iter(range(count))
        return lambda _: [np.array([[float(next(place) >= wrong), 0.5]], np.float32)]

    one = replace(making(*TIMES), run=run)
    for most, kept in ((2.0, False), (6.0, True)):
        goal = Goal(noise, spec, np.zeros(count, np.int64), count, most, "top1")
        file, told = settled(one, goal, Told(TIMES))
        assert told["mixed"]["lost"] == 0
        assert told["race"]["steps"][0]["lost"] == 6
        assert (file == {"l1", "l3"}, told["race"]["steps"][0]["kept"]) == (kept, kept)


ROWS = st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(0, 1000)), max_size=20)


@given(rows=ROWS)
def test_all_that_a_profile_tells_is_of_some_layer(rows):
    operators = tuple(OperatorTime("x", "Conv" if layer else "Add", ms, 0.0, "CPU", layer) for layer, ms in rows)
    found = by_layer(Profile("0", "x", "pruned", "onnx", "int8", "onnxruntime", "1", 1, 5, 0.0, operators, {}))
    layers = {layer for layer, _ in rows if layer}
    assert found.keys() == layers
    assert not layers or sum(found.values()) == sum(ms for _, ms in rows)


def test_what_quantises_belongs_to_the_layer_before_it():
    rows = [("", 1), ("a", 10), ("", 2), ("b", 20), ("", 3)]
    operators = tuple(OperatorTime("x", "Conv", ms, 0.0, "CPU", layer) for layer, ms in rows)
    one = Profile("0", "x", "pruned", "onnx", "int8", "onnxruntime", "1", 1, 5, 0.0, operators, {})
    assert by_layer(one) == {"a": 13, "b": 23}


def exported(out, exporter=export_onnx, **settings):
    """`Outlier` in int8, of which a race says that two layers take longer so."""
    kind = "onnx" if exporter is export_onnx else "tflite"
    names = ("stem", "loud", "after", "head")
    if kind == "tflite":
        names = ("conv_2d 0", "conv_2d 1", "conv_2d 2", "fully_connected 3")
    times = {name: (0.9 if place in (1, 2) else 0.1, 0.4) for place, name in enumerate(names)}
    calibration = replace(calibration_of(images_of(32)), race=Told(times))
    return exporter(model_of(Outlier), COST, load_target("host"), "int8", out, calibration, **settings)


def test_an_onnx_file_has_the_layers_in_float_that_it_tells(tmp_path):
    artifact = exported(tmp_path / "x.onnx")
    assert artifact.details["race"]["in_float"] == ["loud", "after"]
    stored = {tensor.name for tensor in onnx.load(tmp_path / "x.onnx").graph.initializer}
    assert {"loud.weight", "after.weight"} <= stored
    assert not {"stem.weight", "head.weight"} & stored
    assert "mixed" not in artifact.details


@pytest.mark.slow
def test_a_tflite_file_has_the_layers_in_float_that_it_tells_under_the_models_names(tmp_path):
    pytest.importorskip("ai_edge_quantizer", reason="needs the [tflite] extra", exc_type=ImportError)
    calibration = calibration_of(images_of(32))
    whole = (model_of(Outlier), COST, load_target("host"), "int8", tmp_path / "int8.tflite", calibration)
    export_tflite(*whole, converter="litert")
    artifact = exported(tmp_path / "x.tflite", export_tflite, converter="litert")
    export_tflite(model_of(Outlier), COST, load_target("host"), "fp32", tmp_path / "fp32.tflite", converter="litert")
    end_child()
    assert artifact.details["race"]["in_float"] == ["loud", "after"]
    plain, mixed, int8 = (layers_of(tmp_path / f"{name}.tflite") for name in ("fp32", "x", "int8"))
    assert [one.name for one in plain] == [one.name for one in mixed] == [one.name for one in int8]
    whose = ["float" if one.bytes == other.bytes else "int8" for one, other in zip(mixed, plain, strict=True)]
    assert whose == ["int8", "float", "float", "int8"]


def test_a_board_tells_what_layers_take_and_which_file_is_faster(tmp_path, monkeypatch):
    monkeypatch.setattr(racing, "doubts", lambda _: ())
    race = BoardRace("local", 1, Journal(Nobody()))
    small, large = (an_artifact(tmp_path, f"{width}.onnx", channels=width) for width in (2, 32))
    files = [partial(shutil.copyfile, tmp_path / one.path) for one in (large, small)]
    assert [set(found) for found in race.layer_ms("onnx", files)] == [{"w0", "w1", "w2"}] * 2
    try:
        lap = race.lap("onnx", *files)
    except TrustError as error:  # other programs
        assert "too few clean rounds" in error.what  # noqa: PT017
    else:
        assert lap.faster == (lap.ci95[0] > 1)
        assert lap.ci95[0] <= lap.ratio <= lap.ci95[1]


def facts(monkeypatch, **more):
    monkeypatch.setattr(racing, "facts_of", lambda _: {"machine": "x86_64", "cpu": "a CPU", **more})


ASKED = Request(float_where_faster=True, precisions=("fp32", "int8"), target="host")


def test_layers_are_timed_on_a_machine_of_the_boards_kind_only(monkeypatch):
    facts(monkeypatch)
    with pytest.raises(UsageError, match=r"layers for rpi4 \(aarch64\) cannot be timed on a CPU") as caught:
        race_of(ASKED, load_target("rpi4"), Journal(Nobody()))
    assert "--device" in caught.value.fix
    assert race_of(ASKED, replace(load_target("host"), arch="x86_64"), Journal(Nobody())) is not None


def test_no_layer_is_timed_under_an_emulator(monkeypatch):
    facts(monkeypatch, emulated=True, machine="aarch64")
    journal = Journal(Nobody())
    assert race_of(ASKED, load_target("rpi4"), journal) is None
    assert "emulated" in journal.warnings[0]


def test_no_board_is_looked_at_where_it_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(racing, "facts_of", lambda _: pytest.fail("looked at"))
    assert race_of(Request(), load_target("rpi4"), Journal(Nobody())) is None


@pytest.mark.parametrize("more", [(), ("--precisions", "int8", "--no-bench")])
def test_without_int8_or_times_it_is_refused_with_what_to_do(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fault(run_here("compress", "--float-where-faster", *more), 2, "--float-where-faster", "--precisions int8")


STEP = {"layers": ["conv1", "fc"], "int8_ms": 1.3, "float_ms": 0.5, "ratio": 1.2, "ci95": [1.1, 1.3], "kept": True}
FOUND = {"layers": 20, "in_float": ["conv1", "fc"], "steps": [STEP], "missed": ""}


def a_report(**changes):
    first, second, *others = FULL.artifacts
    cut = replace(second, details={**second.details, "race": {**FOUND, **changes}})
    return replace(FULL, artifacts=(first, cut, *others))


def test_the_table_says_what_was_tried_and_whether_it_was_kept():
    path = FULL.artifacts[1].path
    (row,) = tables(a_report())["race"].rows
    assert row == (path, "2 of 20", "conv1, fc", "1.300", "0.500", "1.200 [1.100, 1.300]", "yes")
    (row,) = tables(a_report(steps=[], in_float=[]))["race"].rows
    assert row == (path, "0 of 20", "none", "-", "-", "-", "-")
    (row,) = tables(a_report(steps=[], in_float=[], missed="layers were not timed: gone"))["race"].rows
    assert row[2] == "layers were not timed: gone"
    assert "race" not in tables(FULL)


@pytest.mark.parametrize("renderer", [html, markdown, terminal])
def test_every_report_draws_it_and_is_valid(renderer):
    assert "Layers in float for speed" in renderer.render(a_report())
    document = a_report().to_json()
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(document)
    assert Report.from_json(document) == a_report()


@pytest.mark.slow
def test_a_run_times_its_layers_and_hands_over_what_it_tells(tmp_path):
    options = ("--target", "host", "--formats", "onnx", "--precisions", "int8", "--recover", "none")
    options += ("--images", "40", "--calibration-images", "24")
    ran = run_program("compress", *options, "--float-where-faster", "--out", "run", cwd=tmp_path)
    assert ran.code in (0, 4), ran.err
    artifacts = [one for one in Report.load(tmp_path / "run" / "report.json").artifacts if one.precision == "int8"]
    assert len(artifacts) == 2
    for one in artifacts:
        told = one.details["race"]
        kept = [layer for step in told["steps"] if step["kept"] for layer in step["layers"]]
        assert told["in_float"] == kept
        stored = {tensor.name for tensor in onnx.load(tmp_path / "run" / one.path).graph.initializer}
        assert {f"{layer}.weight" for layer in kept} <= stored
    assert "Layers in float for speed" in (tmp_path / "run" / "report.md").read_text()
