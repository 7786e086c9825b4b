"""What a network makes of small errors: why some lose all in int8, whoever writes the file.

    python benchmarks/export/rounding.py timm:dla46x_c timm:resnest14d resnet20

Wants what `networks.py` wants; networks are those of its table, uncut, as it makes them. Prints of each, on images that
nothing was calibrated with:

- gain: noise of a thousandth of the images' size is added to them, in float64; by how many times as much, as a share of
  their size, the outputs move;
- between images: the share of the outputs' squares that is their variance over the images: what tells images apart;
- fake int8: the torch model with its weights rounded to 8 bits by filter and every layer's output to 256 steps between
  the extremes that calibration images reach, in float32, without any converter or runtime: its cosine with the model.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from networks import asked
from torch import Tensor, fx, nn
from zoo import NETWORKS

from edgeprune.export.graph import inference_graph
from edgeprune.inputs import named_model, named_photos
from edgeprune.journal import Journal, Nobody

aten = torch.ops.aten
LAYERS = (aten.conv2d.default, aten.conv2d.padding, aten.linear.default)
RELUS = (aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default)
MOVES = (
    *("view", "reshape", "permute", "transpose", "flatten", "chunk", "split", "getitem", "slice", "clone"),
    *("contiguous", "unsqueeze", "squeeze", "expand", "dropout", "max_pool2d"),
)
"""Operators that put out what they read."""
NOISE = 1e-3
COMPARED = 64

Ranges = dict[str, tuple[float, float]]


class Rounded(fx.Interpreter):
    """Runs a graph and notes the range of each tensor; or, once they are known, rounds to steps of 8 bits.

    Attributes:
        found: node -> its least and greatest value, and 0.
    """

    def __init__(self, graph: fx.GraphModule, ranges: Mapping[str, tuple[float, float]] | None = None) -> None:
        super().__init__(graph)
        self._ranges = ranges
        self.found: Ranges = {}

    def run_node(self, n: fx.Node) -> Any:
        if self._ranges is not None and n.target in LAYERS:
            (read, weight, *rest), named = self.fetch_args_kwargs_from_env(n)
            value = n.target(read, by_filter(weight), *rest, **named)  # type: ignore[operator]
        else:
            value = super().run_node(n)
        if not is_rounded(n):
            return value
        if self._ranges is None:
            self.found[n.name] = (min(0.0, float(value.min())), max(0.0, float(value.max())))
            return value
        low, high = self._ranges[n.name]
        step = max(high - low, 1e-12) / 255
        zero = round(-low / step)
        return ((value / step).round().add(zero).clamp(0, 255) - zero) * step


def by_filter(weight: Tensor) -> Tensor:
    """Weights in 255 steps, symmetric, those of each filter its own."""
    steps = weight.abs().flatten(1).amax(1).clamp(min=1e-12).reshape(-1, *[1] * (weight.ndim - 1)) / 127
    return (weight / steps).round() * steps


def is_rounded(node: fx.Node) -> bool:
    """Whether what a node puts out is stored in 8 bits: not before a ReLU, and not where values only move."""
    if node.op == "placeholder":
        return True
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    moves = any(move in str(node.target) for move in MOVES)
    return not moves and [user.target in RELUS for user in node.users] != [True]


def gain(module: nn.Module, images: Tensor) -> float:
    """By how many times as much the outputs move as the images, both as shares of their sizes."""
    images = images.double()
    moved = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=images.dtype)
    moved *= NOISE * images.norm() / moved.norm()
    exact = flat(module.double()(images))
    return float((flat(module(images + moved)) - exact).norm() / exact.norm() / NOISE)


def flat(outputs: Any) -> Tensor:
    """The first output, float64 [n, values]."""
    first: Tensor = torch.utils._pytree.tree_leaves(outputs)[0]
    return first.flatten(1).double()


def main() -> None:
    """Print a line for each network named."""
    torch.set_num_threads(1)
    print("| network | gain | between images | fake int8 |\n|---|---|---|---|")
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            network = next((one for one in NETWORKS if one.name == name), name)
            request, journal = asked(network, Path(folder)), Journal(Nobody())
            model = named_model(request, journal)
            photos = named_photos(request, model, journal)
            shown, other = photos.first(model, len(photos.calibration)), photos.held_out(model, COMPARED)
            graph, _ = inference_graph(model.module, model.input.shape, any_batch=True)
            noting = Rounded(graph)
            noting.run(torch.from_numpy(shown))
            images = torch.from_numpy(other)
            expected, got = (flat(one.run(images)) for one in (fx.Interpreter(graph), Rounded(graph, noting.found)))
            near = float(torch.nn.functional.cosine_similarity(expected, got, dim=1).mean())
            between = float(expected.var(0, correction=0).sum() / expected.square().mean(0).sum())
            print(f"| {name} | {gain(model.module, images[:32]):.2f} | {between:.1%} | {near:.4f} |", flush=True)


if __name__ == "__main__":
    main()
