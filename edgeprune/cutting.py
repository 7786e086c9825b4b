"""A model found out about, and a plan carried out on it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.channels import ChannelMap
from edgeprune.graph import GraphNetwork
from edgeprune.journal import Journal
from edgeprune.model import Model
from edgeprune.plan import Cost, PruningPlan
from edgeprune.program import Program, capture
from edgeprune.prune.cost import cost
from edgeprune.prune.fold import fold_weights
from edgeprune.prune.surgery import apply
from edgeprune.prune.trace import trace


@dataclass(frozen=True, eq=False)
class Traced:
    """A model and what tracing found out about it."""

    model: Model
    program: Program
    channel_map: ChannelMap
    cost: Cost


def traced(model: Model, journal: Journal, *, any_size: bool = False) -> Traced:
    """Find out how a model can be cut."""
    with journal.stage("trace"):
        program = capture(model.module, model.input.shape, any_size=any_size)
        folded = fold_weights(model, program)
        if folded is not model:
            journal.warn(f"{model.name} is cut as a graph of operators, not as its own class: {folded.rewritten}")
            model, program = folded, capture(folded.module, folded.input.shape)
        channel_map = trace(program)
        return Traced(model, program, channel_map, cost(program, channel_map, model.module))


def cut(plan: PruningPlan, uncut: Traced, journal: Journal) -> tuple[Traced, Traced]:
    """The uncut and the cut model, with programs whose nodes have the same names."""
    with journal.stage("cut"):
        smaller = apply(plan, uncut.channel_map, uncut.model)
    pruned = traced(smaller, journal)
    if isinstance(smaller.module, GraphNetwork) and not isinstance(uncut.model.module, GraphNetwork):
        journal.warn(f"the cut model is a graph of operators, not the model's own class: {smaller.rewritten}")
        open_sizes = traced(uncut.model, journal, any_size=True)
        if open_sizes.program.position == pruned.program.position:
            return open_sizes, pruned
    return uncut, pruned
