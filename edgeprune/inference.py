"""Inference: a model's program run fast over many images, for scoring accuracy.

The same numbers as the module up to rounding, in about half the time on a CPU (benchmarks/inference.py): batch
normalisation is folded into the convolution before it, and images lie in memory channels last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.program import Program, forget, operator_of, run_node
from edgeprune.resize import all_tensors

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


class Inference:
    """Callable: images float32 [n, channels, height, width] -> the model's (first) output.

    Args:
        program: of the module.
        module: in eval mode; later changes of its weights are not seen.
    """

    def __init__(self, program: Program, module: nn.Module) -> None:
        self._program = program
        self._state = {name: tensor.detach() for name, tensor in all_tensors(module).items()}
        pairs = [(node, norm) for node in program.nodes if (norm := norm_after(program, node)) is not None]
        self._folded = {node.name: self._fold(node, norm) for node, norm in pairs}
        self._source = {norm.name: node.name for node, norm in pairs}

    def __call__(self, images: Tensor) -> Tensor:
        """Run the program."""
        program = self._program
        values: dict[str, Any] = {program.input: images.contiguous(memory_format=torch.channels_last)}
        for place, node in enumerate(program.nodes):
            if node.name in self._source:
                values[node.name] = (values[self._source[node.name]],)
            elif node.name in self._folded:
                values[node.name] = self._convolve(node, values)
            else:
                values[node.name] = run_node(program, node, values, self._state)
            forget(program, values, place)
        output: Tensor = values[program.outputs[0].name]
        return output

    def _convolve(self, node: fx.Node, values: Mapping[str, Any]) -> Tensor:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        assert callable(node.target)
        output: Tensor = node.target(values[source.name], *self._folded[node.name], *node.args[3:])
        return output

    def _fold(self, node: fx.Node, norm: fx.Node) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution that also does what the normalisation after it did."""
        _, beta, mean, _ = (self._stored(argument) for argument in norm.args[1:5])
        weight, bias = self._stored(node.args[1]), self._stored(node.args[2] if len(node.args) > 2 else None)
        assert weight is not None
        assert mean is not None
        unit = norm_gain(self._program, self._state, norm)
        shift = ((0.0 if bias is None else bias) - mean) * unit + (0.0 if beta is None else beta)
        return weight * unit.reshape(-1, *[1] * (weight.ndim - 1)), shift

    def _stored(self, argument: object) -> Tensor | None:
        return _stored(self._program, self._state, argument)


def _stored(program: Program, state: Mapping[str, Tensor], argument: object) -> Tensor | None:
    return state[program.stored[argument.name]].detach() if isinstance(argument, fx.Node) else None


def norm_after(program: Program, node: fx.Node) -> fx.Node | None:
    """The batch normalisation with running statistics that alone reads a convolution with stored weights.

    Its arguments are (input, scale, offset, mean, variance, momentum, epsilon).
    """
    if operator_of(node) not in _CONVOLUTIONS or len(node.users) != 1:
        return None
    reader = next(iter(node.users))
    if operator_of(reader) != "_native_batch_norm_legit_no_training":
        return None
    tensors = [argument for argument in (*node.args[1:3], *reader.args[1:5]) if isinstance(argument, fx.Node)]
    return reader if all(argument.name in program.stored for argument in tensors) else None


def gain_after(program: Program, state: Mapping[str, Tensor], node: fx.Node, outputs: int) -> Tensor:
    """By what a batch normalisation after a layer multiplies each of its outputs, on the CPU, [outputs].

    Ones where `norm_after` finds none.
    """
    norm = norm_after(program, node)
    return torch.ones(outputs) if norm is None else norm_gain(program, state, norm).cpu()


def norm_gain(program: Program, state: Mapping[str, Tensor], norm: fx.Node) -> Tensor:
    """By what a batch normalisation multiplies each channel: scale / deviation, [channels].

    Args:
        program: that it belongs to.
        state: name of each stored tensor -> the tensor.
        norm: what `norm_after` found.
    """
    scale, variance = (_stored(program, state, argument) for argument in (norm.args[1], norm.args[4]))
    assert variance is not None
    gain: Tensor = (variance + float(norm.args[6])).rsqrt()  # type: ignore[arg-type]
    return gain * (1.0 if scale is None else scale)
