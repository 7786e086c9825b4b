"""How long it takes to capture, trace and cut a network, from ResNet-18 to ResNet-152. Medians of 3, in seconds.

python benchmarks/capture.py [DEPTH ...]

The networks are written here, in plain torch, with 1000 classes and random weights, at 3x224x224. A first, small
network is captured before the clock starts: it pays for what torch imports and builds once in a process. "run" is one
forward pass of the example batch, to compare this machine with others.
"""

import statistics
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.channels import ChannelMap
from edgeprune.data import InputSpec
from edgeprune.model import Model
from edgeprune.plan import Budget, PruningPlan
from edgeprune.program import capture
from edgeprune.prune.allocate import left_whole
from edgeprune.prune.surgery import apply
from edgeprune.prune.trace import trace

SHAPE = (3, 224, 224)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 to four times the width; their sum with what came in."""

    def __init__(self, entering: int, width: int, stride: int, deep: bool) -> None:
        super().__init__()
        leaving = 4 * width if deep else width
        sizes = ((1, 1), (3, stride), (1, 1)) if deep else ((3, stride), (3, 1))
        widths = (entering, *[width] * (len(sizes) - 1), leaving)
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[place], widths[place + 1], size, step, size // 2, bias=False)
            for place, (size, step) in enumerate(sizes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels) for conv in self.convs)
        short = [nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving)]
        self.short = nn.Sequential(*(short if entering != leaving or stride > 1 else []))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(F.relu(y) if place else y))
        return F.relu(y + self.short(x))


def resnet(depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    width, deep = 64, depth >= 50
    for stage, count in enumerate(BLOCKS[depth]):
        for place in range(count):
            narrow = 64 << stage
            layers.append(Block(width, narrow, 2 if stage and not place else 1, deep))
            width = narrow * (4 if deep else 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)).eval()


def half(channel_map: ChannelMap) -> PruningPlan:
    """Keep every second filter of the spaces inside blocks."""
    whole = left_whole(channel_map, "inner")
    return PruningPlan(
        model=channel_map.fingerprint,
        criterion="random",
        settings={},
        budget=Budget(ratio=0.5),
        channel_multiple=1,
        sizes={space.name: space.size for space in channel_map.spaces},
        keep={
            space.name: tuple(range(0, space.size, 2))
            for space in channel_map.spaces
            if not space.protected and space.name not in whole
        },
        macs_kept=1.0,
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """The median of three times, and what came out the last time."""
    taken, found = [], None
    for _ in range(3):
        start = perf_counter()
        found = work()
        taken.append(perf_counter() - start)
    return statistics.median(taken), found


def main() -> None:
    """Print the table."""
    capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).eval(), (3, 8, 8))
    images = torch.randn(2, *SHAPE)
    print("| network | operators | run | capture | trace | cut |\n|---|---|---|---|---|---|")
    for depth in [int(depth) for depth in sys.argv[1:]] or sorted(BLOCKS):
        model = Model(resnet(depth), InputSpec(SHAPE, (0.0,) * 3, (1.0,) * 3), f"resnet{depth}", "benchmarks")
        with torch.no_grad():
            forward, _ = timed(lambda model=model: model.module(images))
        captured, program = timed(lambda model=model: capture(model.module, SHAPE))
        traced, channel_map = timed(lambda program=program: trace(program))
        plan = half(channel_map)
        cut, _ = timed(lambda model=model, channel_map=channel_map, plan=plan: apply(plan, channel_map, model))
        times = " | ".join(f"{seconds:.2f}" for seconds in (forward, captured, traced, cut))
        print(f"| ResNet-{depth} | {len(program.nodes)} | {times} |", flush=True)


if __name__ == "__main__":
    main()
