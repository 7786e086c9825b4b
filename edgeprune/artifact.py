"""Artifact: a model file ready for a board, with what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeprune.files import read_json, sha256_of, write_json

SCHEMA = 1

Role = Literal["baseline", "pruned"]
RUNTIME_OF_FORMAT = {"onnx": "onnxruntime", "tflite": "litert"}
"""Which runtime executes which file format."""


@dataclass(frozen=True)
class Parity:
    """How closely an artifact computes what the torch model computes, on real images.

    Attributes:
        images: how many images were compared.
        max_abs: largest absolute difference of any output value.
        max_rel: `max_abs` divided by the largest absolute value of the model's own outputs.
        top1_agreement: share of images with the same highest class, 0 to 1.
        tolerance: the bound on `max_rel` that was applied; None for none.
        passed: whether the artifact may be handed over.
        cosine: of the angle between the outputs and the model's, the mean over the images, of the output where it is
            least; None in manifests of older versions.
    """

    images: int
    max_abs: float
    max_rel: float
    top1_agreement: float
    tolerance: float | None
    passed: bool
    cosine: float | None = None


@dataclass(frozen=True)
class Beside:
    """A file that a model file needs beside it: weights that are too large for the model file itself.

    Attributes:
        path: relative to the folder of the model file, as that names it.
        sha256: of its bytes.
        bytes: its size.
    """

    path: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, folder: Path, name: str) -> Beside:
        """What a file of that name in a folder is now."""
        return cls(name, sha256_of(folder / name), (folder / name).stat().st_size)


@dataclass(frozen=True)
class Artifact:
    """A model file, with what belongs beside it.

    Attributes:
        path: file name, relative to the run folder.
        sha256: of the file's bytes; what measurements refer to. Files of ours hold the SHA-256 of what is beside them.
        bytes: file size, that of what is beside it included.
        role: "baseline" (the uncut model) or "pruned".
        format: "onnx" or "tflite".
        precision: "fp32", "fp16" or "int8".
        input_shape: (channels, height, width) of one image, whatever the layout.
        layout: of the file's input, "NCHW" or "NHWC".
        macs: multiply-accumulates for one image.
        parameters: number of stored weights.
        plan_fingerprint: of the plan that cut the model; None for the baseline.
        parity: against the torch model; None until compared.
        details: what the exporter wants told (opset, node counts ...), JSON values only.
        beside: the files that it needs beside it.
    """

    path: str
    sha256: str
    bytes: int
    role: Role
    format: str
    precision: str
    input_shape: tuple[int, int, int]
    layout: str
    macs: int
    parameters: int
    plan_fingerprint: str | None = None
    parity: Parity | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[Beside, ...] = field(default=(), metadata={"seldom": True})

    @property
    def runtime(self) -> str:
        """The runtime that executes this format."""
        return RUNTIME_OF_FORMAT[self.format]

    @property
    def folded(self) -> dict[str, Any] | None:
        """The `mean` and `std` that a file of raw pixels normalises with itself; None for any other file."""
        found: dict[str, Any] | None = self.details.get("input", {}).get("folded")
        return found

    def files(self, folder: Path) -> dict[Path, str]:
        """Where its files lie in a folder, the model file first -> SHA-256."""
        model = folder / self.path
        return {model: self.sha256, **{model.parent / one.path: one.sha256 for one in self.beside}}

    def altered(self, folder: Path) -> Path | None:
        """The first of its files in a folder that is missing or is not the one it was; None where all are."""
        files = self.files(folder).items()
        return next((path for path, known in files if not path.is_file() or sha256_of(path) != known), None)

    def to_json(self) -> dict[str, Any]:
        """This artifact as a JSON document; `beside` only where there is something."""
        document = {"schema": SCHEMA, **asdict(self), "input_shape": list(self.input_shape)}
        beside = document.pop("beside")
        return {**document, "beside": list(beside)} if beside else document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Artifact:
        """The artifact a JSON document describes."""
        fields = {key: value for key, value in document.items() if key != "schema"}
        parity, beside = fields.pop("parity", None), fields.pop("beside", ())
        fields["input_shape"] = tuple(fields["input_shape"])
        known = tuple(Beside(**one) for one in beside)
        return cls(**fields, parity=Parity(**parity) if parity else None, beside=known)

    def save_manifest(self, run: Path) -> None:
        """Write this artifact's manifest beside its file in the run folder."""
        write_json(run / f"{self.path}.json", self.to_json())

    @classmethod
    def load_manifest(cls, path: Path) -> Artifact:
        """Read a manifest written by `save_manifest`."""
        return cls.from_json(read_json(path, SCHEMA))
