"""Mixed precision in TFLite files: their layers, under the names of the model's, and which of them stay in float."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from edgeprune.export.execute import Run, opened
from edgeprune.export.goal import Goal
from edgeprune.export.mixed import Making, Operator, layers_of
from edgeprune.export.race import Race, settled
from edgeprune.tflite_graph import LAYERS, nameless, operators_of

Weights = Sequence[tuple[str, tuple[int, ...]]]
"""Names and shapes of weights, in the order they are computed with."""


def settled_file(
    content: bytes, write: Callable[[Sequence[str]], bytes], weights: Weights, goal: Goal | None, race: Race | None
) -> tuple[bytes, dict[str, Any]]:
    """The int8 file with those layers in float that should be; see `edgeprune.export.race.settled`.

    Args:
        content: the file in float.
        write: makes one in int8, with the operators in float that write the tensors of these names.
        weights: of the model. A layer is called as the first of them that is left and has its shape, but for the order
            of its axes; as its output tensor, where there is none.
        goal: what may be lost; None for anything.
        race: where layers are timed; None for nowhere.
    """
    operators = tuple(_operators(content, weights))
    layers = layers_of(one for one, _ in operators)
    kinds = [(kind, one.layer) for one, kind in operators if one.layer]
    names = {nameless(kind, number): layer for number, (kind, layer) in enumerate(kinds)}

    def written(in_float: AbstractSet[str]) -> bytes:
        return write([key for name, keys in layers.items() if name in in_float for key in keys])

    return settled(Making(tuple(layers), written, _run, "tflite", names=names), goal, race)


def judged_file(content: bytes, goal: Goal | None, race: Race | None) -> tuple[bytes, dict[str, Any]]:
    """A file whose layers cannot be taken out of int8 one by one, and what it loses."""
    return settled(Making((), lambda _: content, _run), goal, race)


def _run(content: bytes) -> Run:
    return opened("tflite", content)


def _operators(content: bytes, weights: Weights) -> Iterator[tuple[Operator, str]]:
    """The operators of a file, with their kinds."""
    from ai_edge_litert import schema_py_generated as schema

    model, left = schema.Model.GetRootAs(content), list(weights)
    graph = model.Subgraphs(0)
    for kind, operator in operators_of(model, graph):
        given = [operator.Inputs(at) for at in range(operator.InputsLength())]
        inputs = [graph.Tensors(place) for place in given if place >= 0]  # -1: left out
        outputs = [graph.Tensors(operator.Outputs(at)).Name().decode() for at in range(operator.OutputsLength())]
        layer = ""
        if kind in LAYERS:
            layer = _name_of(inputs[1], left) or outputs[0]
        # A file in int8 is told of an operator by all its outputs' names, with semicolons between.
        yield Operator(";".join(outputs), tuple(one.Name().decode() for one in inputs), tuple(outputs), layer), kind


def _name_of(tensor: Any, left: list[tuple[str, tuple[int, ...]]]) -> str:
    """The first name of weights of a tensor's shape, which is taken out of those left; empty if there is none."""
    shape = _sizes(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
    for place, (name, other) in enumerate(left):
        if _sizes(other) == shape:
            del left[place]
            return name
    return ""


def _sizes(shape: Any) -> list[int]:
    return sorted(int(size) for size in shape if size > 1)
