"""A finished run with one real file, and wheels made here, for the tests of packaging."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from export_nets import COST, SHAPE, Tiny, images_of, model_of
from report_samples import FULL

from edgeprune.bench.session import INPUTS_NAME
from edgeprune.export.onnx import export_onnx
from edgeprune.export.parity import check
from edgeprune.report.document import Report
from edgeprune.report.parts import Subject
from edgeprune.target import load_target

PLAIN = ("numpy", "onnxruntime", "pillow", "pip")


def a_run(folder: Path, *, tflite: bool = False) -> Path:
    """A run of a tiny network: an uncut and a cut ONNX file, on request a cut TFLite file too."""
    folder.mkdir()
    model, target, images = model_of(Tiny), load_target("rpi4"), images_of()
    exports = [(export_onnx, "baseline", "onnx", ()), (export_onnx, "pruned", "onnx", ("a" * 64,))]
    if tflite:
        from edgeprune.export.tflite import export_tflite

        exports.append((export_tflite, "pruned", "tflite", ("a" * 64,)))
    artifacts = []
    for export, role, suffix, plans in exports:
        path = folder / f"{role}-fp32.{suffix}"
        artifact = export(replace(model, plans=plans), COST, target, "fp32", path)
        artifacts.append(check(artifact, folder, model, images))
        artifacts[-1].save_manifest(folder)
    np.save(folder / INPUTS_NAME, images)
    subject = Subject("tiny", "tests", 56, model.input)
    replace(FULL, model=subject, artifacts=tuple(artifacts), measurements=(), comparisons=()).save(folder)
    assert artifacts[0].input_shape == SHAPE
    return folder


def report_of(run: Path) -> Report:
    return Report.load(run / "report.json")


def write_wheel(
    folder: Path, name: str, version: str = "1.0", licence: str = "License-Expression: MIT", content: bytes = b""
) -> Path:
    """A wheel of one module."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        info = f"{name}-{version}.dist-info"
        wheel.writestr(f"{name}/__init__.py", content)
        metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
        wheel.writestr(f"{info}/METADATA", metadata + (f"{licence}\n" if licence else ""))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/licenses/LICENSE", "free")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def plain_wheels(folder: Path) -> Path:
    """Wheels under the names that a bundle needs."""
    folder.mkdir()
    for name in PLAIN:
        write_wheel(folder, name)
    return folder
