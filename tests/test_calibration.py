from __future__ import annotations

import numpy as np
import pytest
from export_nets import COST, Tiny, images_of, model_of

from edgeprune.errors import DataError, ExportError, UsageError
from edgeprune.export import EXPORTERS, PRECISIONS
from edgeprune.export.calibration import LEAST_IMAGES, calibration_of
from edgeprune.export.write import Feed, require, write_artifact
from edgeprune.target import load_target


def test_a_part_is_held_out_and_no_image_is_in_both():
    images = images_of(32)
    found = calibration_of(images)
    assert (len(found.images), len(found.held_out)) == (24, 8)
    np.testing.assert_array_equal(np.concatenate([found.images, found.held_out]), images)


def test_too_few_images_are_refused_and_counted():
    with pytest.raises(DataError, match=f"at least {LEAST_IMAGES} images .* there are 7") as caught:
        calibration_of(images_of(7), "photos.tar")
    assert caught.value.where == "photos.tar"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(value):
    images = images_of(16)
    images[3, 1, 2, 2] = value
    with pytest.raises(DataError, match="1 of 16 calibration images hold NaN"):
        calibration_of(images)


def test_images_that_show_no_range_are_refused():
    same = np.repeat(images_of(1), 16, axis=0)
    plain = np.broadcast_to(np.arange(16, dtype=np.float32).reshape(16, 1, 1, 1), (16, 3, 4, 4))
    for images in (same, plain):
        with pytest.raises(DataError, match="all the same, or each of one colour"):
            calibration_of(images)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_every_exporter_takes_calibration_images(name, tmp_path):
    exporter, calibration = EXPORTERS.load(name), calibration_of(images_of(16))
    with pytest.raises(UsageError, match="int4"):
        exporter(model_of(Tiny), COST, load_target("rpi4"), "int4", tmp_path / "x", calibration)


def test_int8_without_images_is_refused(monkeypatch):
    monkeypatch.setitem(PRECISIONS, "onnx", ("fp32", "int8"))
    with pytest.raises(UsageError, match="images to calibrate with"):
        require("onnx", "int8", None)


def test_an_empty_file_is_never_written(tmp_path):
    with pytest.raises(ExportError, match="empty onnx file"):
        write_artifact(
            model_of(Tiny),
            COST,
            b"",
            tmp_path / "x.onnx",
            ("onnx", "fp32", "NCHW"),
            {},
            (Feed("input", "float32"),) * 2,
        )
    assert list(tmp_path.iterdir()) == []
