"""Random crops and flips, each a function of (seed, epoch, image): they need no state to go on where they ended."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def draws(seed: int, epoch: int, indices: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """Random numbers for some images, whatever the others are: uint64 [images, count].

    Args:
        seed: of the whole training.
        epoch: from 0.
        indices: the images' numbers.
        count: how many each needs.
    """
    start = _mixed(_mixed(np.array([seed], np.uint64) + _STEP) + _STEP * np.array([epoch + 1], np.uint64))
    own = _mixed(start + _STEP * indices.astype(np.uint64))
    return _mixed(own[:, None] + _STEP * np.arange(1, count + 1, dtype=np.uint64))


def order(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    """The order in which an epoch goes through the images."""
    return np.random.default_rng((seed, epoch)).permutation(images)


def augmented(images: NDArray[np.uint8], numbers: NDArray[np.uint64], padding: int, flip: bool) -> NDArray[np.uint8]:
    """Images moved by up to `padding` pixels each way, black moving in, and every second one mirrored.

    Args:
        images: [n, height, width, channels].
        numbers: [n, 3], see `draws`.
        padding: pixels.
        flip: whether to mirror.
    """
    if not padding and not flip:
        return images
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    down, right = ((numbers[:, place] % np.uint64(2 * padding + 1)).astype(np.int64) for place in (0, 1))
    mirrored = (numbers[:, 2] % np.uint64(2)).astype(bool) & flip
    columns = np.where(mirrored[:, None], np.arange(width)[::-1], np.arange(width)) + right[:, None]
    rows = np.arange(height) + down[:, None]
    moved: NDArray[np.uint8] = padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved
