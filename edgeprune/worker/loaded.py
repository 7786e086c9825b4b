"""What a runtime makes of a file, and what it raises where it cannot. Standard library and numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


class UnfitError(Exception):
    """A runtime cannot do what was asked, and it is known why.

    Args:
        reason: one sentence.
        fix: what to do about it.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.fix = fix


def arranged(images: np.ndarray, layout: str, folded: Mapping[str, Any] | None) -> np.ndarray:
    """Images as a file wants them, up to the steps in which it stores them.

    Args:
        images: normalised as the model wants them, float32 [n, C, H, W].
        layout: of the file's input, "NCHW" or "NHWC".
        folded: the `mean` and `std` that the file itself normalises with; then pixels from 0 to 1 are what it wants.
    """
    if folded:
        mean, std = (np.asarray(folded[key], np.float32)[:, None, None] for key in ("mean", "std"))
        images = images * std + mean
    return images.transpose(0, 2, 3, 1) if layout == "NHWC" else images


@dataclass(frozen=True)
class LoadedModel:
    """A file, loaded and ready.

    Attributes:
        version: of the runtime.
        prepare: one image, float32 [1, ...] in the file's layout, to what `run` takes; not timed.
        run: one inference, from an input in memory to the first output in memory; this is what is timed.
        placement: to be called once, after the first `run`: where the operators were executed, as shares of 1 by the
            runtime's own name of the place. Raises UnfitError if none was where it had to be.
        times: (input, seconds, fewest calls) -> ns of each call, for a runtime that times its own calls in a process of
            its own, warmed up; None where this process times `run`.
    """

    version: str
    prepare: Callable[[np.ndarray], Any]
    run: Callable[[Any], np.ndarray]
    placement: Callable[[], Mapping[str, float]]
    times: Callable[[Any, float, int], list[int]] | None = None
