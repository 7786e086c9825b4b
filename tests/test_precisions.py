"""Files in several precisions: asked for, written, compared, scored and reported."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
from export_nets import COST, SHAPE, Several, Tiny, images_of, model_of, outputs_of
from report_samples import FULL, speed_up

from edgeprune.data import ImageSet
from edgeprune.errors import ParityError, UsageError
from edgeprune.export import parity
from edgeprune.export.onnx import export_onnx
from edgeprune.export.onnx_half import half
from edgeprune.exporting import Wanted, export_files, score_files
from edgeprune.files import read_json, sha256_of
from edgeprune.inputs import Photos, chosen_formats
from edgeprune.journal import Journal, Nobody
from edgeprune.report.document import SCHEMA_FILE, Report
from edgeprune.report.headline import headline
from edgeprune.report.precisions import FileAccuracy
from edgeprune.report.scores import Change
from edgeprune.report.tables import tables
from edgeprune.request import Request, parse_precisions
from edgeprune.target import load_target

TARGET = load_target("rpi4")


def photos_of(labels=True, count=40):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, *SHAPE[1:], 3), dtype=np.uint8)
    scoring = ImageSet(images, random.integers(0, 5, count) if labels else None, "noise", count)
    calibration = ImageSet(random.integers(0, 256, (32, *SHAPE[1:], 3), dtype=np.uint8), None, "noise", 32)
    return Photos(calibration, scoring)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    models = [(model_of(Tiny), COST), (model_of(Tiny, plans=("plan",)), COST)]
    wanted = Wanted(TARGET, ("onnx",), ("fp32", "fp16"))
    return export_files(models, wanted, folder, photos_of(), Journal(Nobody())), folder


@pytest.mark.parametrize(
    ("typed", "precisions"),
    [("fp32", ("fp32",)), ("int8", ("fp32", "int8")), ("int8,fp16,int8", ("fp32", "fp16", "int8"))],
)
def test_fp32_is_always_written_and_the_most_exact_comes_first(typed, precisions):
    assert parse_precisions(typed) == precisions


def test_an_unknown_precision_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="--precisions 'int4'") as caught:
        Request(precisions=parse_precisions("int4")).check()
    assert "int8" in caught.value.fix


def test_a_precision_that_a_format_does_not_have_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("edgeprune.inputs.PRECISIONS", {"onnx": ("fp32", "fp16"), "tflite": ("fp32",)})
    request = Request(precisions=("fp32", "fp16"), formats=("onnx", "tflite"))
    with pytest.raises(UsageError, match="tflite files cannot be written in fp16") as caught:
        chosen_formats(request, TARGET, Journal(Nobody()))
    assert "--formats onnx" in caught.value.fix


def test_a_precision_that_the_board_does_not_compute_in_is_warned_of():
    journal = Journal(Nobody())
    chosen_formats(Request(precisions=("fp32", "fp16"), formats=("onnx",)), TARGET, journal)
    assert journal.warnings == [f"{TARGET.title} does not compute in fp16: that makes files smaller, not faster"]


def test_every_model_is_written_in_every_precision_with_its_manifest(written):
    artifacts, folder = written
    assert [one.path for one in artifacts] == [
        "baseline-fp32.onnx",
        "pruned-fp32.onnx",
        "baseline-fp16.onnx",
        "pruned-fp16.onnx",
    ]
    for one in artifacts:
        assert (one.precision, one.role) == (one.path[9:13] if one.role == "baseline" else one.path[7:11], one.role)
        assert one.parity.passed
        assert one.parity.images == 40
        assert read_json(folder / f"{one.path}.json", 1)["parity"]["cosine"] == pytest.approx(1, abs=1e-4)


def test_settings_reach_the_exporter_of_their_format_and_its_warnings_the_run(tmp_path, monkeypatch):
    given = []

    class Exporters:
        def load(self, name):
            return lambda *asked, **settings: given.append((name, settings)) or warned(export_onnx(*asked))

    def warned(artifact):
        return replace(artifact, details={**artifact.details, "warnings": ["look out"]})

    monkeypatch.setattr("edgeprune.exporting.EXPORTERS", Exporters())
    wanted = Wanted(TARGET, ("onnx",), settings={"onnx": {"flavour": "plain"}, "tflite": {"int8": "dynamic"}})
    journal = Journal(Nobody())
    export_files([(model_of(Tiny), COST)] * 2, wanted, tmp_path, photos_of(), journal)
    assert [(name, settings["flavour"]) for name, settings in given] == [("onnx", "plain")] * 2
    assert all(settings.keys() == {"flavour", "tick"} for _, settings in given)
    assert journal.warnings == ["baseline-fp32.onnx: look out", "pruned-fp32.onnx: look out"]


def test_manifest_and_file_say_how_to_feed_it_and_what_wrote_it(written):
    folder = written[1]
    told = read_json(folder / "pruned-fp16.onnx.json", 1)
    spec = model_of(Tiny).input
    assert told["details"]["input"] == {
        "name": "input",
        "dtype": "float32",
        "layout": "NCHW",
        "shape": [1, *SHAPE],
        "mean": list(spec.mean),
        "std": list(spec.std),
        "resize": "bilinear",
        "crop": 0.875,
        "scale": None,
        "zero_point": None,
    }
    assert told["details"]["output"] == {"name": "output", "dtype": "float32", "scale": None, "zero_point": None}
    assert told["details"]["tools"].keys() >= {"edgeprune", "torch", "onnx", "onnxruntime", "onnxsim"}
    facts = {entry.key: entry.value for entry in onnx.load(folder / "pruned-fp16.onnx").metadata_props}
    assert json.loads(facts["input"]) == told["details"]["input"]
    assert json.loads(facts["tools"]) == told["details"]["tools"]
    assert (facts["plan_fingerprint"], told["plan_fingerprint"], facts["precision"]) == ("plan", "plan", "fp16")
    assert told["sha256"] == sha256_of(folder / "pruned-fp16.onnx")


def test_the_report_counts_the_operators_of_each_file(written):
    artifacts, _ = written
    rows = tables(replace(FULL, artifacts=artifacts))["graphs"].rows
    assert rows[0][0] == "baseline-fp32.onnx"
    assert rows[0][-1] == "Conv 3, Relu 2, Add 1, Clip 1, Gemm 1, ReduceMean 1"
    assert rows[2][-1].startswith("Conv 3, Cast 2")
    assert "graphs" not in tables(FULL)


def test_an_fp16_file_is_half_the_size_takes_float32_and_passes_the_checker(written):
    artifacts, folder = written
    full, short = artifacts[0], artifacts[2]
    proto = onnx.load(folder / short.path)
    onnx.checker.check_model(proto, full_check=True)
    weights = [tensor for tensor in proto.graph.initializer if len(tensor.dims) > 1]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    session = onnxruntime.InferenceSession(folder / short.path, providers=["CPUExecutionProvider"])
    assert {session.get_inputs()[0].type, session.get_outputs()[0].type} == {"tensor(float)"}
    assert short.bytes < full.bytes
    images = images_of()
    np.testing.assert_allclose(
        session.run(None, {"input": images})[0], outputs_of(model_of(Tiny), images), atol=2e-3, rtol=0
    )


def test_the_nodes_of_an_fp16_file_follow_those_they_read(tmp_path):
    export_onnx(model_of(Several), COST, TARGET, "fp16", tmp_path / "x.onnx")
    graph = onnx.load(tmp_path / "x.onnx").graph
    known = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        assert known >= {name for name in node.input if name}
        known |= set(node.output)


def test_the_same_model_gives_the_same_fp16_bytes(written, tmp_path):
    again = export_onnx(model_of(Tiny), COST, TARGET, "fp16", tmp_path / "größe 1.onnx")
    assert again.sha256 == written[0][2].sha256


def test_weights_beyond_what_fp16_holds_are_told():
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Mul", ["x", "w"], ["y"])],
            "large",
            [onnx.helper.make_tensor_value_info("x", 1, [2])],
            [onnx.helper.make_tensor_value_info("y", 1, [2])],
            [onnx.numpy_helper.from_array(np.array([1, 1e5], np.float32), "w")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )
    before = proto.SerializeToString()
    _, warnings = half(proto)
    assert warnings == ["1 weights are beyond 65504, the most that fp16 holds, and were cut off"]
    assert proto.SerializeToString() == before


def test_an_output_that_points_elsewhere_fails_however_small_its_values(written, monkeypatch):
    artifacts, folder = written
    turned = {"fp32": parity.Tolerance(max_rel=float("inf"), near_tie=9.0, top1_agreement=0.0, cosine=0.9)}
    monkeypatch.setattr(parity, "TOLERANCES", turned)
    other = model_of(Tiny)
    other.module.head.weight.data.neg_()
    with pytest.raises(ParityError, match=r"cosine to the model's outputs -?0\.\d+; at least 0\.9 is wanted"):
        parity.check(artifacts[0], folder, other, images_of())


def test_each_file_is_scored_beside_its_fp32_file(written):
    artifacts, folder = written
    photos, model = photos_of(), model_of(Tiny)
    scored = score_files(artifacts, folder, model.input, photos.scoring, Journal(Nobody()))
    assert [(one.artifact, one.reference) for one in scored] == [
        ("baseline-fp32.onnx", "baseline-fp32.onnx"),
        ("pruned-fp32.onnx", "pruned-fp32.onnx"),
        ("baseline-fp16.onnx", "baseline-fp32.onnx"),
        ("pruned-fp16.onnx", "pruned-fp32.onnx"),
    ]
    right = outputs_of(model, model.input.normalise(photos.scoring.images)).argmax(1) == photos.scoring.labels
    assert scored[0].share == pytest.approx(right.mean())
    assert (scored[0].change, scored[2].change is None) == (None, False)
    low, high = scored[2].change.ci95
    assert low <= scored[2].change.difference <= high


@pytest.mark.parametrize("labels", [True, False])
def test_what_cut_and_precision_cost_together_is_counted_beside_the_uncut_file(tmp_path, labels):
    worse, scoring = model_of(Tiny, plans=("plan",)), photos_of(labels).scoring
    worse.module.head.weight.data.neg_()
    models = [(model_of(Tiny), COST), (worse, COST)]
    artifacts = export_files(models, Wanted(TARGET, ("onnx",), ("fp32",)), tmp_path, photos_of(), Journal(Nobody()))
    scored = score_files(artifacts, tmp_path, worse.input, scoring, Journal(Nobody()), alone=True)
    uncut, cut = (
        outputs_of(model, worse.input.normalise(scoring.images)).argmax(1) for model in (model_of(Tiny), worse)
    )
    right = uncut if scoring.labels is None else scoring.labels
    moved = (cut == right).mean() - (uncut == right).mean()
    assert scored[0].against_uncut is None
    assert scored[1].against_uncut.difference == pytest.approx(moved)
    assert moved != 0
    low, high = scored[1].against_uncut.ci95
    assert low <= moved <= high


def test_without_labels_agreement_with_the_fp32_file_is_counted(written):
    artifacts, folder = written
    scored = score_files(artifacts, folder, model_of(Tiny).input, photos_of(labels=False).scoring, Journal(Nobody()))
    assert {one.metric for one in scored} == {"agreement"}
    assert scored[0].share == 1.0


def test_fp32_files_alone_are_not_scored_again(written):
    artifacts, folder = written
    assert score_files(artifacts[:2], folder, model_of(Tiny).input, photos_of().scoring, Journal(Nobody())) == ()


def a_report():
    cut = replace(FULL.artifacts[1], path="pruned.int8.onnx", precision="int8", sha256="c3" * 32)
    faster = replace(speed_up("onnxruntime", 2, 2.5, (2.4, 2.6), "faster"), candidate=cut.path)
    lost = Change(-0.006, (-0.014, 0.002))
    rows = (
        FileAccuracy("pruned.fp32.onnx", "fp32", "pruned.fp32.onnx", "top1", 1044, 0.701),
        FileAccuracy("pruned.int8.onnx", "int8", "pruned.fp32.onnx", "top1", 1044, 0.695, lost),
    )
    return replace(FULL, artifacts=(*FULL.artifacts, cut), comparisons=(*FULL.comparisons, faster), files=rows)


def test_the_headline_speaks_of_fp32_first_and_of_the_others_with_their_accuracy():
    told = headline(a_report())
    assert told.startswith("Faster in 2 of 3 settings")
    assert "In int8 2.50x [2.40, 2.60] (onnxruntime, 2 threads), beside the uncut model in fp32." in told
    assert "pruned.int8.onnx: -0.6 points against fp32." in told


def test_the_table_shows_each_files_accuracy_and_its_change():
    drawn = tables(a_report())["precisions"]
    assert drawn.rows[0][-1] == "reference"
    assert drawn.rows[1] == ("pruned.int8.onnx", "int8", "69.5 % [66.6, 72.2]", "-0.6 [-1.4, +0.2]")
    assert "Top-1" in [column.title for column in drawn.columns]
    assert "precisions" not in tables(FULL)


def test_the_report_with_scored_files_is_valid_and_comes_back():
    document = a_report().to_json()
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(document)
    assert Report.from_json(document) == a_report()
    assert "files" not in FULL.to_json()
