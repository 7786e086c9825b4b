"""What all precisions of a model begin with, made once: converting takes most of the time of an export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from edgeprune.model import Model

Made = TypeVar("Made")
_MADE: WeakKeyDictionary[nn.Module, dict[str, tuple[str, Any]]] = WeakKeyDictionary()


def made_once(model: Model, kind: str, make: Callable[[Model], Made]) -> Made:
    """What `make` gives for a model; made again for new weights or another input shape only.

    Args:
        model: it is not kept alive.
        kind: names what is made; the last of each kind is kept.
        make: its result is given out again, so nobody may change it.
    """
    weights = hashlib.sha256(repr(model.input.shape).encode())
    for name, tensor in model.module.state_dict().items():
        weights.update(name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    known, found = _MADE.setdefault(model.module, {}).get(kind, ("", None))
    if known != weights.hexdigest():
        found = make(model)
        _MADE[model.module][kind] = (weights.hexdigest(), found)
    result: Made = found
    return result
