"""Model cards: what is known of each network in `models/`, read from one TOML file a network. Imports no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.data import InputSpec
from edgeprune.errors import ModelError, UsageError
from edgeprune.registry import shipped

_REQUIRED: Mapping[str, type] = {
    "title": str,
    "build": str,
    "input": list,
    "mean": list,
    "std": list,
    "classes": int,
    "origin": str,
    "licence": str,
}
_OPTIONAL: Mapping[str, type] = {"weights": str, "data": str, "calibration_data": str}


@dataclass(frozen=True)
class Card:
    """What is known of a network in `models/`.

    Attributes:
        name: what the user types; the card's file name.
        title: one line for people.
        build: `/abs/path/file.py:function`, the function that builds the network.
        input: what the network wants of an image.
        classes: how many the network tells apart.
        origin: where the architecture and any weights come from.
        licence: of the code and any weights, as an SPDX identifier.
        weights: a file of weights that is shipped; None if there is none.
        data: `/abs/path/file.py:function` returning images to score with; None if none are known.
        calibration_data: the same, to calibrate with; disjoint from `data`.
    """

    name: str
    title: str
    build: str
    input: InputSpec
    classes: int
    origin: str
    licence: str
    weights: Path | None = None
    data: str | None = None
    calibration_data: str | None = None


def known_models() -> dict[str, Card]:
    """The cards of the networks in `models/`, by name in alphabetical order.

    Raises:
        ModelError: a card is not as it should be.
    """
    return {path.stem: read_card(path) for path in sorted(shipped("models").glob("*.toml"))}


def read_card(path: Path) -> Card:
    """Read one card. Files it names are looked for beside it.

    Raises:
        ModelError: it cannot be read, a key is missing or unknown, or a value is of the wrong kind.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"cannot read the model card: {error}", where=str(path)) from error
    _check_keys(document, path)
    try:
        spec = InputSpec.from_json({"shape": document["input"], "mean": document["mean"], "std": document["std"]})
    except UsageError as error:
        raise ModelError(f"the model card's input: {error.what}", where=str(path)) from error
    beside = {key: str(path.parent / document[key]) for key in ("build", *_OPTIONAL) if key in document}
    return Card(
        name=path.stem,
        title=document["title"],
        build=beside["build"],
        input=spec,
        classes=document["classes"],
        origin=document["origin"],
        licence=document["licence"],
        weights=Path(beside["weights"]) if "weights" in beside else None,
        data=beside.get("data"),
        calibration_data=beside.get("calibration_data"),
    )


def _check_keys(document: Mapping[str, Any], path: Path) -> None:
    kinds = {**_REQUIRED, **_OPTIONAL}
    missing = sorted(_REQUIRED.keys() - document.keys())
    surplus = sorted(document.keys() - kinds.keys())
    wrong = sorted(key for key, value in document.items() if key in kinds and type(value) is not kinds[key])
    faults = {"is missing": missing, "is not a key of a model card": surplus, "is of the wrong kind": wrong}
    told = [f"{', '.join(keys)} {fault}" for fault, keys in faults.items() if keys]
    if told:
        raise ModelError(
            f"the model card is wrong: {'; '.join(told)}", where=str(path), fix=f"Keys: {', '.join(kinds)}"
        )
