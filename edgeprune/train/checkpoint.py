"""Checkpoints: tensors and a JSON document in one safetensors file, which is whole or not there. No pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgeprune.errors import TrainingError
from edgeprune.files import writing

NAME = "checkpoint.safetensors"
SCHEMA = 1
_KEY = "edgeprune"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write a checkpoint over the one before it.

    Args:
        path: the file.
        tensors: by name; copied to the CPU.
        document: JSON values only; finite numbers.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, **document}, allow_nan=False)
    # Cloned because safetensors refuses tensors that are views of one storage.
    held = {name: one.detach().cpu().clone(memory_format=torch.contiguous_format) for name, one in tensors.items()}
    content = save(held, metadata={_KEY: text})
    with writing(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())  # a power cut after the renaming must not leave an empty file


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the document of a checkpoint.

    Raises:
        TrainingError: the file is torn, or not one of ours.
    """
    fix = "Begin anew with --restart."
    try:
        with safe_open(path, "pt") as stored:
            document = json.loads((stored.metadata() or {}).get(_KEY, "null"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise TrainingError(f"cannot read the checkpoint: {error}", where=str(path), fix=fix) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise TrainingError("not a checkpoint of this version of edgeprune", where=str(path), fix=fix)
    return tensors, document
