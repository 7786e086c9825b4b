"""A finished run opened again: the images that are scored then are those that its report was made of."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from export_nets import SHAPE, Tiny, model_of
from report_samples import FULL

from edgeprune.data import ImageSet
from edgeprune.draw import Draw
from edgeprune.errors import DataError
from edgeprune.inputs import Photos, food, named_photos
from edgeprune.journal import Journal, Nobody
from edgeprune.reopening import asked_again, data_use, fresh_photos, photos_again
from edgeprune.report.document import SCHEMA_FILE, Report
from edgeprune.request import Request

MODEL = model_of(Tiny)
BARE = replace(FULL, measurements=(), comparisons=(), sustained=(), artifacts=(), layers=())
EVERY_WAY = list(itertools.product((None, 1.0), *[(False, True)] * 3, (70, 1000)))
"""max_drop, whether there are others to calibrate with, images to train on that are scored, too, and images twice; how
many to score at most, of which there are more and fewer."""


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE[1:], 3), dtype=np.uint8)


def stored(path: Path, images: np.ndarray) -> str:
    np.savez(path, images=images, labels=np.arange(len(images)) % 5)
    return str(path)


@dataclass(frozen=True)
class Sources:
    """Where images are, and what of them is used."""

    data: str
    calibration: str | None = None
    training: str | None = None

    def request(self, **more) -> Request:
        return Request(data=self.data, calibration_data=self.calibration, calibration_images=24, **more)


def sources(folder: Path, apart: bool, trained: bool, twice: bool) -> Sources:
    """100 images; a quarter of them, where asked, are there twice, to calibrate with, too, or to train on, too."""
    images, others = pixels(100), pixels(30, 1)
    if twice:
        images, others = np.concatenate([images, images[:25]]), np.concatenate([others, images[10:35]])
    calibration = stored(folder / "others.npz", others) if apart else None
    training = stored(folder / "food.npz", np.concatenate([images[40:65], pixels(9, 2)])) if trained else None
    return Sources(stored(folder / "images.npz", images), calibration, training)


def run_with(photos: Photos, seed: int = 0) -> Report:
    """The report of a run with these images, as it is read again."""
    report = replace(BARE, data=data_use(photos), run=replace(FULL.run, seed=seed))
    return Report.from_json(json.loads(json.dumps(report.to_json())))


def quiet() -> Journal:
    return Journal(Nobody())


def taken(asked: Request, training: str | None = None) -> Photos:
    """The images of a `compress`."""
    photos = named_photos(asked, MODEL, quiet())
    if training:
        _, photos = food([training], 1000, photos, MODEL, quiet(), labels=False, seed=asked.seed)
    return photos


def those(images: ImageSet | None) -> set[bytes]:
    return set() if images is None else {one.tobytes() for one in images.images}


def same(one: ImageSet | None, other: ImageSet | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize(("most", "apart", "trained", "twice", "limit"), EVERY_WAY)
def test_the_very_images_of_a_run_are_scored_again(tmp_path, most, apart, trained, twice, limit):
    found = sources(tmp_path, apart, trained, twice)
    photos = taken(found.request(max_drop=most, images=limit, seed=3), found.training)
    before = run_with(photos, seed=3)
    request = asked_again(before)
    again = photos_again(request, before.data, MODEL, quiet())
    assert same(fresh_photos(request, before.data, None, None, MODEL, quiet()), photos.scoring)
    assert all(map(same, (again.calibration, again.scoring), (photos.calibration, photos.scoring)))
    assert same(again.choosing, photos.choosing)
    assert data_use(again) == before.data


@pytest.mark.parametrize(("most", "apart", "trained", "twice", "limit"), EVERY_WAY)
def test_what_is_finetuned_scores_nothing_that_its_run_learnt_or_was_chosen_by(
    tmp_path, most, apart, trained, twice, limit
):
    """Whatever else is asked of it: another seed, an accuracy to keep to, others to calibrate with or to train on."""
    found = sources(tmp_path, apart, trained, twice)
    photos = taken(found.request(max_drop=most, images=limit), found.training)
    before = run_with(photos)
    seen = those(photos.calibration) | those(photos.choosing)
    more = stored(tmp_path / "more.npz", np.concatenate([pixels(100)[90:], pixels(8, 4)]))
    for changes in ({"max_drop": 5.0}, {"calibration_data": more}, {"seed": 9}, {"max_drop": 5.0, "seed": 9}):
        request = replace(asked_again(before), **changes)
        again = photos_again(request, before.data, MODEL, quiet())
        _, again = food([more], 12, again, MODEL, quiet(), labels=False, seed=9)
        assert those(again.scoring) <= those(photos.scoring)
        assert not those(again.scoring) & (seen | those(again.calibration) | those(again.choosing))
        if most is not None:
            assert those(again.choosing) <= those(photos.choosing)
        second = run_with(again, seed=9)
        third = photos_again(asked_again(second), second.data, MODEL, quiet())
        assert all(map(same, (third.calibration, third.scoring), (again.calibration, again.scoring)))
        assert same(third.choosing, again.choosing)


def test_broken_images_are_drawn_again_and_change_nothing(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for number, one in enumerate(pixels(40)):
        Image.fromarray(one).save(folder / f"{number:02}.png")
    for number in (3, 17, 30):
        (folder / f"{number:02}.png").write_bytes(b"torn")
    for most, limit in itertools.product((None, 5.0), (12, 1000)):
        asked = Request(data=str(folder), calibration_images=8, images=limit, max_drop=most)
        photos = taken(asked)
        before = run_with(photos)
        assert same(photos_again(asked_again(before), before.data, MODEL, quiet()).scoring, photos.scoring)


def test_other_images_to_verify_with_are_none_that_the_run_was_chosen_by(tmp_path):
    found = sources(tmp_path, apart=False, trained=False, twice=False)
    photos = taken(found.request(max_drop=1.0))
    before, new = run_with(photos), pixels(7, 5)
    more = stored(tmp_path / "more.npz", np.concatenate([pixels(100), new]))
    fresh = fresh_photos(asked_again(before), before.data, more, None, MODEL, quiet())
    assert those(fresh) == those(photos.scoring) | {one.tobytes() for one in new}


@pytest.mark.parametrize("more", [-1, 1])
def test_a_source_that_has_changed_since_is_told(tmp_path, more):
    found = sources(tmp_path, apart=False, trained=False, twice=False)
    before = run_with(taken(found.request(max_drop=1.0)))
    stored(Path(found.data), pixels(100 + more))
    journal = quiet()
    photos_again(asked_again(before), before.data, MODEL, journal)
    (warning,) = journal.warnings
    assert f"holds {100 + more} images, and held 100 when the run was made" in warning
    assert "may have been calibrated with or chosen by" in warning


def test_a_report_from_before_this_was_kept_is_opened_as_it_was(tmp_path):
    found = sources(tmp_path, apart=False, trained=False, twice=False)
    photos = taken(found.request())
    report = run_with(photos)
    document = report.to_json()
    del document["data"]["draw"]
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    older = Report.from_json(document)
    assert older.data.draw is None
    assert older.to_json() == document
    request = asked_again(older)
    assert (request.images, request.calibration_images) == (76, 24)
    assert same(photos_again(request, older.data, MODEL, quiet()).scoring, photos.scoring)


def test_what_was_drawn_is_in_the_report_and_fits_its_schema(tmp_path):
    found = sources(tmp_path, apart=False, trained=True, twice=False)
    plain, trained = (run_with(taken(found.request(max_drop=1.0), food)).to_json() for food in (None, found.training))
    for document in (plain, trained):
        jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    told = {"seed": 0, "total": 100, "calibration_images": 24, "loaded": 76, "set_aside": 38, "left_out": []}
    assert plain["data"]["draw"] == told
    assert plain["data"]["scoring"]["images"] == 38
    draw, scored = trained["data"]["draw"], trained["data"]["scoring"]["images"]
    assert draw["left_out"]
    assert scored == 76 - draw["set_aside"] - sum(place >= draw["set_aside"] for place in draw["left_out"])


def test_places_that_were_not_loaded_are_refused():
    images = replace(ImageSet(pixels(6), None, "noise", 6), places=np.arange(6))
    draw = Draw(seed=0, total=6, calibration_images=0, loaded=6, set_aside=2, left_out=(0, 3))
    choosing, scoring = draw.parts(images)
    assert choosing is not None
    assert (list(choosing.places), list(scoring.places)) == ([1], [2, 4, 5])
    with pytest.raises(DataError, match="none of the run's images to score with is left"):
        replace(draw, set_aside=6).parts(images)
