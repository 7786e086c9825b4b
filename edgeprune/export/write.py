"""What every exporter does the same: refuse what it cannot do, write the bytes, describe them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.artifact import Artifact, Beside
from edgeprune.errors import ExportError, OutputError, UsageError
from edgeprune.export import PRECISIONS
from edgeprune.export.calibration import Calibration
from edgeprune.files import sha256_of, writing
from edgeprune.model import Model
from edgeprune.plan import Cost
from edgeprune.versions import installed
from edgeprune.worker.infer import CROP

_TOOLS = {
    "onnx": ("onnx", "onnxscript", "onnxsim", "onnxruntime"),
    "tflite": ("litert-torch", "litert-converter", "ai-edge-quantizer", "ai-edge-litert", "tensorflow"),
}

LARGEST_BYTES = 2**31 - 1
"""Of a TFLite file: where a flatbuffer ends, whose offsets have 32 bits (flatbuffers.dev, "Internals")."""


def require(name: str, precision: str, calibration: Calibration | None) -> None:
    """Refuse a precision that an exporter does not write, and int8 without images.

    Args:
        name: of the format.
        precision: that is asked for.
        calibration: that it was given.

    Raises:
        UsageError: another precision, or int8 without calibration images.
    """
    if precision not in PRECISIONS[name]:
        fix = f"Available: {', '.join(PRECISIONS[name])}"
        raise UsageError(f"the {name} exporter cannot write precision {precision!r}", fix=fix)
    if precision == "int8" and calibration is None:
        raise UsageError("int8 needs images to calibrate with", fix="Give --data or --calibration-data.")


def check_size(model: Model, formats: Sequence[str]) -> None:
    """Refuse a model whose weights do not fit into the files of a format: TFLite's. ONNX has files beside its own.

    Raises:
        ExportError: they take more than a format holds.
    """
    held = sum(tensor.numel() * tensor.element_size() for tensor in model.module.state_dict().values())
    if "tflite" in formats and held > LARGEST_BYTES:
        what = f"the weights take {held / 1e9:.2f} GB; a TFLite file holds {LARGEST_BYTES / 1e9:.2f} GB at most"
        fix = "Write ONNX alone, with --formats onnx: its weights may lie in a file beside it. Or take a smaller model."
        raise ExportError(what, where=model.name, fix=fix)


@dataclass(frozen=True)
class Feed:
    """What a file's one input wants, or what its first output gives.

    Attributes:
        name: of the input or output.
        dtype: "float32", "int8" or "uint8".
        scale: of quantised numbers: a stored step is so much of a normalised pixel, or of an output; None for floats.
        zero_point: which stored number stands for 0; None for floats.
        raw: it takes raw pixels, and normalises them itself.
    """

    name: str
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    raw: bool = False


def tools_of(form: str) -> dict[str, str]:
    """The packages that write a format and are installed, with their versions."""
    return installed(("edgeprune", "torch", "numpy", *_TOOLS.get(form, ())))


def described(model: Model, ends: tuple[Feed, Feed], layout: str) -> dict[str, Any]:
    """All that a program must know to use a file, as JSON documents.

    Returns:
        `input`, with the way an image is brought to its size, mean and std of what the file is fed and, of a file that
        normalises itself, those it does so with, `folded`; `output`, the first; and `classes`, the name of each class,
        where they are known.
    """
    channels, height, width = model.input.shape
    shape = [1, channels, height, width] if layout == "NCHW" else [1, height, width, channels]
    normal: dict[str, Any] = {"mean": list(model.input.mean), "std": list(model.input.std)}
    classes = {"classes": list(model.classes)} if model.classes else {}
    entry, sink = ({key: one[key] for key in ("name", "dtype", "scale", "zero_point")} for one in map(asdict, ends))
    if ends[0].raw:
        normal = {"mean": [0.0] * channels, "std": [1.0] * channels, "folded": normal}
    image = {"resize": "bilinear", "crop": CROP, **normal}
    return {"input": {**entry, "layout": layout, "shape": shape, **image}, "output": sink, **classes}


def write_artifact(
    model: Model,
    cost: Cost,
    file: bytes | Path,
    out: Path,
    kind: tuple[str, str, str],
    details: Mapping[str, Any],
    ends: tuple[Feed, Feed],
) -> Artifact:
    """Write a file and describe it.

    Args:
        model: what the file holds.
        cost: of the model.
        file: its bytes, or where it lies, with nothing but what belongs beside it in its folder; it is moved.
        out: where to, all of it or nothing.
        kind: its format, its precision and the layout of its input.
        details: what the exporter wants told; the input and the tools' versions are added.
        ends: the file's input and its first output.

    Raises:
        ExportError: there is nothing to write.
        OutputError: the file cannot be written.
    """
    form, precision, layout = kind
    if not file:
        raise ExportError(f"the converter gave an empty {form} file", where=out.name, fix="Please report the model.")
    sha256, size, beside = _written(file, out) if isinstance(file, bytes) else _moved(file, out)
    return Artifact(
        path=out.name,
        sha256=sha256,
        bytes=size,
        role="pruned" if model.plans else "baseline",
        format=form,
        precision=precision,
        input_shape=model.input.shape,
        layout=layout,
        macs=cost.macs,
        parameters=cost.parameters,
        plan_fingerprint=model.plans[-1] if model.plans else None,
        details={**details, **described(model, ends, layout), "tools": tools_of(form)},
        beside=beside,
    )


def _written(content: bytes, out: Path) -> tuple[str, int, tuple[Beside, ...]]:
    with writing(out) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest(), len(content), ()


def _moved(file: Path, out: Path) -> tuple[str, int, tuple[Beside, ...]]:
    sha256, size = sha256_of(file), file.stat().st_size
    beside = tuple(Beside.of(file.parent, path.name) for path in sorted(file.parent.iterdir()) if path != file)
    places = [out.with_name(one.path) for one in beside]
    try:
        with ExitStack() as files:
            # Every file is in its place before the first takes its name, and the model's own takes it last.
            file.replace(files.enter_context(writing(out)))
            for place in places:
                (file.parent / place.name).replace(files.enter_context(writing(place)))
    except OutputError:
        for place in places:
            place.unlink(missing_ok=True)
        raise
    return sha256, size + sum(one.bytes for one in beside), beside
