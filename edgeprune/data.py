"""Images as a model wants them: loaded, split into disjoint parts, normalised in batches."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeprune.errors import DataError, UsageError
from edgeprune.images import ImageSource, opened
from edgeprune.progress import Tick, silent
from edgeprune.worker import infer

_CHUNK = 64
"""Images whose undecoded bytes are held at once."""
_THREADS = 4
"""Decoding threads; Pillow releases the interpreter lock while it decodes and scales."""


@dataclass(frozen=True)
class InputSpec:
    """What a model wants of an image.

    Attributes:
        shape: (channels, height, width); 1 or 3 channels.
        mean: per channel, of pixel values scaled to 0..1.
        std: per channel, of the same; above 0.

    Raises:
        UsageError: the numbers do not fit together.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        fix = "Example: --input 3x224x224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
        if len(self.shape) != 3 or self.shape[0] not in (1, 3) or min(self.shape) < 1:
            raise UsageError(f"{self.shape} is not an image shape of 1 or 3 channels, height, width", fix=fix)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.shape[0]:
                raise UsageError(f"{len(values)} values of {name} for {self.shape[0]} channels", fix=fix)
        if not np.isfinite((*self.mean, *self.std)).all() or min(self.std) <= 0:
            raise UsageError(f"mean {self.mean} and std {self.std} must be finite, and std above 0", fix=fix)

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Pixels as the network's input: (pixel / 255 - mean) / std.

        Args:
            images: uint8 [n, height, width, channels].

        Returns:
            float32 [n, channels, height, width], contiguous.
        """
        return infer.normalise(images, self.mean, self.std)

    def to_json(self) -> dict[str, Any]:
        """This spec as a JSON document."""
        return {"shape": list(self.shape), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> InputSpec:
        """The spec a JSON document describes.

        Raises:
            UsageError: a field is missing or of the wrong kind.
        """
        try:
            channels, height, width = (int(size) for size in document["shape"])
            mean, std = (tuple(float(value) for value in document[key]) for key in ("mean", "std"))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not an input spec: {type(error).__name__}: {error}") from error
        return cls((channels, height, width), mean, std)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded images, at a model's input size.

    Attributes:
        images: uint8 [N, height, width, channels].
        labels: int64 [N], or None.
        source: where they come from, as the user wrote it.
        total: how many images the source holds.
        skipped: names of images that were chosen but could not be decoded.
        classes: the name of each class, by its number; empty where the source names none, or not all.
        places: int64 [N], of each among those that it was drawn with; None where nobody asks, see `edgeprune.draw`.
    """

    images: np.ndarray
    labels: np.ndarray | None
    source: str
    total: int
    skipped: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int] | np.ndarray) -> ImageSet:
        """The images at `indices`, in that order."""
        chosen = np.asarray(indices, np.int64)
        labels, places = (None if one is None else one[chosen] for one in (self.labels, self.places))
        return replace(self, images=self.images[chosen], labels=labels, places=places)

    def batches(self, spec: InputSpec, size: int = 32) -> Iterator[np.ndarray]:
        """Normalised batches, in order; the last may be smaller: float32 [n <= size, channels, height, width]."""
        for start in range(0, len(self), size):
            yield spec.normalise(self.images[start : start + size])


def load_images(
    source: str, spec: InputSpec, *, limit: int | None = None, seed: int = 0, tick: Tick = silent
) -> ImageSet:
    """Load images and bring them to a model's input size.

    They come in a seeded random order, so that the first n are a fair sample of a source sorted by class, and a smaller
    limit gives the first images of a larger one. Which ones is decided before decoding: memory is bounded by `limit`.

    Args:
        source: a folder, tar, `.npz`, `path/file.py:function` or `package.module:function` (see `edgeprune.images`).
        spec: what the model wants.
        limit: how many images to choose at most; None for all. Broken ones among them are not replaced.
        seed: of the choice and order.
        tick: told how far it is.

    Raises:
        DataError: the source cannot be read, holds no images, or all chosen ones are broken.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"cannot load {limit} images", fix="Ask for at least 1.")
    with opened(source) as found:
        total = len(found.names)
        chosen = np.random.default_rng(seed).permutation(total)[:limit]
        try:
            images, broken = _decoded(found, chosen, spec.shape, tick)
        except MemoryError as error:
            fix = "Use fewer images, or a smaller input."
            raise DataError(f"{len(chosen)} images do not fit into memory", where=source, fix=fix) from error
    if len(broken) == len(chosen):
        first, reason = next(iter(broken.items()))
        what = f"none of the {len(chosen)} images can be decoded; {found.names[first]}: {reason}"
        raise DataError(what, where=source, fix="Check the files, for instance by opening one in a viewer.")
    skipped = tuple(found.names[index] for index in sorted(broken))
    if broken:
        whole = ~np.isin(chosen, list(broken))
        images, chosen = images[whole], chosen[whole]
    labels = None if found.labels is None else found.labels[chosen]
    return ImageSet(images, labels, source, total, skipped, found.classes)


def split(images: ImageSet, calibration: int, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Two disjoint parts: images to calibrate with, and images to score with.

    Args:
        images: what to split; every image goes to one of the parts.
        calibration: how many to calibrate with; never more than half of the images.
        seed: of the choice.

    Raises:
        DataError: there are fewer than two images.
    """
    if calibration < 1:
        raise UsageError(f"cannot calibrate with {calibration} images", fix="Ask for at least 1.")
    if len(images) < 2:
        what = (
            f"{len(images)} image is not enough: at least one is needed to calibrate with and another one to score with"
        )
        raise DataError(
            what, where=images.source, fix="Give more images, or others to calibrate with: --calibration-data PATH."
        )
    order = np.random.default_rng(seed).permutation(len(images))
    count = min(calibration, len(images) // 2)
    return images.take(order[:count]), images.take(order[count:])


def without(images: ImageSet, others: ImageSet) -> ImageSet:
    """The images that are not, pixel for pixel, among `others`: nothing is scored that was calibrated or trained with.

    Raises:
        DataError: none is left.
    """
    seen = {_digest(image) for image in others.images}
    fresh = [index for index, image in enumerate(images.images) if _digest(image) not in seen]
    if not fresh:
        what = "every image to score with is also one to calibrate with or to train on"
        fix = "Name other images to score with, to calibrate with (--calibration-data) or to train on (--train-data)."
        raise DataError(what, where=images.source, fix=fix)
    return images if len(fresh) == len(images) else images.take(fresh)


def _digest(image: np.ndarray) -> bytes:
    """Stands for an image: there may be more to train on than memory for a copy of them."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def together(sets: Sequence[ImageSet], seed: int = 0) -> ImageSet:
    """Several sets of images as one, in a seeded random order; with labels only if all have them."""
    if len(sets) == 1:
        return sets[0]
    order = np.random.default_rng(seed).permutation(sum(map(len, sets)))
    starts = np.cumsum([0, *map(len, sets)])
    images = np.empty((len(order), *sets[0].images.shape[1:]), np.uint8)
    place = np.argsort(order)
    for start, each in zip(starts, sets, strict=False):
        images[place[start : start + len(each)]] = each.images
    known = [each.labels for each in sets if each.labels is not None]
    return ImageSet(
        images,
        np.concatenate(known)[order] if len(known) == len(sets) else None,
        ", ".join(each.source for each in sets),
        sum(each.total for each in sets),
        tuple(name for each in sets for name in each.skipped),
    )


def check_labels(images: ImageSet, classes: int) -> None:
    """Check that every label is one of the model's classes.

    Raises:
        DataError: labels are out of range; says which and how many.
    """
    if images.labels is None:
        return
    outside = np.unique(images.labels[(images.labels < 0) | (images.labels >= classes)])
    if not len(outside):
        return
    count = int(np.isin(images.labels, outside).sum())
    named = ", ".join(str(label) for label in outside[:5]) + (", ..." if len(outside) > 5 else "")
    shifted = images.labels.min() == 1 and images.labels.max() == classes
    hint = (
        "They seem to count from 1: subtract 1."
        if shifted
        else "Check that the data set and the model belong together."
    )
    what = f"labels out of range: {named} ({count} of {len(images)} images); the model has classes 0 to {classes - 1}"
    raise DataError(what, where=images.source, fix=hint)


def _decoded(
    found: ImageSource, chosen: np.ndarray, shape: tuple[int, int, int], tick: Tick
) -> tuple[np.ndarray, dict[int, str]]:
    """The chosen images, uint8 [n, height, width, channels], and for each broken one its index and the reason."""
    channels, height, width = shape
    if found.array is not None and found.array.shape[1:] == (height, width, channels):
        return found.array[chosen], {}
    images = np.zeros((len(chosen), height, width, channels), np.uint8)
    broken: dict[int, str] = {}
    order = np.argsort(chosen)  # As they lie on disk: a compressed tar must not be wound back.
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        _silence_pillow()
        for start in range(0, len(order), _CHUNK):
            places = order[start : start + _CHUNK]
            raw = [_attempt(found.read, int(chosen[place])) for place in places]
            for place, image in zip(places, pool.map(lambda each: _attempt(_decode, each, shape), raw), strict=True):
                if isinstance(image, Exception):
                    broken[int(chosen[place])] = str(image) or type(image).__name__
                else:
                    images[place] = image
            tick(min(start + _CHUNK, len(order)), len(order))
    return images, broken


def _attempt(action: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or the exception: Pillow's decoders raise nearly every kind for a broken file."""
    try:
        return action(*arguments)
    except MemoryError:
        raise
    except Exception as error:
        return error


def _decode(raw: bytes | np.ndarray | Exception, shape: tuple[int, int, int]) -> np.ndarray:
    if isinstance(raw, Exception):
        raise raw
    return infer.decode(raw, shape)


def _silence_pillow() -> None:
    from PIL import Image

    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
