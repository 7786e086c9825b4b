"""The highest classes of an image, by a model file of edgeprune: python infer.py FILE IMAGE [--top 5] [--json].

It needs the manifest beside the file (FILE.json), Python 3.9, numpy, Pillow, and onnxruntime for .onnx or one of
ai-edge-litert, tflite-runtime and tensorflow for .tflite; it does not need edgeprune. A run folder holds a copy of it.
Host and board prepare images by the same functions, so what a model sees here is what it was verified with. Apache-2.0.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

CROP = 0.875
"""Share of the scaled image that the centre crop keeps: 224 of 256, the usual ImageNet evaluation."""
PIXEL = 1 / 255
"""The step of raw pixels, where their whole range is 0 to 1."""
TFLITE = (
    ("ai_edge_litert.interpreter", "Interpreter"),
    ("tflite_runtime.interpreter", "Interpreter"),
    ("tensorflow", "lite.Interpreter"),
)
"""What runs TFLite files, as module and name in it; the first that is installed is taken."""
EXACT = "session.x64quantprecision"
"""ONNX Runtime's option to multiply bytes on x86 by instructions that do not saturate; elsewhere it does nothing."""
_BAD_INPUT = 2


class InferError(Exception):
    """What was asked for cannot be done; one sentence."""


def decode(raw: bytes | np.ndarray, shape: Sequence[int], crop: float = CROP) -> np.ndarray:
    """One image, decoded and brought to a network's input size.

    An image of the input's aspect ratio is scaled to it; any other is scaled to cover the input divided by `crop` and
    cut at its centre. Both bilinear, as in the usual ImageNet evaluation.

    Args:
        raw: a file's bytes, or uint8 [H, W] or [H, W, C].
        shape: (channels, height, width) to bring it to; 1 or 3 channels.
        crop: share of the scaled image that is kept, each way.

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
        image = _resized(image, width, height, crop)
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


def stored(values: np.ndarray, dtype: Any, scale: float | None, zero_point: int | None) -> np.ndarray:
    """Numbers as a file's tensor holds them: integers in steps of `scale` from `zero_point`, others as they are."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        values = np.clip(np.round(values / (scale or 1.0) + (zero_point or 0)), limits.min, limits.max)
    return np.ascontiguousarray(values, dtype=dtype)


def meant(values: np.ndarray, scale: float | None, zero_point: int | None) -> np.ndarray:
    """What the numbers in a file's tensor stand for; floats, which have no scale, stand for themselves."""
    return values if not scale else (values.astype(np.float32) - np.float32(zero_point or 0)) * np.float32(scale)


def best(values: np.ndarray, count: int, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The highest of a network's outputs, highest first: class, value, and name where names are known."""
    order = sorted(range(len(values)), key=lambda place: -values[place])[:count]
    return [
        {"class": place, "value": float(values[place]), **({"name": names[place]} if names else {})} for place in order
    ]


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same for people."""
    return [f"{one.get('name') or 'class {class}'.format(**one)}: {one['value']:.4g}" for one in found]


def infer(file: Path, image: Path, top: int) -> list[dict[str, Any]]:
    """The highest classes of an image by a model file; see `best`.

    Raises:
        InferError: file, manifest or image cannot be used, or there is no runtime for the file.
    """
    told = _manifest(file)
    entry, sink = told["input"], told["output"]
    axes = (1, 2, 3) if entry["layout"] == "NCHW" else (3, 1, 2)
    try:
        pixels = decode(image.read_bytes(), [entry["shape"][axis] for axis in axes], entry["crop"])
    except ModuleNotFoundError as error:
        raise InferError(f"{error.name} is not installed") from None
    except Exception as error:  # Pillow's decoders raise nearly every kind for a broken file
        raise InferError(f"cannot read {image} as an image: {error}") from None
    values = normalise(pixels[None], entry["mean"], entry["std"])
    values = values if entry["layout"] == "NCHW" else values.transpose(0, 2, 3, 1)
    fed = stored(values, np.dtype(entry["dtype"]), entry["scale"], entry["zero_point"])
    try:
        output = (_by_onnxruntime if file.suffix == ".onnx" else _by_tflite)(file, told, fed)
    except InferError:
        raise
    except Exception as error:  # runtimes raise many unrelated classes, for a file that is too new for them, too
        raise InferError(f"{file} cannot be run: {error}") from None
    return best(meant(output, sink["scale"], sink["zero_point"]).ravel(), top, told.get("classes", ()))


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    parser = argparse.ArgumentParser(description="The highest classes of an image by a model file of edgeprune.")
    parser.add_argument("file", type=Path, help="FILE.onnx or FILE.tflite, with its manifest FILE.json beside it")
    parser.add_argument("image", type=Path)
    parser.add_argument("--top", type=int, default=5, metavar="5", help="how many classes")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    asked = parser.parse_args(words)
    try:
        found = infer(asked.file, asked.image, asked.top)
    except InferError as error:
        print(f"error: {error}", file=sys.stderr)
        return _BAD_INPUT
    print(json.dumps({"best": found}) if asked.json else "\n".join(lines(found)))
    return 0


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, read piece by piece."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            found.update(piece)
    return found.hexdigest()


def altered(model: Path, told: Mapping[str, Any]) -> Path | None:
    """The first of a model's files that is not the one that a document tells of; None where all are.

    Args:
        model: the model file.
        told: its `sha256`, and `beside`, the files that belong beside it, if there are any.

    Raises:
        OSError: a file cannot be read.
        KeyError: this is no such document.
    """
    beside = [(model.parent / one["path"], one["sha256"]) for one in told.get("beside", ())]
    return next((path for path, known in ((model, told["sha256"]), *beside) if sha256_of(path) != known), None)


def _manifest(file: Path) -> dict[str, Any]:
    """What the manifest tells of how to use a file, once the file is known to be the one that it tells of."""
    beside = file.with_name(f"{file.name}.json")
    try:
        document = json.loads(beside.read_text(encoding="utf-8"))
        details: dict[str, Any] = document["details"]
        strange, _ = altered(file, document), (details["input"]["crop"], details["output"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InferError(f"cannot read {file} and its manifest {beside.name}: {error}") from None
    if strange:
        raise InferError(f"{strange} is not the file that {beside.name} tells of")
    return details


def _by_onnxruntime(file: Path, told: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        session = onnx_session(str(file), told.get("quantisation", {}).get("activations") == "S8S8")
    except ImportError:
        raise InferError("onnxruntime is not installed: pip install onnxruntime") from None
    return np.asarray(session.run(None, {told["input"]["name"]: values})[0])


def onnx_session(model: str | bytes, exact: bool) -> Any:
    """An ONNX file ready to run on the processor.

    Args:
        model: its path, or its bytes.
        exact: sums of products of bytes do not saturate, as on ARM; x86 without VNNI would else have them saturate.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ImportError: onnxruntime is not installed.
        Exception: the file is not one that it runs; the runtime's own classes.
    """
    import onnxruntime

    options, providers = onnxruntime.SessionOptions(), ["CPUExecutionProvider"]
    if not exact:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    options.add_session_config_entry(EXACT, "1")
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception:  # it raises many unrelated classes
        # ONNX Runtime 1.31.1 fails to fuse some files for these kernels, as one with two GELUs ("Attempt to replace the
        # existing tensor"). Not fused, they are computed as they are written, in float: as exact, and slower.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        return onnxruntime.InferenceSession(model, options, providers=providers)


def _by_tflite(file: Path, _: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    interpreter = _interpreter()(model_path=str(file))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def _interpreter() -> Any:
    for module, name in TFLITE:
        try:
            return attrgetter(name)(importlib.import_module(module))
        except ImportError:
            continue
    raise InferError("no runtime for TFLite files is installed: pip install ai-edge-litert")


def _resized(image: Any, width: int, height: int, crop: float) -> Any:
    from PIL.Image import Resampling

    if image.width * height == image.height * width:
        return image.resize((width, height), Resampling.BILINEAR)
    cover = round(width / crop), round(height / crop)
    scale = max(cover[0] / image.width, cover[1] / image.height)
    size = max(cover[0], round(image.width * scale)), max(cover[1], round(image.height * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.resize(size, Resampling.BILINEAR).crop((left, top, left + width, top + height))


if __name__ == "__main__":
    sys.exit(main())
