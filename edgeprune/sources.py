"""What a model's source names, and the network built from it."""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from edgeprune.cards import known_models
from edgeprune.data import InputSpec
from edgeprune.errors import MissingExtraError, ModelError, UsageError
from edgeprune.imports import load_object, looks_like_object, user_code
from edgeprune.registry import unknown

_IMAGENET_SHAPE = (3, 224, 224)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What torchvision's classification weights are trained with: pytorch.org/vision/stable/models.html."""
_ZOO = ("torchvision", "timm")


@dataclass(frozen=True)
class Built:
    """A network as its builder made it, and what its source says of it.

    Attributes:
        module: the network; on the CPU, in eval mode.
        name: short, for people and folders.
        source: builds the same network again, from any folder.
        input: what the network wants of an image; None if the source does not say.
        weights: a file of weights that comes with the source; None if there is none.
    """

    module: nn.Module
    name: str
    source: str
    input: InputSpec | None = None
    weights: Path | None = None


def build(source: str) -> Built:
    """Build the network that `source` names. This runs the user's code; nothing is downloaded.

    Args:
        source: a name from `models/`, `path/net.py:build`, `package.module:build`, `torchvision:NAME` or `timm:NAME`.
            A name in Python may be a function without arguments, a class, or a network.

    Raises:
        UsageError: no model has that name; the nearest one is suggested.
        ModelError: importing or building failed, or what was built is not a network.
        MissingExtraError: torchvision or timm is not installed.
    """
    cards = known_models()
    library, _, name = source.partition(":")
    if source in cards:
        card = cards[source]
        return Built(_called(card.build), source, source, card.input, card.weights)
    if library in _ZOO and name:
        return _from_zoo(library, name)
    if looks_like_object(source):
        return _own(source)
    if source.endswith(".py"):
        what = f"{source} names a file, but not the function in it that builds the network"
        raise UsageError(what, fix=f"Write {source}:build, if that function is called build.")
    error = unknown("model", source, cards)
    forms = "Your own: path/net.py:build, package.module:build, torchvision:NAME or timm:NAME"
    raise UsageError(error.what, fix=f"{error.fix}\n{forms}")


def source_file(source: str) -> Path | None:
    """The user's Python file that `source` names, absolute; None if it does not name one."""
    path = Path(source.rpartition(":")[0])
    return path.resolve() if path.suffix == ".py" else None


def _own(source: str) -> Built:
    place, _, function = source.rpartition(":")
    file = source_file(source)
    stem = file.stem if file else place.rpartition(".")[2]
    return Built(_called(source), stem if function == "build" else function, f"{file}:{function}" if file else source)


def _called(spec: str) -> nn.Module:
    found = load_object(spec, "model", ModelError)
    if isinstance(found, nn.Module):
        # The module that holds it stays loaded, and must give an unchanged network the next time.
        return _network(copy.deepcopy(found), spec)
    if not callable(found):
        raise _not_a_network(found, spec)
    with user_code(spec, "building the model", ModelError):
        made = found()
    return _network(made, spec)


def _network(made: Any, spec: str) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise _not_a_network(made, spec)
    return made.to("cpu").eval()


def _not_a_network(made: Any, spec: str) -> ModelError:
    what = f"it gives an object of type {type(made).__name__}, not a torch.nn.Module"
    return ModelError(what, where=spec, fix="Name a function without arguments that returns the network.")


def _from_zoo(library: str, name: str) -> Built:
    source = f"{library}:{name}"
    zoo = _imported(library, source)
    if library == "torchvision":
        if name not in zoo.models.list_models(module=zoo.models):
            raise _unlisted(source, zoo.models.list_models(module=zoo.models))
        with user_code(source, "building the model", ModelError):
            module = _network(zoo.models.get_model(name, weights=None), source)
        return Built(module, name, source, InputSpec(_IMAGENET_SHAPE, _IMAGENET_MEAN, _IMAGENET_STD))
    if not zoo.is_model(name):
        raise _unlisted(source, zoo.list_models())
    with user_code(source, "building the model", ModelError):
        module = _network(zoo.create_model(name, pretrained=False), source)
    told = getattr(module, "default_cfg", None) or {}
    spec = InputSpec(
        tuple(told.get("input_size", _IMAGENET_SHAPE)),
        tuple(told.get("mean", _IMAGENET_MEAN)),
        tuple(told.get("std", _IMAGENET_STD)),
    )
    return Built(module, name, source, spec)


def _unlisted(source: str, names: Iterable[str]) -> UsageError:
    library, _, name = source.partition(":")
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    return UsageError(f"unknown {library} model {name!r}", fix=f"The nearest: {', '.join(near)}" if near else "")


def _imported(library: str, source: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise MissingExtraError("zoo", source) from error
    except (ImportError, RuntimeError, OSError) as error:
        # The usual cause: a torchvision built for CUDA beside a torch built for the CPU.
        reason = str(error).partition("\n")[0]
        fix = f"Install the torchvision that was built for torch {torch.__version__}; timm imports it too."
        raise ModelError(f"{library} is installed, but does not import: {reason}", where=source, fix=fix) from error
