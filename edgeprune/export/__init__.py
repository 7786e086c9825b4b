"""Export: a model becomes a file for a board. One format = one file = one function; this is the table of them.

An exporter is `(model, cost, target, precision, out, calibration) -> Artifact`. It writes `out` whole or not at all and
leaves the model as it was. `calibration` (see `edgeprune.export.calibration`) is None unless the precision is int8.
"""

from __future__ import annotations

import importlib.util

from edgeprune.registry import Registry

EXPORTERS = Registry(
    "format",
    {"onnx": "edgeprune.export.onnx:export_onnx", "tflite": "edgeprune.export.tflite:export_tflite"},
    group="edgeprune.exporters",
)

PRECISIONS = {"onnx": ("fp32", "fp16", "int8"), "tflite": ("fp32", "fp16", "int8")}
"""The number formats that our exporters write; a third party's refuses itself what it cannot write."""

_TOOLCHAINS = {
    "onnx": ((("onnx", "onnxscript", "onnxsim", "onnxruntime"), "pip install --force-reinstall edgeprune"),),
    "tflite": (
        (("litert_torch", "ai_edge_litert", "ai_edge_quantizer"), "pip install 'edgeprune[tflite]'"),
        (("tensorflow", "ai_edge_litert"), "pip install 'edgeprune[tensorflow]'"),
    ),
}
"""What must be importable, and how to install it: any one of several toolchains."""


def available_formats() -> dict[str, str | None]:
    """Each known format, and why it cannot be written here: None if it can, else one line with the fix.

    Nothing is imported to find out. A third party's format counts as available: only its own code knows what it needs.
    """
    return {name: _missing(name) for name in EXPORTERS.table()}


def _missing(name: str) -> str | None:
    missing = []
    for modules, fix in _TOOLCHAINS.get(name, ()):
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if not absent:
            return None
        missing.append(f"{', '.join(absent)} not installed: {fix}")
    return missing[0] if missing else None
