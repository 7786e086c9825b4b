"""inspect(): what may be cut of a model, before any image is looked at."""

from __future__ import annotations

from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.model import load_model
from edgeprune.program import capture
from edgeprune.prune.cost import cost
from edgeprune.prune.describe import Description, Named, describe
from edgeprune.prune.fold import fold_weights
from edgeprune.prune.trace import trace
from edgeprune.request import Request


def inspect(request: Request, listener: Listener | None = None) -> Description:
    """Trace a model and describe its channel spaces. Weights and images play no part in it, nothing is written.

    Args:
        request: of which `model`, `weights`, `input_shape`, `more_inputs` and `scope` count.
        listener: told how far it is.

    Raises:
        UsageError: no model or scope has that name, or the input size is not known.
        ModelError: the network cannot be built, run or traced, or the weights, if any are named, are not its own.
    """
    request.check()
    journal = Journal(listener or Nobody())
    with journal.stage("load"):
        model = load_model(
            request.model,
            weights=request.weights,
            input_shape=request.input_shape,
            more_inputs=request.more_inputs,
            classifier=False,
        )
    with journal.stage("trace"):
        program = capture(model.module, model.input_shapes)
        folded = fold_weights(model, program)
        if folded is not model:
            model, program = folded, capture(folded.module, folded.input_shapes)
        channel_map = trace(program)
        its_cost = cost(program, channel_map, model.module)
        named = Named(model.name, model.source, model.input.shape)
        return describe(named, channel_map, its_cost, request.scope)
