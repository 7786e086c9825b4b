"""Files of weights: opened without running code, and fitted to a network only if every tensor fits."""

from __future__ import annotations

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeprune.errors import WeightsError

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the state dict beside other things; looked for in this order."""
_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
_COUNTER = "num_batches_tracked"
"""Counts training steps; does not enter the result in eval mode, so it may be missing or surplus."""
_NAMED = 5
"""How many names of each kind an error lists."""

_CONVERT = (
    "If you trust the file, load it where it was made, and save only its tensors: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, from safetensors or a plain PyTorch state dict. No code in the file is run.

    `state_dict`, `model_state_dict` and `model` wrappers are opened.

    Args:
        path: a file ending in .safetensors, or anything that `torch.save` wrote.

    Raises:
        WeightsError: there is no such file, it is torn, it holds something other than tensors, or it wants to run code.
    """
    if not path.is_file():
        what = "is a folder, not a file of weights" if path.is_dir() else "there is no such file of weights"
        raise WeightsError(what, where=str(path), fix="Check the path given with --weights.")
    try:
        # Before the readers, whose own OSErrors may also mean a torn file.
        path.open("rb").close()
        content = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except SafetensorError as error:
        raise WeightsError(f"not a whole safetensors file: {error}", where=str(path), fix="Copy it again.") from error
    except OSError as error:
        raise WeightsError(f"cannot read the weights: {error.strerror or error}", where=str(path)) from error
    return _tensors(content, path)


def fit_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy `weights` into `module`, in place, if they are the weights of this architecture; else leave it as it is.

    `module.` and `_orig_mod.` before every name are removed. Missing step counters of norms are allowed.

    Args:
        module: the network.
        weights: name to tensor, as `read_weights` gives them.
        path: where they come from, for messages.

    Raises:
        WeightsError: tensors are missing, surplus, of another shape or kind, or hold NaN or infinity; each is named.
    """
    state = module.state_dict(keep_vars=True)
    own: dict[str, Tensor] = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    weights = _without_prefix(weights, own)
    present = {id(own[name]) for name in own.keys() & weights.keys()}
    missing = [name for name, tensor in own.items() if name not in weights and id(tensor) not in present]
    surplus = [name for name in weights if name not in own]
    shared = [name for name in own if name in weights]
    reshaped = [
        f"{name} (file {_shape(weights[name])}, model {_shape(own[name])})"
        for name in shared
        if weights[name].shape != own[name].shape
    ]
    recast = [
        f"{name} (file {weights[name].dtype}, model {own[name].dtype})"
        for name in shared
        if weights[name].is_floating_point() != own[name].is_floating_point()
    ]
    faults = {"missing": _without_counters(missing), "surplus": _without_counters(surplus)}
    faults |= {"of another shape": reshaped, "of another kind": recast}
    told = [f"{len(names)} {fault}: {listed(names)}" for fault, names in faults.items() if names]
    if told:
        what = f"the weights do not fit the model: {len(own)} tensors wanted"
        fix = "These are the weights of another architecture, or of another number of classes."
        raise WeightsError("; ".join([what, *told]), where=str(path), fix=fix)
    _check_finite(weights, path)
    fitting = OrderedDict((name, weights[name]) for name in shared)
    # Files of tensors carry no versions of modules; every name and shape is that of this version.
    vars(fitting)["_metadata"] = getattr(state, "_metadata", {})
    module.load_state_dict(fitting, strict=False)


def listed(names: list[str]) -> str:
    """The first five names, for a message."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _load_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of what the errors below already say.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\w[\w.]*)", str(error))
        if asked is None:
            fix = f"Wanted: safetensors, or a state dict written by torch.save. {_CONVERT}"
            raise WeightsError("not a PyTorch checkpoint", where=str(path), fix=fix) from error
        what = f"the file was not opened: it holds more than tensors and wants to run code ({asked[1]})"
        raise WeightsError(what, where=str(path), fix=_CONVERT) from error
    except Exception as error:
        # A torn file fails in whichever reader meets the tear: RuntimeError, EOFError, KeyError, UnicodeDecodeError ...
        if "TorchScript" in str(error):
            what = "the file was not opened: it is a TorchScript program, not a state dict"
            raise WeightsError(what, where=str(path), fix=_CONVERT) from error
        reason = str(error).partition("\n")[0].partition(". ")[0]
        what = f"not a whole PyTorch checkpoint: {type(error).__name__}: {reason}"
        raise WeightsError(what, where=str(path), fix="Copy it again, or write it again with torch.save.") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    wrapper = content
    while isinstance(wrapper, Mapping):
        inner = next((wrapper[key] for key in _WRAPPERS if isinstance(wrapper.get(key), Mapping)), None)
        if inner is None:
            break
        wrapper = inner
    if not isinstance(wrapper, Mapping):
        what = f"the file holds a {type(wrapper).__name__}, not tensors by name"
        raise WeightsError(what, where=str(path), fix=_CONVERT)
    others = [f"{name} ({type(value).__name__})" for name, value in wrapper.items() if not isinstance(value, Tensor)]
    if others or not wrapper:
        what = f"the file holds more than tensors by name: {listed(others)}" if others else "the file holds no tensors"
        raise WeightsError(what, where=str(path), fix=_CONVERT)
    return {str(name): tensor for name, tensor in wrapper.items()}


def _without_prefix(weights: Mapping[str, Tensor], own: Iterable[str]) -> Mapping[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights) and not any(name.startswith(prefix) for name in own):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _without_counters(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.rpartition(".")[2] != _COUNTER]


def _check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        what = f"NaN or infinity in {len(broken)} of {len(weights)} tensors: {listed(broken)}"
        raise WeightsError(what, where=str(path), fix="The training has diverged, or the file is damaged.")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
