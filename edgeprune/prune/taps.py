"""taps: which values of a network show the feature maps of a space, and whether an activation follows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import fx

from edgeprune.channels import Labels, Layer, varying
from edgeprune.program import Program, operator_of
from edgeprune.prune.operators import ACTIVATIONS, CONVOLUTIONS, IDENTITIES, POOLS, REDUCTIONS, TRANSPOSED, VIEWS

_MOVES = frozenset({"permute", "transpose", "expand"})
_AFTER_ACTIVATION = IDENTITIES | POOLS | REDUCTIONS | VIEWS | _MOVES


def is_linear(program: Program, name: str) -> bool:
    """Whether a node's value comes from its layers without an activation or a gate on the way."""
    waiting = [node for node in program.nodes if node.name == name]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if operator_of(node) in ACTIVATIONS or operator_of(node) == "mul":
            return False
        if operator_of(node) not in CONVOLUTIONS | TRANSPOSED | {"linear"}:
            new = [source for source in node.all_input_nodes if source.op == "call_function" and source not in seen]
            seen.update(new)
            waiting += new
    return True


def find_taps(
    program: Program, consumers: list[Layer], labels: Mapping[str, Labels], wanted: Labels
) -> tuple[str, str]:
    """The nodes that show all of a space's feature maps after and before the activation; empty where none does."""
    nodes = {node.name: node for node in program.nodes}

    def shows(node: Any) -> bool:
        found = labels.get(node.name) if isinstance(node, fx.Node) else None
        if found is None or found.size < len(wanted) or len(varying(found)) != 1:
            return False
        return bool(np.isin(wanted, found, kind="table").all())

    def back(node: fx.Node | None, through: frozenset[str]) -> fx.Node | None:
        """The first node, going back, whose operator is neither one of `through` nor a concatenation with others."""
        while node is not None and (operator_of(node) in through or operator_of(node) == "cat"):
            source = node.args[0]
            if isinstance(source, list | tuple):
                source = next(filter(shows, source), None)
                if source is None:
                    return node
            node = source if isinstance(source, fx.Node) and source.op == "call_function" else None
        return node

    for layer in consumers:
        after = back(nodes.get(layer.source), _AFTER_ACTIVATION)
        before = back(after, _AFTER_ACTIVATION | ACTIVATIONS)
        if after is not None and before is not None and shows(after) and shows(before):
            return after.name, before.name
    # No reader sees them all, as where they are split right away: look where they are made.
    showing = [node for node in program.nodes if shows(node)]
    for node in showing:
        source = node.args[0]
        if operator_of(node) in ACTIVATIONS and isinstance(source, fx.Node) and shows(source):
            return node.name, source.name
    return (showing[0].name, showing[0].name) if showing else ("", "")
