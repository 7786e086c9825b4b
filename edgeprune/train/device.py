"""Where to train, and in what precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.train.settings import Device


def chosen(name: Device) -> torch.device:
    """The device that a name stands for.

    Raises:
        UsageError: there is no such device here.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        built = f"PyTorch {torch.__version__} sees no CUDA device"
        raise UsageError(
            built, where="--device cuda", fix="Use --device cpu, or see `python -m torch.utils.collect_env`."
        )
    return torch.device("cuda" if name != "cpu" and available else "cpu")


def mixed_precision(
    device: torch.device, mixed: bool = True
) -> tuple[AbstractContextManager[object], torch.amp.GradScaler]:
    """What a forward pass runs in, and what scales its loss.

    On CUDA bfloat16 where the device has it, else float16, whose small gradients are kept by scaling; on a CPU with
    instructions for bfloat16 that (half the time of float32), on any other float32, unscaled.

    Args:
        device: where it runs.
        mixed: False for float32 everywhere.
    """
    if not mixed or device.type != "cuda":
        scaler = torch.amp.GradScaler(device.type, enabled=False)
        if not mixed or not _has_bfloat16():
            return nullcontext(), scaler
        return torch.autocast("cpu", torch.bfloat16), scaler
    bfloat = torch.cuda.is_bf16_supported(including_emulation=False)
    precision = torch.bfloat16 if bfloat else torch.float16
    return torch.autocast("cuda", precision), torch.amp.GradScaler("cuda", enabled=not bfloat)


def _has_bfloat16() -> bool:
    """Whether this machine's CPU computes in bfloat16; one that has to convert is slower with it."""
    told: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return any(told.get(name) for name in ("avx512_bf16", "amx_bf16"))


def placed(module: nn.Module, device: torch.device, layout: torch.memory_format = torch.channels_last) -> nn.Module:
    """A network moved to a device, its convolutions in a layout: they run faster channels last, on CPUs and GPUs."""
    unchecked: Any = module  # PyTorch's stubs do not know the second argument
    moved: nn.Module = unchecked.to(device, memory_format=layout)
    return moved
