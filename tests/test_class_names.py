"""What classes are called: by the user, else by the folders of the images; never made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_nets import COST, SHAPE, Tiny, model_of
from program_runs import Tiny as Project
from program_runs import fault, run_here, tiny_project

from edgeprune.cutting import Traced, traced
from edgeprune.data import ImageSet
from edgeprune.errors import DataError, UsageError
from edgeprune.export.onnx import export_onnx
from edgeprune.inputs import with_classes
from edgeprune.journal import Journal, Nobody
from edgeprune.model import load_saved, save_model
from edgeprune.target import load_target

NAMES = ("Ameise", "Biene", "Gämse", "polar bear", "5")


@pytest.fixture(scope="module")
def tiny() -> Traced:
    return traced(model_of(Tiny), Journal(Nobody()))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tiny_project(tmp_path_factory.mktemp("project"))


def images_with(classes: tuple[str, ...], labels: list[int] | None = None) -> ImageSet:
    pixels = np.zeros((2, *SHAPE[1:], 3), np.uint8)
    return ImageSet(pixels, None if labels is None else np.array(labels), "here", 2, (), classes)


def test_names_are_read_one_a_line(tiny, tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeff".encode() + "\r\n".join((*NAMES, "", "")).encode())
    assert with_classes(tiny, file, images_with(("a",) * 5)).model.classes == NAMES


def test_without_a_file_the_images_name_them(tiny):
    assert with_classes(tiny, None, images_with(()), images_with(NAMES)).model.classes == NAMES


def test_names_of_images_that_are_more_or_fewer_than_the_outputs_say_nothing(tiny):
    assert with_classes(tiny, None, images_with(NAMES[:4]), images_with((*NAMES, "6"))).model.classes == ()


def test_names_that_a_model_has_stay(tiny):
    named = replace(tiny, model=replace(tiny.model, classes=NAMES))
    assert with_classes(named, None, images_with(NAMES[::-1])).model.classes == NAMES


def test_a_label_that_is_no_output_is_refused(tiny):
    with pytest.raises(DataError, match="labels out of range: 5"):
        with_classes(tiny, None, images_with(NAMES, [0, 5]))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"one\ntwo\n", "2 names of classes; the model has 5 classes"),
        (b"one\ntwo\n\nfour\nfive\n", r"5 names of classes \(line 3 is empty\); the model has 5 classes"),
        (b"\xff\xfe", "cannot read the names of the classes"),
        (None, "cannot read the names of the classes"),
    ],
)
def test_a_file_that_does_not_name_each_class_is_refused(tiny, tmp_path, content, told):
    file = tmp_path / "names.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=told) as caught:
        with_classes(tiny, file, images_with(()))
    assert caught.value.where == str(file)
    assert caught.value.fix


def test_the_command_refuses_too_few_names_before_anything_is_scored(project, tmp_path):
    (tmp_path / "names.txt").write_text("one\n")
    ran = run_here(*project.compress("--class-names", str(tmp_path / "names.txt"), "--out", str(tmp_path / "run")))
    fault(ran, 2, "1 names of classes; the model has 4 classes")
    assert "score" not in ran.err
    assert not (tmp_path / "run").exists()


def test_manifest_and_onnx_file_carry_the_names_and_neither_does_without_any(tmp_path):
    found = {}
    for classes in (NAMES, ()):
        model, path = replace(model_of(Tiny), classes=classes), tmp_path / f"{len(classes)}.onnx"
        artifact = export_onnx(model, COST, load_target("rpi4"), "fp32", path)
        facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        found[classes] = (artifact.details.get("classes"), facts.get("classes"))
    assert found == {NAMES: (list(NAMES), json.dumps(list(NAMES))), (): (None, None)}


def test_a_saved_model_keeps_them_and_one_of_before_has_none(tmp_path: Path):
    model = replace(model_of(Tiny), classes=NAMES, source=f"{tmp_path / 'net.py'}:Tiny")
    (tmp_path / "net.py").write_text("from export_nets import Tiny\n")
    save_model(model, tmp_path)
    assert load_saved(tmp_path).classes == NAMES
    document = json.loads((tmp_path / "pruned.json").read_text())
    del document["classes"]
    (tmp_path / "pruned.json").write_text(json.dumps(document))
    assert load_saved(tmp_path).classes == ()
