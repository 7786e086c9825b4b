"""Networks whose code makes it hard to tell what belongs to which channel, or that read their own width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 8


class Hostile(nn.Module):
    """A convolution, a step that sees its maps and the module, and layers that read what comes out."""

    def __init__(self, step: Step, read: int = WIDTH, **parts: nn.Module | nn.Parameter | Tensor) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)
        self.second, self.head = nn.Conv2d(read, 6, 1), nn.Linear(6, 4)
        self.step = step
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Tensor:
        x = self.step(F.relu(self.norm(self.first(x))), self)
        return self.head(F.relu(self.second(x)).flatten(2).mean(-1))


Step = Callable[[Tensor, Hostile], Tensor]


@dataclass(frozen=True)
class Case:
    """A hostile step and what becomes of the channels that it reads.

    Attributes:
        step: from the maps of the first convolution to what the second one reads.
        why: a part of the reason why the first convolution's filters stay; empty where they may go.
        read: how many channels the second convolution reads.
        parts: what else the network holds: name -> a function that makes it.
    """

    step: Step
    why: str = ""
    read: int = WIDTH
    parts: tuple[tuple[str, Callable[[], nn.Module | nn.Parameter | Tensor]], ...] = ()

    def network(self) -> Hostile:
        return Hostile(self.step, self.read, **{name: make() for name, make in self.parts})


def asserting(x: Tensor, _: Hostile) -> Tensor:
    assert x.shape[1] == WIDTH
    return x


def branching(x: Tensor, _: Hostile) -> Tensor:
    return x * 2 if x.shape[1] == WIDTH else x * 3


def in_place(x: Tensor, _: Hostile) -> Tensor:
    x = x * 1
    x[:, :4] += 1
    return x


def overwriting(x: Tensor, _: Hostile) -> Tensor:
    x = x * 1
    x[:, 2] = 0
    return x


def rows_in_place(x: Tensor, _: Hostile) -> Tensor:
    x = x * 1
    x[:, :, ::2] = 0
    return x


def filled_in(x: Tensor, _: Hostile) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :4] = x[:, 4:]
    return y


def shifted_in_time(x: Tensor, _: Hostile) -> Tensor:
    """TSM's shift of a part of the channels."""
    y = torch.zeros_like(x)
    y[:, :2, 1:], y[:, 2:4, :-1], y[:, 4:] = x[:, :2, :-1], x[:, 2:4, 1:], x[:, 4:]
    return y


def unpooled(x: Tensor, module: Hostile) -> Tensor:
    x, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(F.relu(module.inner(x)), places, 2)


def attended(x: Tensor, module: Hostile, heads: int = 2) -> Tensor:
    n, c, h, w = x.shape
    q, k, v = (part.view(n, heads, c // heads, h * w) for part in module.inner(x).chunk(3, 1))
    return (v @ (q.transpose(2, 3) @ k).softmax(-1).transpose(2, 3)).reshape(n, c, h, w)


def dynamic(x: Tensor, module: Hostile) -> Tensor:
    """A convolution with weights of its own for every image."""
    n, c, h, w = x.shape
    kernels = (module.route(x.mean((2, 3))).softmax(1) @ module.weights.flatten(1)).view(n * WIDTH, c, 1, 1)
    return F.conv2d(x.reshape(1, n * c, h, w), kernels, groups=n).view(n, WIDTH, h, w)


def chosen_twice(x: Tensor, module: Hostile) -> Tensor:
    order = torch.tensor([0, 5, 3, 7])
    return torch.cat([x[:, order], x.relu().exp()[:, order]], 1)


def channels_and_rows(x: Tensor, module: Hostile) -> Tensor:
    order = torch.tensor([0, 5, 3])
    return x[:, order][:, :, order]


def turning(x: Tensor, module: Hostile) -> Tensor:
    x = x[:, module.order]
    module.order += 1
    module.order %= WIDTH
    return x


INNER = (("inner", lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1)),)


def standardised(x: Tensor, module: Hostile) -> Tensor:
    weight = module.inner.weight
    return F.conv2d(x, weight - weight.mean((1, 2, 3), keepdim=True), module.inner.bias, padding=1)


WRITTEN_DOWN: dict[str, Case] = {
    "divided by its width": Case(lambda x, m: x / x.shape[1]),
    "scaled by a number that was its width": Case(lambda x, m: x * WIDTH**-0.5),
    "scaled by its width": Case(lambda x, m: x * x.shape[1] ** -0.5),
    "viewed at its width": Case(lambda x, m: x.view(x.shape[0], WIDTH, -1).view(x.shape[0], WIDTH, *x.shape[2:])),
    "viewed with the batch left open": Case(lambda x, m: x.view(-1, WIDTH, x.shape[2], x.shape[3])),
    "split at its width": Case(lambda x, m: torch.cat([*x.split([3, 5], 1)][::-1], 1)),
    "sliced at its width": Case(lambda x, m: torch.cat([x[:, 5:8], x[:, -8:5]], 1)),
    "asserted": Case(asserting),
    "branched upon": Case(branching),
    "counted by all elements": Case(lambda x, m: x / x[0].numel() * 100),
    "told by a parameter": Case(lambda x, m: x + len(m.first.bias)),
    "told by a layer": Case(lambda x, m: x * m.first.out_channels),
    "zeros of its own shape": Case(lambda x, m: torch.where(x > 0.5, x, torch.zeros_like(x))),
    "numbered channels": Case(lambda x, m: x * torch.arange(x.shape[1]).view(1, -1, 1, 1), "channels cannot be cut"),
    "constants of its shape": Case(lambda x, m: x + torch.full((1, WIDTH, 1, 1), 0.5), "channels cannot be cut"),
}
READ_AS_NUMBERS: dict[str, Case] = {
    "mean of a weight": Case(lambda x, m: x * m.first.weight.abs().mean(), "first.weight is used twice"),
    "norm of each filter": Case(
        lambda x, m: x * m.first.weight.flatten(1).norm(dim=1).view(1, -1, 1, 1), "first.weight is used twice"
    ),
    "weight of the reader": Case(lambda x, m: x * m.second.weight.mean((0, 2, 3)).view(-1, 1, 1), "cannot be cut"),
    "bias": Case(lambda x, m: x + m.first.bias.view(1, -1, 1, 1)),
    "statistics": Case(lambda x, m: x - m.norm.running_mean[:, None, None]),
    "standardised weight": Case(standardised, "conv2d is used in a way that is not supported", parts=INNER),
    "calculated weight": Case(
        dynamic,
        "used in a way that is not supported",
        parts=(("weights", lambda: nn.Parameter(torch.randn(2, 8, 8))), ("route", lambda: nn.Linear(WIDTH, 2))),
    ),
}
IN_PLACE: dict[str, Case] = {
    "a part of the channels": Case(in_place),
    "one channel": Case(overwriting, "operator select_scatter is not supported"),
    "rows": Case(rows_in_place),
    "halves exchanged": Case(filled_in),
    "a shift in time": Case(shifted_in_time),
}
MIXED: dict[str, Case] = {
    "every second channel": Case(lambda x, m: x[:, ::2], read=4),
    "channels by a list": Case(lambda x, m: x[:, [0, 3, 6, 7]], read=4),
    "channels by a buffer": Case(
        lambda x, m: x[:, m.chosen], read=5, parts=(("chosen", lambda: torch.tensor([0, 1, 4, 5, -1])),)
    ),
    "channels selected": Case(
        lambda x, m: x.index_select(1, m.chosen), read=3, parts=(("chosen", lambda: torch.tensor([6, 2, 6])),)
    ),
    "channels by a mask": Case(
        lambda x, m: x[:, m.chosen], "chosen along channels", 4, (("chosen", lambda: torch.arange(8) % 2 > 0),)
    ),
    "every third from the second": Case(lambda x, m: x[:, 1:-1:3], read=2),
    "channels by a list used twice": Case(chosen_twice, read=8),
    "channels and rows by one list": Case(channels_and_rows, "chosen along channels", read=3),
    "channels by a buffer that is a number, too": Case(
        lambda x, m: x[:, m.chosen] * m.chosen.sum(),
        "chosen along channels",
        2,
        (("chosen", lambda: torch.tensor([6, 2])),),
    ),
    "channels by a buffer that is written": Case(
        turning, "chosen along channels", 8, (("order", lambda: torch.arange(8)),)
    ),
    "roll": Case(lambda x, m: x.roll(3, 1)),
    "roll there and further back": Case(lambda x, m: x.roll((2, 1, -5), (1, 2, 1))),
    "flip": Case(lambda x, m: x.flip(1, -1)),
    "cumsum": Case(lambda x, m: x.cumsum(1), "accumulated over channels"),
    "cummax": Case(lambda x, m: x.cummax(1).values, "operator cummax"),
    "sort": Case(lambda x, m: x.sort(1).values, "sorted along channels by operator sort"),
    "topk": Case(lambda x, m: x.topk(5, 1).values, "operator topk", read=5),
    "argmax": Case(lambda x, m: x * x.argmax(1, keepdim=True), "operator argmax"),
    "softmax": Case(lambda x, m: x.softmax(1), "normalised over channels"),
    "normalised to length one": Case(lambda x, m: F.normalize(x, dim=1), "reduced over channels"),
    "mean subtracted": Case(lambda x, m: x - x.mean(1, keepdim=True), "reduced over channels"),
    "layer norm": Case(lambda x, m: F.layer_norm(x, x.shape[1:]), "normalised over channels"),
    "one group": Case(lambda x, m: F.group_norm(x, 1), "normalised over channels"),
    "local response": Case(lambda x, m: F.local_response_norm(x, 3), "operator avg_pool3d"),
    "numbers of rows and of columns": Case(
        lambda x, m: x * (2 * m.row)[:, None] - m.row.exp() * m.row,
        parts=(("row", lambda: nn.Parameter(torch.randn(12))),),
    ),
    "numbers of channels that are mixed": Case(
        lambda x, m: x * (2 * m.scale).softmax(0)[:, None, None],
        "meets a tensor whose channels cannot be cut",
        parts=(("scale", lambda: nn.Parameter(torch.randn(WIDTH))),),
    ),
    "numbers of channels that are shared out": Case(
        lambda x, m: x * (2 * m.scale)[:, None, None] * (m.scale * m.scale.mean())[:, None, None],
        "reduced over channels by operator mean",
        parts=(("scale", lambda: nn.Parameter(torch.randn(WIDTH))),),
    ),
    "einsum": Case(
        lambda x, m: torch.einsum("nchw,cd->ndhw", x, m.matrix),
        "multiplied as matrices by operator einsum",
        3,
        (("matrix", lambda: nn.Parameter(torch.randn(WIDTH, 3))),),
    ),
    "gram matrix": Case(lambda x, m: (x.flatten(2) @ x.flatten(2).mT).unsqueeze(2), "multiplied as matrices"),
    "attention": Case(attended, parts=(("inner", lambda: nn.Conv2d(WIDTH, 3 * WIDTH, 1)),)),
    "unfold": Case(lambda x, m: F.unfold(x, 3, padding=1).unflatten(1, (WIDTH, 9)).mean(2).view_as(x)),
    "unpooling": Case(unpooled, "used in a way that is not supported", parts=INNER),
    "pooled over channels": Case(
        lambda x, m: F.max_pool1d(x.flatten(2).mT, 2).mT.unsqueeze(2), "operator max_pool1d", read=4
    ),
    "channels as depth": Case(
        lambda x, m: m.inner(x.unsqueeze(1)).squeeze(1),
        "operator conv3d",
        parts=(("inner", lambda: nn.Conv3d(1, 1, 3, padding=1)),),
    ),
    "channels as images": Case(
        lambda x, m: m.inner(x.reshape(-1, 1, *x.shape[2:])).view_as(x),
        "operator conv2d",
        parts=(("inner", lambda: nn.Conv2d(1, 1, 3, padding=1)),),
    ),
    "channels as a sequence": Case(
        lambda x, m: x * m.inner(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()[:, :, None, None],
        "operator conv1d",
        parts=(("inner", lambda: nn.Conv1d(1, 1, 3, padding=1)),),
    ),
    "Fourier": Case(lambda x, m: torch.fft.rfft2(x).real, "operator fft_rfft2"),
    "recurrent": Case(
        lambda x, m: m.inner(x.flatten(2).mT)[0].mT.unsqueeze(2),
        "operator lstm",
        parts=(("inner", lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True)),),
    ),
}
MODES: dict[str, Case] = {
    "a view at the traced batch": Case(lambda x, m: x.view(2, *x.shape[1:]) if x.shape[0] == 2 else x),
    "another way in training": Case(lambda x, m: x * 2 if m.training else x * 3),
    "dropout": Case(lambda x, m: F.dropout2d(F.dropout(x, 0.5, m.training), 0.5, m.training)),
    "the batch as an axis of maps": Case(lambda x, m: (x.transpose(0, 1) * 2).transpose(0, 1)),
    "the mean of the batch": Case(lambda x, m: x - x.mean(0, keepdim=True)),
    "batch and channels in one": Case(lambda x, m: x.flatten(0, 1).softmax(-1).unflatten(0, (x.shape[0], -1))),
}


def rows_above_ten(x: Tensor, _: Hostile) -> Tensor:
    x = x.view(x.shape[0], WIDTH, *x.shape[2:])
    return F.max_pool2d(x, 2) * 2 if x.shape[2] > 10 else x


def one_image(x: Tensor, _: Hostile) -> Tensor:
    x = x.view(x.shape[0], WIDTH, *x.shape[2:])
    return x * 2 if x.shape[0] == 1 else x


def many_positions(x: Tensor, _: Hostile) -> Tensor:
    x = x.view(x.shape[0], WIDTH, *x.shape[2:])
    return x * 2 if x.shape[2] * x.shape[3] >= 200 else x


def pooled_to_one(x: Tensor, _: Hostile) -> Tensor:
    """The ending of many CIFAR networks."""
    return F.avg_pool2d(x.view(x.shape[0], WIDTH, *x.shape[2:]), x.shape[3])


def padded_to_eights(x: Tensor, _: Hostile) -> Tensor:
    missing = (8 - x.shape[2] % 8) % 8
    return F.pad(x.view(x.shape[0], WIDTH, *x.shape[2:]), (0, missing, 0, missing))


SIZED: dict[str, Case] = {
    "pools large images": Case(rows_above_ten),
    "treats images of many positions in another way": Case(many_positions),
    "pools to one position": Case(pooled_to_one),
    "pads to a multiple of eight": Case(padded_to_eights),
    "takes one size only": Case(lambda x, m: x.view(x.shape[0], WIDTH, 144).view(x.shape[0], WIDTH, 12, 12)),
}
"""Widths written down, so that a cut makes a graph, and a way through the code that depends on the images."""
