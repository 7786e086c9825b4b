"""Small networks that move channels about: in groups, shuffled, split, viewed on several axes, padded, traded."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Moving(nn.Module):
    """A convolution, what a subclass does with its maps, and layers that read what comes out."""

    def __init__(self, width: int = 8, read: int = 8) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.last, self.head = nn.Conv2d(read, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.moved(F.relu(self.norm(self.stem(x))))
        return self.head(F.relu(self.last(x)).mean((2, 3)))

    def moved(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Grouped(Moving):
    """ResNeXt's convolution in four groups."""

    def __init__(self) -> None:
        super().__init__(width=16, read=12)
        self.groups = nn.Conv2d(16, 12, 3, padding=1, groups=4)

    def moved(self, x: Tensor) -> Tensor:
        return F.relu(self.groups(x))


class TwoGroupings(Moving):
    """Two grouped convolutions in a row: the width between them is even in halves and in quarters."""

    def __init__(self) -> None:
        super().__init__()
        self.halves, self.quarters = nn.Conv2d(8, 16, 1, groups=2), nn.Conv2d(16, 8, 1, groups=4)

    def moved(self, x: Tensor) -> Tensor:
        return self.quarters(F.relu(self.halves(x)))


class GroupedConcat(Moving):
    """A convolution in two groups reads a concatenation whose seam lies inside a group: its parts decide together."""

    def __init__(self) -> None:
        super().__init__(width=6)
        self.other, self.groups = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([F.relu(self.norm(self.stem(x))), F.relu(self.other(x))], 1)
        return self.head(F.relu(self.last(self.groups(x))).mean((2, 3)))


class Multiplied(Moving):
    """A depthwise convolution with two filters a channel."""

    def __init__(self) -> None:
        super().__init__(read=16)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)

    def moved(self, x: Tensor) -> Tensor:
        return self.depthwise(x)


class GroupedTransposed(Moving):
    """A transposed convolution in four groups, which stores its filters along its second axis."""

    def __init__(self) -> None:
        super().__init__(width=16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2, groups=4)

    def moved(self, x: Tensor) -> Tensor:
        return F.relu(self.up(x))


class Sequences(Moving):
    """Grouped and depthwise convolutions of sequences, and of volumes."""

    def __init__(self) -> None:
        super().__init__(read=6)
        self.line = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv1d(8, 12, 1, groups=2))
        self.volume = nn.Conv3d(12, 6, (1, 1, 3), padding=(0, 0, 1), groups=2)

    def moved(self, x: Tensor) -> Tensor:
        line = F.relu(self.line(x.flatten(2)))
        return self.volume(line.unsqueeze(2).unsqueeze(2)).squeeze(2)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """ShuffleNet's shuffle, as its authors write it."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class ShuffleV1(Moving):
    """Grouped convolution, shuffle, depthwise convolution, grouped convolution, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(8, 16, 1, groups=2)
        self.depthwise, self.project = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 8, 1, groups=2)

    def moved(self, x: Tensor) -> Tensor:
        return x + self.project(self.depthwise(shuffled(F.relu(self.squeeze(x)), 2)))


def branch() -> nn.Module:
    """What a unit of ShuffleNet V2 does with one half of its channels."""
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    return nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), depthwise, nn.Conv2d(8, 8, 1), nn.ReLU())


class ShuffleV2(Moving):
    """Two units that split their channels, work on one half, and shuffle."""

    def __init__(self) -> None:
        super().__init__(width=16, read=16)
        self.units = nn.ModuleList([branch(), branch()])

    def moved(self, x: Tensor) -> Tensor:
        for unit in self.units:
            left, right = x.chunk(2, 1)
            x = shuffled(torch.cat([left, unit(right)], 1), 2)
        return x


class SharedUnderShuffle(Moving):
    """The same unit twice: what goes in is tied to what comes out, and the shuffle ties that to itself."""

    def __init__(self) -> None:
        super().__init__(width=16, read=16)
        self.unit = branch()

    def moved(self, x: Tensor) -> Tensor:
        for _ in range(2):
            left, right = x.chunk(2, 1)
            x = shuffled(torch.cat([left, self.unit(right)], 1), 2)
        return x


class ShuffledByLayer(Moving):
    """PyTorch's own shuffle between two grouped convolutions."""

    def __init__(self) -> None:
        super().__init__(width=12)
        self.shuffle, self.groups = nn.ChannelShuffle(3), nn.Conv2d(12, 8, 1, groups=2)

    def moved(self, x: Tensor) -> Tensor:
        return self.groups(self.shuffle(x))


class C2f(Moving):
    """YOLO's block: the widths of the split are written into the forward pass."""

    def __init__(self) -> None:
        super().__init__(read=12)
        self.width = 4
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def moved(self, x: Tensor) -> Tensor:
        parts = list(x.split((self.width, self.width), 1))
        parts.append(parts[-1] + F.silu(self.two(F.silu(self.one(parts[-1])))))
        return torch.cat(parts, 1)


class Uneven(Moving):
    """A split into parts of different lengths, each read by a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.long = nn.Conv2d(3, 4, 1), nn.Conv2d(5, 4, 3, padding=1)

    def moved(self, x: Tensor) -> Tensor:
        short, long = torch.split(x, [3, 5], dim=1)
        return torch.cat([F.relu(self.long(long)), F.relu(self.short(short))], 1)


class Ghost(Moving):
    """GhostNet's module: half of the maps come cheap from the other half, and a slice takes off what is too many."""

    def __init__(self) -> None:
        super().__init__(read=14)
        self.cheap = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def moved(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.cheap(x)], 1)[:, :14, :, :]


class Selective(Moving):
    """ResNeSt's split attention: a softmax over the two branches of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.squeeze, self.excite = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 16, 1)

    def moved(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        n, c, h, w = y.shape
        y = y.reshape(n, 2, c // 2, h, w)
        gate = self.excite(F.relu(self.squeeze(y.sum(1).mean((2, 3), keepdim=True))))
        return x + (y * gate.view(n, 2, c // 2, 1, 1).softmax(1)).sum(1)


class Maxout(Moving):
    """The larger of every two neighbouring channels."""

    def __init__(self) -> None:
        super().__init__(width=16)

    def moved(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, c // 2, 2, h, w).amax(2)


class Pixels(Moving):
    """Channels traded for positions and back."""

    def __init__(self) -> None:
        super().__init__(width=16, read=24)
        self.fine = nn.Conv2d(4, 6, 3, padding=1)

    def moved(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(F.relu(self.fine(F.pixel_shuffle(x, 2))), 2)


class GroupNormed(Moving):
    """Statistics over groups of four channels, which go or stay together."""

    def __init__(self) -> None:
        super().__init__(width=16, read=16)
        self.normed = nn.GroupNorm(4, 16)

    def moved(self, x: Tensor) -> Tensor:
        return F.relu(self.normed(x))


class WithoutNumbers(Moving):
    """Normalisations that store no numbers, one of them used twice: their width is an attribute only."""

    def __init__(self) -> None:
        super().__init__(width=16, read=12)
        self.twice, self.mid = nn.InstanceNorm2d(16), nn.Conv2d(16, 16, 3, padding=1)
        self.wide, self.groups = nn.Conv2d(16, 12, 3, padding=1), nn.GroupNorm(6, 12, affine=False)

    def moved(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(self.mid(self.twice(x))))
        return F.relu(self.groups(self.wide(x)))


class CastNorms(Moving):
    """timm's response norm and EvoNorm: their numbers are viewed and cast, and groups of four share a deviation."""

    def __init__(self) -> None:
        super().__init__(width=16, read=16)
        self.mid = nn.Conv2d(16, 16, 3, padding=1)
        self.weight, self.floor = nn.Parameter(torch.randn(16)), nn.Parameter(torch.randn(16))

    def moved(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        size = x.square().mean((2, 3), keepdim=True).to(torch.float32)
        x = x * (size + 1e-5).rsqrt().expand(x.shape).to(x.dtype) * self.weight.view(1, -1, 1, 1).to(x.dtype)
        y = self.mid(torch.maximum(x, self.floor.view(1, -1, 1, 1).to(x.dtype)))
        spread = y.reshape(n, 4, c // 4, h, w).float().var((2, 3, 4), unbiased=False, keepdim=True)
        return y * y.sigmoid() / (spread + 1e-5).sqrt().expand(n, 4, c // 4, h, w).reshape(n, c, h, w).to(y.dtype)


class FrozenNorm(nn.Module):
    """torchvision's frozen batch norm: four buffers, calculated with before they meet the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight, mean = self.weight.reshape(1, -1, 1, 1), self.mean.reshape(1, -1, 1, 1)
        scale = weight * (self.var.reshape(1, -1, 1, 1) + 1e-5).rsqrt()
        return x * scale + (self.bias.reshape(1, -1, 1, 1) - mean * scale)


class Frozen(Moving):
    """Frozen norms, one used twice; a scale that two values meet; numbers for rows, which are no channels."""

    def __init__(self) -> None:
        super().__init__(read=6)
        self.frozen, self.again, self.mid = FrozenNorm(8), FrozenNorm(6), nn.Conv2d(8, 6, 3, padding=1)
        self.scale, self.place = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(1))

    def moved(self, x: Tensor) -> Tensor:
        x = self.again(self.mid(F.relu(self.frozen(x))))
        scale = F.softplus(self.scale)[:, None, None]
        return (self.again(F.relu(x)) * scale + x * scale) * (self.place * 2)


class OptionA(Moving):
    """CIFAR's short cut: the narrower maps are padded with zeros, which count as filters of no layer."""

    def __init__(self) -> None:
        super().__init__(read=16)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)

    def moved(self, x: Tensor) -> Tensor:
        return F.relu(self.down(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))


class Context(Moving):
    """GCNet's block: every channel averaged with the same learnt weights."""

    def __init__(self) -> None:
        super().__init__()
        self.mask, self.transform = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 1)

    def moved(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weights = self.mask(x).view(n, 1, h * w).softmax(-1).unsqueeze(-1)
        return x + self.transform((x.view(n, 1, c, h * w) @ weights).view(n, c, 1, 1))


class Matrix(Moving):
    """A stored matrix, multiplied without a layer, as `matmul` and as `addmm`."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.bias = nn.Parameter(torch.randn(8, 10)), nn.Parameter(torch.randn(10))
        self.second, self.offset = nn.Parameter(torch.randn(10, 8)), nn.Parameter(torch.randn(8))

    def moved(self, x: Tensor) -> Tensor:
        n, h, w = x.size(0), x.size(2), x.size(3)
        x = F.relu(x.flatten(2).transpose(1, 2) @ self.matrix + self.bias)
        x = torch.addmm(self.offset, x.flatten(0, 1), self.second)
        return x.view(n, h, w, -1).permute(0, 3, 1, 2)


class MatrixTurned(Moving):
    """Stored matrices on the left of a product, and turned around on its right and in `addmm`."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.offset = nn.Parameter(torch.randn(10, 8)), nn.Parameter(torch.randn(12))
        self.turned, self.second = nn.Parameter(torch.randn(12, 10)), nn.Parameter(torch.randn(8, 12))

    def moved(self, x: Tensor) -> Tensor:
        n, h, w = x.size(0), x.size(2), x.size(3)
        x = F.relu(torch.matmul(self.before, x.flatten(2))).transpose(1, 2).flatten(0, 1)
        x = F.relu(torch.addmm(self.offset, x, self.turned.t())) @ self.second.transpose(0, 1)
        return x.view(n, h, w, -1).permute(0, 3, 1, 2)


class OneChannel(Moving):
    """One channel is read by itself: it stays, and the others may go."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(1, 8, 3, padding=1)

    def moved(self, x: Tensor) -> Tensor:
        return x * self.mask(x[:, 5].unsqueeze(1)).sigmoid() + x.select(1, 2).unsqueeze(1)


class ByGroup(Moving):
    """One number for each of many groups, whole groups of which go, and one for each place in a few groups."""

    def __init__(self) -> None:
        super().__init__(width=16)
        self.mid, self.wide = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 8, 1)
        self.many, self.places = nn.Parameter(torch.randn(8, 1, 1, 1)), nn.Parameter(torch.randn(2, 1, 1))

    def moved(self, x: Tensor) -> Tensor:
        x = F.relu(self.mid((x.unflatten(1, (8, 2)) * self.many).flatten(1, 2)))
        return self.wide((x.unflatten(1, (8, 2)) + self.places).flatten(1, 2))


class Chosen(Moving):
    """One of two maps at each position, both stacked, and the whole repeated."""

    def __init__(self) -> None:
        super().__init__(read=16)
        self.other = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.norm(self.stem(x)), self.other(x)
        chosen = torch.where(a > 0, a, b).masked_fill(b > 1, 0.5)
        both = torch.stack([chosen, b], 1).sum(1).repeat(1, 2, 1, 1)
        return self.head(F.relu(self.last(both)).mean((2, 3)))


class Beside(Moving):
    """Maps joined along rows and along columns."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(8, 8, 3, padding=1)

    def moved(self, x: Tensor) -> Tensor:
        y = F.relu(self.other(x))
        return torch.cat([torch.cat([x, y], 2), torch.cat([y, y], 2)], 3)


class OnChannels(Moving):
    """Buffers, saved and unsaved, and a number for every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(1, 8, 1, 1))
        self.register_buffer("deviation", torch.rand(8, 1, 1) + 0.5, persistent=False)

    def moved(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.deviation * 0.5 + 1


class AddedToConcat(Moving):
    """Two layers side by side are added to one wide layer, whose filters are decided on with theirs."""

    def __init__(self) -> None:
        super().__init__(width=4, read=12)
        self.other, self.wide = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        sides = torch.cat([self.norm(self.stem(x)), self.other(x)], 1)
        return self.head(F.relu(self.last(F.relu(sides + self.wide(x)))).mean((2, 3)))


class Mirrored(Moving):
    """Channels met by themselves in the other direction go in pairs."""

    def moved(self, x: Tensor) -> Tensor:
        return x + x.flip(1)


@dataclass(frozen=True)
class Facts:
    """What is true of a network.

    Attributes:
        free: space -> how many decisions it has.
        cells: space -> in how many cells equally many stay.
        whole: space, the head apart -> a part of its reason.
        as_graph: cut, it is a graph of operators; else it stays of the user's own class. None where that depends on
            the cut: some widths suit the user's code.
    """

    free: dict[str, int]
    cells: dict[str, int] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    as_graph: bool | None = False


MOVING: dict[type[Moving], Facts] = {
    Grouped: Facts({"stem": 16, "groups": 12, "last": 6}, {"stem": 4, "groups": 4}),
    TwoGroupings: Facts({"stem": 8, "halves": 16, "quarters": 8, "last": 6}, {"stem": 2, "halves": 4, "quarters": 4}),
    GroupedConcat: Facts({"stem": 16, "groups": 8, "last": 6}, {"stem": 2, "groups": 2}),
    Multiplied: Facts({"stem": 8, "last": 6}),
    GroupedTransposed: Facts({"stem": 16, "up": 8, "last": 6}, {"stem": 4, "up": 4}),
    Sequences: Facts({"stem": 8, "line.2": 12, "volume": 6, "last": 6}, {"stem": 2, "line.2": 2, "volume": 2}),
    ShuffleV1: Facts({"stem": 8, "squeeze": 8, "last": 6}, {"stem": 2, "squeeze": 2}),
    ShuffleV2: Facts({"stem": 16, "units.0.0": 8, "units.1.0": 8, "last": 6}, as_graph=None),
    SharedUnderShuffle: Facts({"unit.0": 8, "last": 6}, whole={"stem": "none of its filters can go alone"}),
    ShuffledByLayer: Facts({"stem": 4, "groups": 8, "last": 6}, {"stem": 2, "groups": 2}),
    C2f: Facts({"stem": 8, "one": 4, "last": 6}, {"stem": 2}, as_graph=None),
    Uneven: Facts({"stem": 8, "short": 4, "long": 4, "last": 6}, as_graph=True),
    Ghost: Facts({"stem": 8, "last": 6}, as_graph=None),
    Selective: Facts({"stem": 8, "squeeze": 6, "last": 6}, {"stem": 2}),
    Maxout: Facts({"stem": 8, "last": 6}),
    Pixels: Facts({"stem": 4, "fine": 6, "last": 6}),
    GroupNormed: Facts({"stem": 4, "last": 6}),
    WithoutNumbers: Facts({"stem": 16, "wide": 6, "last": 6}),
    CastNorms: Facts({"stem": 16, "mid": 4, "last": 6}, as_graph=None),
    Frozen: Facts({"stem": 8, "mid": 6, "last": 6}),
    OptionA: Facts({"stem": 8, "down": 8, "last": 6}, as_graph=None),
    Context: Facts({"stem": 8, "last": 6}, whole={"mask": "one filter that all channels meet"}),
    Matrix: Facts({"stem": 8, "matrix": 10, "second": 8, "last": 6}),
    MatrixTurned: Facts({"stem": 8, "before": 10, "turned": 12, "second": 8, "last": 6}),
    OneChannel: Facts({"stem": 8, "last": 6}, as_graph=True),
    ByGroup: Facts({"stem": 8, "mid": 8, "wide": 8, "last": 6}, as_graph=True),
    Chosen: Facts({"stem": 8, "last": 6}),
    Beside: Facts({"stem": 8, "last": 6}),
    OnChannels: Facts({"stem": 8, "last": 6}),
    AddedToConcat: Facts({"stem": 4, "other": 8, "last": 6}),
    Mirrored: Facts({"stem": 4, "last": 6}),
}
"""Every network of this file and what is true of it."""
