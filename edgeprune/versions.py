"""versions: of edgeprune and of what it computes, writes and runs files with."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("edgeprune", "torch", "onnx", "onnxsim", "onnxruntime", "litert-torch", "ai-edge-litert", "numpy")


def versions() -> dict[str, str]:
    """Python's, and that of each package that is installed."""
    return {"python": platform.python_version(), **installed(_PACKAGES)}


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Those of these packages that are installed, with their versions."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
