"""Small versions of networks that people put on devices, written as their authors write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    """Convolution, normalisation and, mostly, an activation."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs), *([nn.SiLU(inplace=True)] if act else []))


class UNet(nn.Module):
    """Skips are concatenated with what a transposed convolution brings up."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self._double(3, 4), self._double(4, 8), self._double(8, 12)
        self.up2, self.up1 = nn.ConvTranspose2d(12, 8, 2, stride=2), nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.join2, self.join1 = self._double(16, 8), self._double(8, 4)
        self.mask = nn.Conv2d(4, 2, 1)

    @staticmethod
    def _double(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.bottom(F.max_pool2d(two, 2))
        x = self.join2(torch.cat([two, self.up2(x)], 1))
        return self.mask(self.join1(torch.cat([one, self.up1(x)], 1)))


class C2f(nn.Module):
    """YOLOv8's block: half of the maps pass through one bottleneck after another, and all stages are kept."""

    def __init__(self, inputs: int, outputs: int, count: int, shortcut: bool) -> None:
        super().__init__()
        self.c, self.shortcut = outputs // 2, shortcut
        self.cv1, self.cv2 = conv(inputs, 2 * self.c, 1), conv((2 + count) * self.c, outputs, 1)
        self.m = nn.ModuleList(nn.Sequential(conv(self.c, self.c), conv(self.c, self.c)) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            y.append(y[-1] + block(y[-1]) if self.shortcut else block(y[-1]))
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    """Pooling of three sizes, by pooling three times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(channels, channels // 2, 1), conv(channels * 2, channels, 1)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        one = self.m(x)
        two = self.m(one)
        return self.cv2(torch.cat((x, one, two, self.m(two)), 1))


class Yolo(nn.Module):
    """Backbone, a neck that goes up and down again, and a head at two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage1 = conv(3, 4, 3, 2), C2f(4, 8, 1, shortcut=True)
        self.down, self.stage2, self.sppf = conv(8, 8, 3, 2), C2f(8, 8, 1, shortcut=True), SPPF(8)
        self.up, self.neck1 = nn.Upsample(scale_factor=2), C2f(16, 8, 1, shortcut=False)
        self.again, self.neck2 = conv(8, 8, 3, 2), C2f(16, 8, 1, shortcut=False)
        self.heads = nn.ModuleList(nn.Sequential(conv(8, 6), nn.Conv2d(6, 7, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stage1(self.stem(x))
        coarse = self.sppf(self.stage2(self.down(fine)))
        fine = self.neck1(torch.cat([self.up(coarse), fine], 1))
        coarse = self.neck2(torch.cat([self.again(fine), coarse], 1))
        return [head(maps) for head, maps in zip(self.heads, (fine, coarse), strict=True)]


class Detector(nn.Module):
    """MobileNet-SSD: boxes and scores of every position of two maps, one below the other."""

    classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv(3, 8, 3, 2), nn.Sequential(conv(8, 8, 3, groups=8), conv(8, 12, 1))
        self.extra = nn.Sequential(conv(12, 6, 1), conv(6, 6, 3, 2, groups=6), conv(6, 10, 1))
        self.boxes = nn.ModuleList([self._head(12, 2 * 4), self._head(10, 2 * 4)])
        self.scores = nn.ModuleList([self._head(12, 2 * self.classes), self._head(10, 2 * self.classes)])

    @staticmethod
    def _head(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv(inputs, inputs, 3, groups=inputs), nn.Conv2d(inputs, outputs, 1))

    def _rows(self, heads: nn.ModuleList, maps: list[Tensor], columns: int) -> Tensor:
        rows = []
        for head, x in zip(heads, maps, strict=True):
            x = head(x).permute(0, 2, 3, 1)
            rows.append(x.reshape(x.shape[0], -1, columns))
        return torch.cat(rows, dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = [self.block(self.stem(x))]
        maps.append(self.extra(maps[0]))
        return self._rows(self.boxes, maps, 4), self._rows(self.scores, maps, self.classes).softmax(-1)


class BasicBlock(nn.Module):
    """A block of the CIFAR ResNets, whose short cut subsamples and pads with zeros (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.pad = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad), "constant", 0) if self.pad else x
        return F.relu(out)


class CifarResNet(nn.Module):
    """Three widths, option A between them: what a stage adds to the residual filters is a space of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.layer1, self.layer2 = BasicBlock(4, 4), nn.Sequential(BasicBlock(4, 8, 2), BasicBlock(8, 8))
        self.layer3, self.linear = BasicBlock(8, 16, 2), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        x = F.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))


class ResNeXt(nn.Module):
    """Two bottlenecks whose 3x3 convolution is grouped, and a short cut with a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.project = conv(3, 8), conv(8, 16, 1, 2, act=False)
        self.one = nn.Sequential(conv(8, 8, 1), conv(8, 8, 3, 2, groups=4), conv(8, 16, 1, act=False))
        self.two = nn.Sequential(conv(16, 8, 1), conv(8, 8, 3, groups=4), conv(8, 16, 1, act=False))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.one(x) + self.project(x))
        return self.fc(F.relu(self.two(x) + x).mean((2, 3)))


class Excited(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class RegNet(nn.Module):
    """RegNetY's block: grouped convolution with groups of a given width, then squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.project = conv(3, 8, 3, 2), conv(8, 12, 1, act=False)
        self.block = nn.Sequential(
            conv(8, 12, 1), conv(12, 12, 3, groups=3), Excited(12, 4), conv(12, 12, 1, act=False)
        )
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc(F.relu(self.project(x) + self.block(x)).mean((2, 3)))


class Unit(nn.Module):
    """A unit of ShuffleNet V2; the first of a stage halves the map and works on both branches."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.branch1 = nn.Sequential(conv(inputs, inputs, 3, 2, inputs, act=False), conv(inputs, half, 1))
        self.branch2 = nn.Sequential(
            conv(inputs if stride > 1 else half, half, 1),
            conv(half, half, 3, stride, half, act=False),
            conv(half, half, 1),
        )
        if stride == 1:
            self.branch1 = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            left, right = x.chunk(2, dim=1)
            out = torch.cat((left, self.branch2(right)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        n, c, h, w = out.size()
        return out.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ShuffleNet(nn.Module):
    """One stage of ShuffleNet V2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage = conv(3, 8), nn.Sequential(Unit(8, 16, 2), Unit(16, 16, 1), Unit(16, 16, 1))
        self.last, self.fc = conv(16, 12, 1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.stage(self.stem(x))).mean([2, 3]))


class GhostModule(nn.Module):
    """Some maps are made by a convolution, the others cheaply from them."""

    def __init__(self, inputs: int, outputs: int, *, act: bool = True) -> None:
        super().__init__()
        self.outputs, made = outputs, -(-outputs // 2)
        self.primary, self.cheap = conv(inputs, made, 1, act=act), conv(made, made, 3, groups=made, act=act)

    def forward(self, x: Tensor) -> Tensor:
        made = self.primary(x)
        return torch.cat([made, self.cheap(made)], dim=1)[:, : self.outputs, :, :]


class GhostNet(nn.Module):
    """GhostNet's bottleneck with squeeze and excite, added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3, 2)
        self.wide, self.gate, self.narrow = GhostModule(8, 16), Excited(16, 4), GhostModule(16, 8, act=False)
        self.last, self.fc = conv(8, 12, 1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.narrow(self.gate(self.wide(x)))
        return self.fc(self.last(x).mean((2, 3)))


class HRNet(nn.Module):
    """Two resolutions side by side that exchange what they know by sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = conv(3, 6), conv(6, 10, 3, 2)
        self.high, self.low = conv(6, 6), conv(10, 10)
        self.to_high, self.to_low = conv(10, 6, 1, act=False), conv(6, 10, 3, 2, act=False)
        self.final = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.stem(x)
        low = self.down(high)
        high, low = self.high(high), self.low(low)
        up = F.interpolate(self.to_high(low), size=high.shape[2:], mode="bilinear")
        high, low = F.relu(high + up), F.relu(low + self.to_low(high))
        return self.final(torch.cat([high, F.interpolate(low, size=high.shape[2:], mode="bilinear")], 1))


class DenseNet(nn.Module):
    """Normalisation and activation first; every layer reads all maps before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(self._layer(6 + 4 * place) for place in range(3))
        self.transition = nn.Sequential(nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 9, 1, bias=False), nn.AvgPool2d(2))
        self.norm, self.classifier = nn.BatchNorm2d(9), nn.Linear(9, 5)

    @staticmethod
    def _layer(inputs: int) -> nn.Module:
        wide = nn.Conv2d(inputs, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        return nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), *wide, nn.Conv2d(8, 4, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        x = self.transition(torch.cat(features, 1))
        return self.classifier(F.relu(self.norm(x), inplace=True).mean((2, 3)))


DEPLOYED: dict[type[nn.Module], tuple[set[str], bool | None]] = {
    UNet: ({"mask"}, False),
    Yolo: ({"heads.0.1", "heads.1.1"}, None),
    Detector: ({f"{kind}.{place}.1" for kind in ("boxes", "scores") for place in (0, 1)}, False),
    CifarResNet: ({"linear"}, None),
    ResNeXt: ({"fc"}, False),
    RegNet: ({"fc"}, False),
    ShuffleNet: ({"fc"}, None),
    GhostNet: ({"fc"}, None),
    HRNet: ({"final"}, False),
    DenseNet: ({"classifier"}, False),
}
"""Every network of this file: the layers whose filters must stay, and whether a cut makes a graph of it (None: that
depends on the cut)."""
