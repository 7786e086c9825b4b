"""Where images come from: a folder, a tar, a `.npz` or a Python function. Listed here, decoded only when asked for."""

from __future__ import annotations

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgeprune.errors import DataError
from edgeprune.imports import load_object, looks_like_object, user_code

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_KINDS = (
    "Give a folder with one sub-folder a class, a tar of images with labels.txt ('path label' lines), "
    "a .npz with 'images' (uint8 [N, H, W, C]) and 'labels', or path/file.py:function returning such a pair."
)
_LARGEST_FILE = 1 << 28
"""Bytes; an encoded image above this is taken for broken, so that no single file fills the memory."""


@dataclass(frozen=True)
class ImageSource:
    """Images that are known by name but not yet decoded.

    Attributes:
        names: one name an image, in the order in which they lie on disk.
        labels: int64 [N], or None.
        read: the undecoded image at an index: a file's bytes, or uint8 [H, W] or [H, W, C].
        array: all images, uint8 [N, H, W] or [N, H, W, C], where the source holds them as an array; else None.
        classes: the name of each class, by its number; empty where the source names none, or not all.
    """

    names: Sequence[str]
    labels: np.ndarray | None
    read: Callable[[int], bytes | np.ndarray]
    array: np.ndarray | None = None
    classes: tuple[str, ...] = ()


@contextlib.contextmanager
def opened(source: str) -> Iterator[ImageSource]:
    """The images that `source` names: a path, or `path/file.py:function`, or `package.module:function`.

    Raises:
        DataError: there is nothing of that name, it cannot be read, or it does not hold images as it should.
    """
    with contextlib.ExitStack() as stack:
        try:
            found = _found(source, stack)
        except OSError as error:
            raise DataError(
                f"cannot read: {error.strerror or error}", where=source, fix="Check the path and its rights."
            ) from error
        yield found


def _found(source: str, stack: contextlib.ExitStack) -> ImageSource:
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if path.is_file() and path.suffix.lower() == ".npz":
        return _npz(path)
    if path.is_file() and path.name.lower().endswith(_TAR_SUFFIXES):
        return _tar(path, stack)
    if path.exists():
        raise DataError("this kind of file is not known", where=source, fix=_KINDS)
    if looks_like_object(source):
        return _function(source)
    raise DataError("no such file or folder", where=source, fix=_KINDS)


def _is_image(path: PurePosixPath | Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _folder(folder: Path) -> ImageSource:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    flat = sorted(entry for entry in folder.iterdir() if _is_image(entry) and entry.is_file())
    found = [sorted(p for p in each.rglob("*") if _is_image(p) and p.is_file()) for each in classes]
    files = [file for group in found for file in group]
    if flat and files:
        what = f"images lie both in the folder itself ({flat[0].name}) and in its sub-folders ({classes[0].name})"
        raise DataError(
            what, where=str(folder), fix="Sub-folders are classes: move the loose images into one, or elsewhere."
        )
    if not flat and not files:
        raise DataError("no images in this folder", where=str(folder), fix=_KINDS)
    # One sub-folder alone tells nothing about classes: calling it class 0 would give a senseless accuracy.
    labelled = files and len(classes) > 1
    labels = np.repeat(np.arange(len(classes)), [len(group) for group in found]).astype(np.int64) if labelled else None
    files = files or flat
    names = [file.relative_to(folder).as_posix() for file in files]

    def read(index: int) -> bytes:
        _check_size(files[index].stat().st_size)
        return files[index].read_bytes()

    return ImageSource(names, labels, read, classes=tuple(each.name for each in classes) if labelled else ())


def _check_size(size: int) -> None:
    if size > _LARGEST_FILE:
        raise ValueError(f"a file of {size} bytes is too large for an image")


def _tar(path: Path, stack: contextlib.ExitStack) -> ImageSource:
    try:
        archive = stack.enter_context(tarfile.open(path))  # noqa: SIM115 - closed by the stack
        members = {member.name.removeprefix("./"): member for member in archive if member.isreg()}
        listing = archive.extractfile(members["labels.txt"]) if "labels.txt" in members else None
        text = listing.read().decode("utf-8") if listing else None
    except (OSError, EOFError, tarfile.TarError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(
            f"cannot read this tar: {error}", where=str(path), fix="Copy it anew: it may be truncated."
        ) from error
    names = [name for name in members if _is_image(PurePosixPath(name))]
    labels, classes = None, tuple[str, ...]()
    if text is not None:
        rows = _parse_labels(text, path)
        absent = [name for name in rows if name not in members]
        if absent:
            what = f"labels.txt names {len(absent)} images that are not in the tar, first {absent[0]!r}"
            raise DataError(what, where=str(path), fix="Names in labels.txt are the members' full paths.")
        names = sorted(rows, key=lambda name: members[name].offset)
        labels = _checked_labels([rows[name] for name in names], len(names), str(path))
        classes = _folder_names(rows)
    if not names:
        raise DataError("no images in this tar", where=str(path), fix=_KINDS)

    def read(index: int) -> bytes:
        _check_size(members[names[index]].size)
        stream = archive.extractfile(members[names[index]])
        return stream.read() if stream else b""

    return ImageSource(names, labels, read, classes=classes)


def _parse_labels(text: str, path: Path) -> dict[str, int]:
    rows: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        name = name.strip().removeprefix("./")
        where = f"{path}, labels.txt line {number}: {line.strip()[:80]!r}"
        try:
            value = int(label)
        except ValueError:
            value = None
        if value is None or not name:
            raise DataError(
                "not a 'path label' line with a whole number", where=where, fix="Example: n01440764/7.jpg 0"
            )
        if name in rows:
            raise DataError(f"{name} is listed twice", where=where, fix="Give each image one line.")
        rows[name] = value
    if not rows:
        raise DataError("labels.txt lists no images", where=str(path), fix="One line an image: n01440764/7.jpg 0")
    return rows


def _folder_names(rows: Mapping[str, int]) -> tuple[str, ...]:
    """The folder of each class, where every class from 0 on has exactly one, of its own; else nothing."""
    pairs = {(label, PurePosixPath(name).parent.name) for name, label in rows.items()}
    names = [name for _, name in sorted(pairs)]
    numbered = sorted(label for label, _ in pairs) == list(range(len(pairs)))
    return tuple(names) if numbered and len(set(names)) == len(names) > 1 else ()


def _npz(path: Path) -> ImageSource:
    try:
        # Opened here: numpy leaves a file open that turns out not to be a zip archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            keys = list(stored.files)
            images = stored["images"] if "images" in keys else None
            labels = stored["labels"] if "labels" in keys else None
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        fix = "Write it anew with numpy.savez(path, images=..., labels=...); pickled objects are refused."
        raise DataError(f"cannot read this .npz: {error}", where=str(path), fix=fix) from error
    except MemoryError as error:
        raise DataError("the images do not fit into memory", where=str(path), fix="Store fewer in one file.") from error
    if images is None:
        raise DataError(
            f"no array named 'images' in this .npz; it has: {', '.join(keys) or 'none'}", where=str(path), fix=_KINDS
        )
    return _arrays(images, labels, str(path))


def _function(source: str) -> ImageSource:
    function = load_object(source, "data function", DataError)
    if not callable(function):
        raise DataError("not a function", where=source, fix=_KINDS)
    with user_code(source, "loading the images", DataError):
        pair = function()
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        fix = "Return the pair (images, labels); labels may be None."
        raise DataError(f"the function returned {type(pair).__name__}, not a pair", where=source, fix=fix)
    images, labels = pair
    for name, value, known in (
        ("images", images, (np.ndarray,)),
        ("labels", labels, (np.ndarray, list, tuple, type(None))),
    ):
        if not isinstance(value, known):
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise DataError(
                f"the function returned {name} as {kind}", where=source, fix="Return numpy arrays (tensor.numpy())."
            )
    return _arrays(images, labels, source)


def _arrays(images: np.ndarray, labels: Any, where: str) -> ImageSource:
    if images.dtype != np.uint8:
        fix = "Store pixels as uint8, 0 to 255: (images * 255).round().astype('uint8') if they are 0 to 1."
        raise DataError(f"images are {images.dtype}, wanted uint8", where=where, fix=fix)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        channels_first = images.ndim == 4 and images.shape[1] in (1, 3)
        fix = (
            "Put the channels last: images.transpose(0, 2, 3, 1)."
            if channels_first
            else "1 or 3 channels, the last axis."
        )
        raise DataError(f"images have shape {images.shape}, wanted [N, H, W, C] or [N, H, W]", where=where, fix=fix)
    if not images.size:
        raise DataError(f"no images: shape {images.shape}", where=where, fix=_KINDS)
    checked = None if labels is None else _checked_labels(labels, len(images), where)
    names = [f"{Path(where).name}[{index}]" for index in range(len(images))]
    return ImageSource(names, checked, lambda index: images[index], images)


def _checked_labels(labels: Any, count: int, where: str) -> np.ndarray:
    try:
        array = np.asarray(labels)
        if not np.issubdtype(array.dtype, np.integer):
            raise DataError(
                f"labels are {array.dtype}, wanted integers", where=where, fix="Labels are class indices from 0."
            )
        array = array.astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"labels are not a list of integers: {error}", where=where) from error
    if array.shape != (count,):
        raise DataError(
            f"{count} images but labels of shape {array.shape}", where=where, fix="Give one label an image."
        )
    if array.min() < 0:
        raise DataError(
            f"negative label {array.min()} at image {int(array.argmin())}", where=where, fix="Labels count from 0."
        )
    return array
