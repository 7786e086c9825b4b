"""Group: the processes that train one network together, one a device, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edgeprune.errors import UsageError
from edgeprune.train.device import chosen
from edgeprune.train.settings import Device


def members() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and talks."""
    return int(os.environ.get("RANK", "0")) == 0


def check_alone() -> None:
    """Refuse to go on beside other processes.

    Raises:
        UsageError: torchrun started several.
    """
    if members() > 1:
        fix = "Compress without --recover distill in one process, then: torchrun ... -m edgeprune finetune RUN"
        raise UsageError("compress runs in one process, and torchrun started several", fix=fix)


@contextmanager
def joined(device: Device) -> Iterator[None]:
    """Within the block, the processes that torchrun started train together: over NCCL on GPUs, else over Gloo."""
    if members() == 1:
        yield
        return
    if chosen(device).type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl"
    else:
        backend = "gloo"
    distributed.init_process_group(backend)
    try:
        yield
    finally:
        distributed.destroy_process_group()


class Group:
    """The processes that train together as this one sees them: itself alone where they have not joined."""

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if together else 0
        self.size = distributed.get_world_size() if together else 1

    def spread(self, module: nn.Module) -> nn.Module:
        """The network as it is called in training: gradients are the means over the group.

        Normalisations take their statistics from each process's own images; the first one's are kept.
        """
        return module if self.size == 1 else DistributedDataParallel(module)

    def agreed(self, value: Any) -> Any:
        """What the first process says."""
        if self.size == 1:
            return value
        told = [value]
        distributed.broadcast_object_list(told)
        return told[0]

    def mean(self, value: float, device: torch.device) -> float:
        """The mean over the group; no finite number if it is none in any of them."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float32, device=device)
        distributed.all_reduce(total)
        return float(total) / self.size

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is so in any process."""
        return self.mean(float(flag), device) > 0
