"""Real images for benchmarks, from the folder named by EDGEPRUNE_DATA (default `../shared/data` beside the repository).

Each function returns (images uint8 [N, height, width, 3], labels int64 [N]):

    edgeprune compress resnet56 --data benchmarks/shared_data.py:cifar10_test ...

The first halves are there to tune on, the second ones to report on.
"""

from __future__ import annotations

import io
import lzma
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_REPOSITORY = Path(__file__).resolve().parent.parent


def cifar10_test() -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test images of CIFAR-10 (JPEG-75 copy)."""
    return _jpeg_pack("cifar10_test_jpeg.npz.xz")


def cifar10_train() -> tuple[np.ndarray, np.ndarray]:
    """The 50,000 training images of CIFAR-10 (JPEG-75 copy)."""
    return _jpeg_pack("cifar10_train_jpeg.npz.xz")


def cifar10_test_first() -> tuple[np.ndarray, np.ndarray]:
    """The first half of a seeded shuffle of those test images."""
    return _cifar10_test(slice(5000))


def cifar10_test_second() -> tuple[np.ndarray, np.ndarray]:
    """The second half of it."""
    return _cifar10_test(slice(5000, None))


def _cifar10_test(half: slice) -> tuple[np.ndarray, np.ndarray]:
    images, labels = cifar10_test()
    chosen = np.random.default_rng(0).permutation(len(labels))[half]
    return images[chosen], labels[chosen]


def tiny_imagenet() -> tuple[np.ndarray, np.ndarray]:
    """22,000 training images of Tiny-ImageNet, 64x64, labels in the order of ImageNet's classes."""
    return _jpeg_pack("tinyimagenet_train22k_64.npz.xz", 64)


def tiny_mosaics() -> tuple[np.ndarray, np.ndarray]:
    """Those 22,000 as 5,500 images of four, each scaled to 112x112: sharper than one scaled to 224x224.

    The label is that of the first.
    """
    from PIL import Image

    images, labels = tiny_imagenet()
    found = np.empty((len(images) // 4, 224, 224, 3), np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    for place, image in enumerate(order[: 4 * len(found)]):
        mosaic, quarter = divmod(place, 4)
        top, left = 112 * (quarter // 2), 112 * (quarter % 2)
        scaled = Image.fromarray(images[image]).resize((112, 112), Image.Resampling.BICUBIC)
        found[mosaic, top : top + 112, left : left + 112] = np.asarray(scaled)
    return found, labels[order[::4][: len(found)]]


def imagenet_val_first() -> tuple[np.ndarray, np.ndarray]:
    """The first half of the 1,300 ImageNet validation images after their seeded shuffle, 227x227."""
    return _imagenet_val(slice(650))


def imagenet_val_second() -> tuple[np.ndarray, np.ndarray]:
    """The second half of them."""
    return _imagenet_val(slice(650, None))


def _imagenet_val(half: slice) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    with tarfile.open(_path("imagenet_val1300_227.tar")) as tar:
        listing = tar.extractfile("labels.txt")
        assert listing is not None
        rows = [line.rsplit(" ", 1) for line in listing.read().decode().splitlines()]
        rows = [rows[place] for place in np.random.RandomState(0).permutation(len(rows))][half]
        files = [tar.extractfile(name) for name, _ in rows]
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files if file])
    return images, np.array([int(label) for _, label in rows])


def _path(name: str) -> Path:
    path = Path(os.environ.get("EDGEPRUNE_DATA", _REPOSITORY / "../shared/data")) / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: set EDGEPRUNE_DATA to the folder that holds it")
    return path


def _jpeg_pack(name: str, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    path = _path(name)
    with lzma.open(path) as packed, np.load(io.BytesIO(packed.read()), allow_pickle=False) as stored:
        data, offsets, labels = stored["jpeg"].tobytes(), stored["offsets"], stored["labels"]
    images = np.empty((len(labels), size, size, 3), np.uint8)

    def decode(part: np.ndarray) -> None:
        from PIL import Image

        for index in part:
            with Image.open(io.BytesIO(data[offsets[index] : offsets[index + 1]])) as image:
                images[index] = np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(decode, np.array_split(np.arange(len(labels)), 16)):
            pass
    return images, labels.astype(np.int64)
