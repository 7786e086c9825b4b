"""edgeprune: prune a CNN by filter similarity, recover it, export it, and measure whether it got faster.

The names below are the public library; the command line is a thin layer over them. Importing edgeprune imports none of
them.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# From 1.29 on ONNX Runtime tells its makers of every import; the only full way out is this, before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

_PUBLIC = {
    "Artifact": "edgeprune.artifact",
    "Budget": "edgeprune.plan",
    "ChannelMap": "edgeprune.channels",
    "Cost": "edgeprune.plan",
    "Description": "edgeprune.prune.describe",
    "EdgepruneError": "edgeprune.errors",
    "ImageSet": "edgeprune.data",
    "InputSpec": "edgeprune.data",
    "Measurement": "edgeprune.measurement",
    "Model": "edgeprune.model",
    "Outcome": "edgeprune.pipeline",
    "PruningPlan": "edgeprune.plan",
    "Report": "edgeprune.report.document",
    "Request": "edgeprune.request",
    "Target": "edgeprune.target",
    "compress": "edgeprune.pipeline",
    "inspect": "edgeprune.inspection",
    "load": "edgeprune.model:load_saved",
    "load_model": "edgeprune.model",
    "load_target": "edgeprune.target",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 (the keys are strings)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
