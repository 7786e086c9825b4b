"""What every exporter does the same: refuse what it cannot do, write the bytes, describe them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.artifact import Artifact
from edgeprune.errors import UsageError
from edgeprune.files import writing
from edgeprune.model import Model
from edgeprune.plan import Cost


def require_fp32(name: str, precision: str) -> None:
    """Refuse any precision but fp32.

    Raises:
        UsageError: another precision.
    """
    if precision != "fp32":
        raise UsageError(f"the {name} exporter cannot write precision {precision!r}", fix="Available: fp32")


def write_artifact(
    model: Model, cost: Cost, content: bytes, out: Path, name: str, layout: str, details: Mapping[str, Any]
) -> Artifact:
    """Write an fp32 file and describe it.

    Args:
        model: what the file holds.
        cost: of the model.
        content: the file's bytes.
        out: where to, all of it or nothing.
        name: of the format.
        layout: of the file's input.
        details: what the exporter wants told.

    Raises:
        OutputError: the file cannot be written.
    """
    with writing(out) as temporary:
        temporary.write_bytes(content)
    return Artifact(
        path=out.name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        role="pruned" if model.plans else "baseline",
        format=name,
        precision="fp32",
        input_shape=model.input.shape,
        layout=layout,
        macs=cost.macs,
        parameters=cost.parameters,
        plan_fingerprint=model.plans[-1] if model.plans else None,
        details=details,
    )
