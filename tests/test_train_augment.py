"""Crops, flips and orders are functions of seed, epoch and image; rates are functions of how far the training is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import EdgepruneError
from edgeprune.train.augment import augmented, draws, order
from edgeprune.train.settings import Course, Settings, learning_rate


@given(st.integers(0, 1000), st.integers(0, 100), st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_an_image_draws_the_same_numbers_whatever_the_others_are(seed, epoch, indices):
    together = draws(seed, epoch, np.array(indices), 3)
    alone = [draws(seed, epoch, np.array([index]), 3)[0] for index in indices]
    assert np.array_equal(together, alone)


def test_numbers_differ_by_seed_epoch_image_and_place_and_are_spread_evenly():
    found = np.stack([draws(seed, epoch, np.arange(500), 3) for seed in (0, 1) for epoch in (0, 1)])
    assert len(np.unique(found)) == found.size
    thirds = np.bincount((found % 3).astype(int).reshape(-1))
    assert thirds.min() > 0.9 * found.size / 3


def test_an_epochs_order_holds_every_image_once_and_differs_from_the_next():
    first, second = order(0, 0, 100), order(0, 1, 100)
    assert sorted(first) == list(range(100))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, order(0, 0, 100))


def test_an_image_is_moved_with_black_moving_in_and_mirrored():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    down_right_mirrored = np.array([[0, 2, 1]], np.uint64)  # one row above, one column to the right, mirrored
    moved = augmented(image, down_right_mirrored, padding=1, flip=True)[0, :, :, 0]
    assert moved.tolist() == [[0, 0, 0], [0, 3, 2], [0, 6, 5]]
    not_moved = np.array([[1, 1, 1]], np.uint64)
    assert np.array_equal(augmented(image, not_moved, padding=1, flip=False), image)


@given(st.integers(0, 4), st.booleans(), st.integers(0, 99))
def test_every_pixel_comes_from_the_image_or_is_black(padding, flip, seed):
    images = np.random.default_rng(seed).integers(1, 256, (4, 6, 5, 3), dtype=np.uint8)
    found = augmented(images, draws(seed, 0, np.arange(4), 3), padding, flip)
    assert found.shape == images.shape
    for before, after in zip(images, found, strict=True):
        assert set(after.reshape(-1)) <= {0, *before.reshape(-1)}


def test_the_rate_rises_in_a_line_and_falls_to_nothing():
    settings = Settings(rate=0.4, warm_up=0.25)
    assert learning_rate(0.125, settings) == pytest.approx(0.2)
    assert learning_rate(0.25, settings) == pytest.approx(0.4)
    assert learning_rate(0.625, settings) == pytest.approx(0.2)
    assert learning_rate(1.0, settings) == pytest.approx(0, abs=1e-12)


def test_a_training_is_as_far_as_its_steps_or_its_time():
    assert Course(10).share(4, 1e9) == 0.4
    assert Course(10, minutes=1).share(4, 12.0) == 0.4
    assert Course(10, minutes=1).share(4, 45.0) == 0.75
    assert Course(10, minutes=1).share(4, 120.0) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 1},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"minutes": -1.0},
        {"ema": 1.0},
        {"device": "gpu"},
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(wrong):
    with pytest.raises(EdgepruneError, match=next(iter(wrong)) if "rate" not in wrong else "--lr"):
        Settings(**wrong).check()
