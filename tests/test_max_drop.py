"""An accuracy that is asked for: what is judged by, what is told, and how a run ends that does not reach it."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from export_nets import COST, SHAPE, Tiny, model_of, outputs_of
from program_runs import run_program
from report_samples import FULL

from edgeprune.data import ImageSet
from edgeprune.errors import DataError, UsageError
from edgeprune.export.goal import Goal
from edgeprune.exporting import Wanted, export_files
from edgeprune.inputs import Photos, named_photos
from edgeprune.journal import Journal, Nobody
from edgeprune.report import mixed
from edgeprune.report.document import SCHEMA_FILE, Report
from edgeprune.report.render import html, markdown, terminal
from edgeprune.report.tables import tables
from edgeprune.request import Request
from edgeprune.target import load_target
from edgeprune.verifying import VerifyOrder, verify

FOUND = {
    "metric": "top1",
    "images": 1000,
    "max_drop": 0.5,
    "layers": 20,
    "lost_in_int8": 2.3,
    "lost_in_float": 0.1,
    "lost": 0.4,
    "in_float": ["conv1", "fc"],
    "steps": [
        {"layers": ["conv1"], "distances": [0.0123], "before": 2.3, "after": 0.9},
        {"layers": ["fc"], "distances": [0.00456], "before": 0.9, "after": 0.4},
    ],
    "missed": "",
}


def a_report(**changes):
    first, second, *others = FULL.artifacts
    cut = replace(second, details={**second.details, "mixed": {**FOUND, **changes}})
    return replace(FULL, artifacts=(first, cut, *others))


def photos_of(count, labels=True):
    random = np.random.default_rng(0)
    draw = lambda number: random.integers(0, 256, (number, *SHAPE[1:], 3), dtype=np.uint8)  # noqa: E731
    truth = random.integers(0, 5, count) if labels else None
    return Photos(ImageSet(draw(32), None, "noise", 32), ImageSet(draw(count), truth, "noise", count))


@pytest.mark.parametrize("most", [-0.1, 100.0, float("nan")])
def test_points_are_from_0_to_below_100(most):
    with pytest.raises(UsageError, match="--max-drop must be from 0 to below 100"):
        Request(max_drop=most, precisions=("fp32", "int8")).check()


def test_an_accuracy_without_int8_is_refused_with_what_to_add():
    with pytest.raises(UsageError, match="what int8 may cost") as caught:
        Request(max_drop=0.5).check()
    assert caught.value.fix == "Add --precisions int8."


def asked(tmp_path, count, most):
    images = np.random.default_rng(3).integers(0, 256, (count + 32, *SHAPE[1:], 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(count + 32) % 5)
    journal = Journal(Nobody())
    request = Request(data=str(tmp_path / "images.npz"), calibration_images=32, max_drop=most)
    return named_photos(request, model_of(Tiny), journal), journal.warnings


def test_half_of_the_images_to_score_with_are_chosen_by_and_not_reported_on(tmp_path):
    photos, warnings = asked(tmp_path, 400, 1.0)
    assert (len(photos.calibration), len(photos.choosing), len(photos.scoring)) == (32, 200, 200)
    parts = [{one.tobytes() for one in part.images} for part in (photos.calibration, photos.choosing, photos.scoring)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert photos.choosing.labels is not None
    assert warnings == []


def test_without_the_option_all_are_scored(tmp_path):
    photos, _ = asked(tmp_path, 400, None)
    assert (photos.choosing, len(photos.scoring)) == (None, 400)


def test_too_few_images_to_tell_so_little_are_warned_of(tmp_path):
    _, (warning,) = asked(tmp_path, 100, 0.5)
    assert warning.startswith("--max-drop 0.5 is judged by 50 images: one of them is 2 points")


def test_one_image_cannot_be_split(tmp_path):
    np.savez(tmp_path / "two.npz", images=np.arange(2 * 12 * 10 * 3, dtype=np.uint8).reshape(2, 12, 10, 3))
    request = Request(data=str(tmp_path / "two.npz"), max_drop=1.0)
    with pytest.raises(DataError, match="one image is not enough to choose by"):
        named_photos(request, model_of(Tiny), Journal(Nobody()))


def test_each_int8_file_is_judged_and_what_it_misses_is_warned_of(tmp_path):
    photos, model = photos_of(40), model_of(Tiny)
    own = outputs_of(model, model.input.normalise(photos.scoring.images)).argmax(1)
    goal = Goal(photos.scoring, model.input, (own + 1) % 5, 40, 1.0, "top1")  # labels that are all wrong
    journal = Journal(Nobody())
    wanted = Wanted(load_target("rpi4"), ("onnx",), ("fp32", "int8"), goal=goal)
    artifacts = export_files([(model, COST)] * 2, wanted, tmp_path, photos, journal)
    assert ["mixed" in one.details for one in artifacts] == [False, False, True, True]
    assert [warning.partition(":")[0] for warning in journal.warnings] == ["baseline-int8.onnx", "pruned-int8.onnx"]
    assert "are in float already" in journal.warnings[1]
    manifest = json.loads((tmp_path / "pruned-int8.onnx.json").read_text())
    assert manifest["details"]["mixed"]["missed"] == artifacts[3].details["mixed"]["missed"]


def test_the_table_has_a_row_for_the_file_in_int8_and_one_for_each_step():
    drawn = tables(a_report())["mixed"]
    path = FULL.artifacts[1].path
    assert drawn.rows == (
        (path, "0 of 20", "-", "-", "-", "2.30"),
        (path, "1 of 20", "conv1", "0.0123", "2.30", "0.90"),
        (path, "2 of 20", "fc", "0.00456", "0.90", "0.40"),
    )
    assert drawn.note.startswith("At most 0.5 points of top-1 against the uncut model were to be lost")
    assert "mixed" not in tables(FULL)


@pytest.mark.parametrize("renderer", [html, markdown, terminal])
def test_every_report_draws_it(renderer):
    text = renderer.render(a_report())
    assert "Layers in float" in text
    assert "conv1" in text
    assert "0.40" in text


def test_the_report_with_it_is_valid_and_comes_back():
    document = a_report().to_json()
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(document)
    assert Report.from_json(document) == a_report()


def test_only_what_the_cut_model_misses_is_a_missed_goal():
    assert mixed.missed(a_report().artifacts) == ""
    report = a_report(missed="at most 0.5 points, and 3 are")
    assert mixed.missed(report.artifacts) == f"{FULL.artifacts[1].path}: at most 0.5 points, and 3 are"
    uncut = tuple(replace(one, role="baseline") for one in report.artifacts)
    assert mixed.missed(uncut) == ""


@pytest.mark.slow
def test_a_cut_that_costs_too_much_by_itself_is_exit_1_and_leaves_the_run_folder(tmp_path):
    options = ("--ratio", "0.8", "--recover", "none", "--formats", "onnx", "--precisions", "int8", "--no-bench")
    ran = run_program("compress", *options, "--max-drop", "0.5", "--out", "run", cwd=tmp_path)
    assert ran.code == 1, ran.err
    assert "goal missed: pruned-int8.onnx: at most 0.5 points of top-1 were to be lost" in " ".join(ran.err.split())
    told = json.loads((tmp_path / "run" / "report.json").read_text())
    assert told["data"]["scoring"]["images"] == told["files"][0]["images"]
    assert (tmp_path / "run" / "pruned-int8.onnx").is_file()
    found = verify(VerifyOrder(tmp_path / "run"))
    assert found.accuracy.images == told["accuracy"]["images"]
    assert found.accuracy.uncut.share == told["accuracy"]["baseline"]
    assert [one.share for one in found.accuracy.steps if one.kept] == [told["accuracy"]["after_cut"]]
    shares = {one.artifact.path: one.accuracy.share for one in found.files if one.accuracy}
    assert {one["artifact"]: one["share"] for one in told["files"]}.items() <= shares.items()
