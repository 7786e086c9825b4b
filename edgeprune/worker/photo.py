"""A photo as a network wants it. Standard library, numpy and Pillow alone.

The board and the host share this file: what a model sees on the one is what it was verified with on the other.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

_CROP = 0.875
"""Share of the scaled image that the centre crop keeps: 224 of 256, the usual ImageNet evaluation."""


def decode(raw: bytes | np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """One image, decoded and brought to a network's input size.

    An image of the input's aspect ratio is scaled to it; any other is scaled to cover the input divided by 0.875
    and cut at its centre. Both bilinear, as in the usual ImageNet evaluation.

    Args:
        raw: a file's bytes, or uint8 [H, W] or [H, W, C].
        shape: (channels, height, width) to bring it to; 1 or 3 channels.

    Returns:
        uint8 [height, width, channels].

    Raises:
        Exception: whatever Pillow raises for a broken file.
    """
    from PIL import Image

    channels, height, width = shape
    if isinstance(raw, bytes):
        image: Image.Image = Image.open(io.BytesIO(raw))
    else:
        image = Image.fromarray(raw[..., 0] if raw.shape[2:] == (1,) else raw)
    if image.mode.startswith(("I", "F")):
        raise ValueError("more than 8 bits a pixel: convert it to 8 bits")
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = _resized(image, width, height)
    return np.asarray(image).reshape(height, width, channels)


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Pixels as a network's input: (pixel / 255 - mean) / std.

    Args:
        images: uint8 [n, height, width, channels].
        mean: per channel, of pixel values scaled to 0..1.
        std: per channel, of the same.

    Returns:
        float32 [n, channels, height, width], contiguous.
    """
    values = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
    values /= np.float32(255)
    values -= np.asarray(mean, np.float32)[:, None, None]
    values /= np.asarray(std, np.float32)[:, None, None]
    return values


def _resized(image: Any, width: int, height: int) -> Any:
    from PIL.Image import Resampling

    if image.width * height == image.height * width:
        return image.resize((width, height), Resampling.BILINEAR)
    cover = round(width / _CROP), round(height / _CROP)
    scale = max(cover[0] / image.width, cover[1] / image.height)
    size = max(cover[0], round(image.width * scale)), max(cover[1], round(image.height * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.resize(size, Resampling.BILINEAR).crop((left, top, left + width, top + height))
