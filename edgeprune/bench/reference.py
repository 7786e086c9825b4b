"""What a file computes on the host: the reference for what it computes on a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.worker.loaded import arranged
from edgeprune.worker.runtimes import RUNTIMES

_TOLERANCE = 1e-3
"""Largest difference, as a share of the largest value: kernels add in another order, about 1e-6 in fp32."""
_TOLERANCE_COARSE = 5e-2
"""The same where numbers are coarse or of unknown precision: some steps of int8; TF32 and fp16 stay far below it."""


def host_outputs(artifacts: Sequence[Artifact], folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """The first output for the first image, by the files' SHA-256; without those whose runtime the host lacks.

    Args:
        artifacts: the files.
        folder: what their paths are relative to.
        images: float32 [k, C, H, W].
    """
    found = {}
    for one in artifacts:
        if RUNTIMES[one.runtime].installed():
            model = RUNTIMES[one.runtime].load(str(folder / one.path), 1)
            image = arranged(images[:1], one.layout, one.folded)
            found[one.sha256] = np.array(model.run(model.prepare(image)), np.float64).ravel()
    return found


def parity(
    output: Sequence[float], reference: np.ndarray | None, precision: str, *, accelerator: bool = False
) -> Mapping[str, Any]:
    """How far a device's output is from the host's: `max_rel` and `passed`; empty without a reference.

    Args:
        output: the first values of the device's.
        reference: all of the host's, [n].
        precision: of the file.
        accelerator: computed the output; it is allowed coarser numbers than the file's.
    """
    if reference is None or not len(output):
        return {}
    own = reference[: len(output)]
    largest = float(np.abs(own).max()) or 1.0
    difference = float(np.abs(np.asarray(output) - own).max()) / largest
    passed = difference <= tolerance(precision, accelerator=accelerator)
    return {"max_rel": difference if math.isfinite(difference) else None, "passed": passed}


def tolerance(precision: str, *, accelerator: bool = False) -> float:
    """How far a device's output may be from the host's, as a share of the largest value.

    Args:
        precision: of the file.
        accelerator: computed the output; it is allowed coarser numbers than the file's.
    """
    return _TOLERANCE if precision == "fp32" and not accelerator else _TOLERANCE_COARSE
