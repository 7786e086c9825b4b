"""What a module must be for its program to be captured; told before torch's own, later and darker, errors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from edgeprune.errors import TraceError
from edgeprune.resize import all_tensors

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def check_traceable(module: nn.Module) -> None:
    """Refuse a module whose forward pass is not written in its own Python code, or not in plain float32 tensors.

    Raises:
        TraceError: what the module is, and what to do about it.
    """
    for fault, where, fix in _faults(module):
        raise TraceError(fault, where=where, fix=fix)


def _faults(module: nn.Module) -> Iterator[tuple[str, str, str]]:
    lazy = [name for name, parameter in module.named_parameters() if is_lazy(parameter)]
    if lazy:
        yield "a lazy layer has no weights yet", lazy[0], "Run the model once on an image of the right size."
    for name, part in module.named_modules():
        place = name or type(part).__name__
        if fault := _wrapper(part) or _state(part):
            yield fault[0], place, fault[1]
    tensors = all_tensors(module)
    devices = {tensor.device.type: name for name, tensor in tensors.items()}
    if "meta" in devices:
        yield "the model holds no numbers: its tensors are on the meta device", devices["meta"], "Load its weights."
    if len(devices) > 1:
        yield f"the model lies on several devices: {', '.join(sorted(devices))}", "", "Move it to one: model.cpu()."
    for name, tensor in module.named_parameters():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            yield (
                f"the model computes in {tensor.dtype}, not in torch.float32",
                name,
                "Prune model.float(), cast later.",
            )


def _wrapper(part: nn.Module) -> tuple[str, str] | None:
    if isinstance(part, torch.jit.ScriptModule):
        return "a TorchScript module cannot be taken apart", "Pass the Python module that it was made from."
    if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return f"the model is wrapped in {type(part).__name__}", "Pass what it wraps: model.module."
    if type(part).__name__ == "OptimizedModule" or part._compiled_call_impl is not None:
        return "the model is compiled", "Pass the model as it was before torch.compile, and compile the pruned one."
    if type(part).__module__.startswith(_QUANTISED):
        return "the model is quantised", "Prune the float model, and quantise the pruned one."
    return None


def _state(part: nn.Module) -> tuple[str, str] | None:
    if part.training:
        return "the model is in training mode", "Call model.eval() first: it is pruned as it will be used."
    hooks = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]
    if hooks:
        kind = getattr(hooks[0], "__name__", type(hooks[0]).__name__)
        fix = (
            "Remove it: by handle.remove() if register_forward_hook put it there; by remove_weight_norm, "
            "remove_spectral_norm or prune.remove if these parts of torch.nn.utils did."
        )
        return f"a forward hook ({kind}) may change what the layer computes", fix
    return None
