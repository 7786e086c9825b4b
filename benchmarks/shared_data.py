"""Real images for benchmarks, from the folder named by EDGEPRUNE_DATA (default `../shared/data` beside the repository).

Each function returns (images uint8 [N, 32, 32, 3], labels int64 [N]), sorted by class:

    edgeprune compress resnet56 --data benchmarks/shared_data.py:cifar10_test ...
"""

from __future__ import annotations

import io
import lzma
import os
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


def _jpeg_pack(name: str) -> tuple[np.ndarray, np.ndarray]:
    folder = Path(os.environ.get("EDGEPRUNE_DATA", _REPOSITORY / "../shared/data"))
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: set EDGEPRUNE_DATA to the folder that holds it")
    with lzma.open(path) as packed, np.load(io.BytesIO(packed.read()), allow_pickle=False) as stored:
        data, offsets, labels = stored["jpeg"].tobytes(), stored["offsets"], stored["labels"]
    images = np.empty((len(labels), 32, 32, 3), np.uint8)

    def decode(part: np.ndarray) -> None:
        from PIL import Image

        for index in part:
            with Image.open(io.BytesIO(data[offsets[index] : offsets[index + 1]])) as image:
                images[index] = np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(decode, np.array_split(np.arange(len(labels)), 16)):
            pass
    return images, labels.astype(np.int64)
