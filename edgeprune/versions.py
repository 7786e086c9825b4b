"""versions: of edgeprune and of what it computes, writes and runs files with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("edgeprune", "torch", "onnx", "onnxsim", "onnxruntime", "litert-torch", "ai-edge-litert", "numpy")


def versions() -> dict[str, str]:
    """Python's, and that of each package that is installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
