"""Random small CNNs: everything a trace must follow, in any order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 5
SHAPE = (3, SIDE, SIDE)
STEPS = {
    "softmax": lambda x: F.softmax(x.flatten(2), -1).view_as(x) * SIDE,
    "flip": lambda x: x.flip(2).roll(1, -1),
    "split": lambda x: torch.cat([*x.split([2, 3], 3)][::-1], 3) + x.unbind(2)[3].unsqueeze(2),
    "deviation": lambda x: x * torch.sigmoid(x.std((2, 3), keepdim=True)),
    "resize": lambda x: F.adaptive_max_pool2d(F.interpolate(x, scale_factor=2.0, mode="bilinear"), SIDE),
    "group norm": lambda x: F.group_norm(x, 1),
    "mask": lambda x: x * (x > x.amax((2, 3), keepdim=True) / 2),
}
"""Steps without numbers of their own; each returns a map as wide as it takes."""

OPERATORS = (
    "conv",
    "conv",
    "depthwise",
    "again",
    "norm",
    "relu",
    "in place",
    "hardswish",
    "prelu",
    "add",
    "concat",
    "gate",
    "one gate",
    "scale",
    "pool",
    "pad",
    "transposed",
    "instance norm",
    "row norm",
    "grouped",
    "shuffle",
    "branches",
    "halves",
    "slice",
    "grouped norm",
    "pixels",
    "grid gate",
    "stack",
    "where",
    "repeat",
    "bare norm",
    "positions",
    "frozen",
    "group scale",
    "every second",
    "order",
    "roll",
    "gated half",
    "written over",
    *STEPS,
)
ENDINGS = ("mean", "flatten", "hidden")


@dataclass(frozen=True)
class Step:
    """One operator: on the value of an earlier step, and on another one where it takes two."""

    operator: str
    source: int
    other: int
    width: int

    def groups(self, channels: int) -> int:
        """Two to four groups, or one where so many channels cannot be told into them."""
        return next((groups for groups in (2 + self.width % 3, 2, 3) if channels % groups == 0), 1)

    def part(self, channels: int) -> int:
        """A part of the channels: not all, if there are several, and never none."""
        return 1 + self.width % max(1, channels - 1)


class Drawn(nn.Module):
    """A network that performs the steps on feature maps of one size, and classifies those that nothing else reads."""

    def __init__(self, steps: tuple[Step, ...], ending: str) -> None:
        super().__init__()
        self.steps, self.ending = steps, ending
        self.layers = nn.ModuleList()
        widths = [3]
        for step in steps:
            layer, width = self._made(step, widths)
            self.layers.append(layer)
            widths.append(width)
        read = {index % (place + 1) for place, step in enumerate(steps) for index in self._reads(step)}
        self.last = [place for place in range(1, len(widths)) if place not in read]
        self.before = nn.Conv2d(sum(widths[place] for place in self.last), 6, 1)
        self.hidden = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(inplace=True))
        self.head = nn.Linear({"mean": 6, "flatten": 6 * SIDE * SIDE, "hidden": 7}[ending], 3)

    @staticmethod
    def _reads(step: Step) -> tuple[int, ...]:
        return (step.source, step.other) if step.operator in ("add", "concat") else (step.source,)

    def _made(self, step: Step, widths: list[int]) -> tuple[nn.Module, int]:
        """The step's layer, and how many channels it puts out."""
        c, d = widths[step.source % len(widths)], widths[step.other % len(widths)]
        bias = step.width % 2 == 0
        if step.operator == "conv":
            return nn.Conv2d(c, step.width, 3, padding="same", bias=bias), step.width
        if step.operator == "depthwise":
            multiplier = 1 + step.width % 2
            return nn.Conv2d(c, c * multiplier, 3, padding=1, groups=c, bias=bias), c * multiplier
        if step.operator == "again":
            return nn.Conv2d(c, c, 3, padding=2, dilation=2), c
        if step.operator == "transposed":
            return nn.ConvTranspose2d(c, step.width, 3, padding=1, bias=bias), step.width
        if step.operator == "instance norm":  # eps: no rounding of a flat map is blown up
            return nn.InstanceNorm2d(c, eps=0.1, affine=True, track_running_stats=bias), c
        if step.operator == "bare norm":
            return nn.InstanceNorm2d(c, eps=0.1) if bias else nn.GroupNorm(step.groups(c), c, eps=0.1, affine=False), c
        if step.operator == "row norm":
            return nn.LayerNorm((SIDE, SIDE)[bias:], eps=0.1), c
        if step.operator == "norm":
            return nn.BatchNorm2d(c, affine=bias), c
        if step.operator == "grouped":
            made = step.groups(c) * (1 + step.width % 3)
            return nn.Conv2d(c, made, 3, padding=1, groups=step.groups(c), bias=bias), made
        if step.operator == "grouped norm":
            return nn.GroupNorm(step.groups(c), c, eps=0.1), c
        if step.operator == "branches":
            return nn.Conv2d(step.part(c), 2, 3, padding=1), 2 + (c - step.part(c))
        if step.operator == "pixels":
            return nn.Conv2d(c, 4 * (step.width // 2), 1, bias=bias), step.width // 2
        if step.operator in ("stack", "where"):
            return nn.Conv2d(c, c, 1, bias=bias), c
        if step.operator == "prelu":
            return nn.PReLU(c if bias else 1), c
        if step.operator == "add":
            return nn.Conv2d(d, c, 1), c
        if step.operator == "gate":
            return nn.Sequential(nn.Conv2d(c, 2, 1), nn.ReLU(), nn.Conv2d(2, c, 1)), c
        if step.operator == "one gate":
            return nn.Conv2d(c, 1, 1), c
        if step.operator == "scale":
            holder = nn.Module()
            holder.scale = nn.Parameter(torch.randn(1, c, 1, 1) if bias else torch.randn(c, SIDE, SIDE))
            return holder, c
        if step.operator in ("positions", "frozen", "group scale", "order"):
            return self._storing(step, c), c
        halved = {"every second": (c + 1) // 2, "gated half": c // 2 if c % 2 == 0 else c}
        widths_of = halved | {"concat": c + d, "pad": c + 2, "slice": step.part(c), "repeat": 2 * c}
        return nn.Identity(), widths_of.get(step.operator, c)

    @staticmethod
    def _storing(step: Step, c: int) -> nn.Module:
        """A layer on positions, or a holder of numbers that the step uses itself."""
        if step.operator == "positions":
            return nn.Linear(SIDE, SIDE)
        holder = nn.Module()
        if step.operator == "order":
            holder.register_buffer("order", torch.randperm(c))
        elif step.operator == "group scale":
            groups = step.groups(c)
            holder.scale = nn.Parameter(torch.randn(*((groups, 1) if step.width % 2 else (1, c // groups)), 1, 1))
        else:
            for name in ("weight", "bias", "var"):
                holder.register_buffer(name, torch.rand(c) + 0.5)
        return holder

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step, layer in zip(self.steps, self.layers, strict=True):
            source, other = values[step.source % len(values)], values[step.other % len(values)]
            values.append(self._step(step, layer, source, other))
        x = self.before(torch.cat([values[place] for place in self.last], 1))
        if self.ending == "flatten":
            return self.head(F.relu(x).flatten(1))
        x = F.adaptive_avg_pool2d(F.relu(x), 1).view(x.size(0), -1)
        return self.head(self.hidden(x) if self.ending == "hidden" else x)

    def _step(self, step: Step, layer: nn.Module, x: Tensor, other: Tensor) -> Tensor:
        if step.operator in STEPS:
            return STEPS[step.operator](x)
        if step.operator == "again":
            return layer(F.relu(layer(x)))
        if step.operator == "relu":
            return F.relu(x)
        if step.operator == "in place":
            return F.relu_(x * 1)
        if step.operator == "hardswish":
            return F.hardswish(x)
        if step.operator == "add":
            return x + layer(other)
        if step.operator == "concat":
            return torch.cat([x, other], 1)
        if step.operator == "gate":
            return x * torch.sigmoid(layer(x.mean((2, 3), keepdim=True))).expand_as(x)
        if step.operator == "one gate":
            return x * torch.sigmoid(layer(x))
        if step.operator == "scale":
            return layer.scale * x
        if step.operator == "pool":
            return F.max_pool2d(x, 3, 1, 1) if step.width % 2 else F.avg_pool2d(x, 3, 1, 1)
        if step.operator == "pad":
            return F.pad(x, (0, 0, 0, 0, 1, 1))
        return self._moved(step, layer, x)

    def _moved(self, step: Step, layer: nn.Module, x: Tensor) -> Tensor:
        """The steps that move channels about."""
        n, c, h, w = x.shape
        if step.operator == "shuffle":
            return x.view(n, step.groups(c), -1, h, w).transpose(1, 2).reshape(n, c, h, w)
        if step.operator == "branches" and c > 1:
            part, rest = x.split([layer.in_channels, c - layer.in_channels], 1)
            return torch.cat([F.relu(rest), layer(part)], 1)
        if step.operator == "halves" and c % 2 == 0:
            one, two = x.chunk(2, 1)
            return torch.cat([two, one * torch.sigmoid(two)], 1)
        if step.operator == "slice":
            return x[:, : step.part(c)]
        if step.operator == "pixels":
            return F.max_pool2d(F.pixel_shuffle(layer(x), 2), 2)
        if step.operator == "grid gate":
            grid = x.view(n, step.groups(c), -1, h, w)
            return (grid * grid.mean((3, 4), keepdim=True).softmax(1)).reshape(n, c, h, w)
        if step.operator == "group scale":
            return (x.view(n, step.groups(c), -1, h, w) * layer.scale).view(n, c, h, w)
        if step.operator == "frozen":
            scale = (layer.weight * (layer.var + 0.1).rsqrt())[:, None, None]
            return x * scale + (layer.bias[:, None, None] - 0.3 * scale)
        if step.operator == "every second":
            return x[:, ::2]
        if step.operator == "order":
            return x[:, layer.order]
        if step.operator == "roll":
            return x.roll(step.width, 1)
        if step.operator == "gated half" and c % 2 == 0:
            return F.glu(x, 1)
        if step.operator == "written over":
            x = x * 1
            x[:, : step.part(c)] += 0.5
            return x
        if step.operator == "stack":
            return torch.stack([x, layer(x)], 1).amax(1)
        if step.operator == "where":
            return torch.where(x > 0, x, layer(x))
        return x.repeat(1, 2, 1, 1) if step.operator == "repeat" else layer(x)


@st.composite
def networks(draw: st.DrawFn) -> Drawn:
    """A network of two to nine steps, always with a convolution first; its weights are random but fixed."""
    steps = [Step("conv", 0, 0, draw(st.integers(3, 6)))]
    for place in range(draw(st.integers(1, 8))):
        near = draw(st.integers(0, 2))  # mostly the value just made, so that most steps matter
        steps.append(
            Step(
                draw(st.sampled_from(OPERATORS)),
                max(0, place + 1 - near),
                draw(st.integers(0, place + 1)),
                draw(st.integers(2, 6)),
            )
        )
    with torch.random.fork_rng():
        torch.manual_seed(draw(st.integers(0, 99)))
        return Drawn(tuple(steps), draw(st.sampled_from(ENDINGS)))
