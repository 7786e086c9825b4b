"""The form of a model that converters are given: one graph of ATen operators, batch norms folded into convolutions.

Both converters fold batch norms themselves in the end, but only after taking each apart into many operators: folded
first, MobileNetV2 converts in half the time, to the same operators.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.errors import ExportError
from edgeprune.export.quiet import quiet
from edgeprune.program import layer_of, operator_of

aten = torch.ops.aten
_CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding)
_OPERATOR = re.compile(r"\b(?:aten|prims)[.:]+(\w+)")


def inference_graph(module: nn.Module, shape: tuple[int, int, int], any_batch: bool) -> tuple[fx.GraphModule, bool]:
    """A model as a graph of ATen operators for inference on the CPU. The module itself is not changed.

    Args:
        module: in eval mode.
        shape: (channels, height, width) of one image.
        any_batch: whether to ask for a graph that takes any number of images; else it takes one.

    Returns:
        The graph, and whether it takes any number of images (a model's own code may rule that out).

    Raises:
        ExportError: `torch.export` cannot follow the model.
    """
    if any(tensor.device.type != "cpu" for tensor in module.state_dict().values()):
        module = copy.deepcopy(module).cpu()
    with quiet(), torch.no_grad():
        exported = _export(module, shape, 2, ({0: torch.export.Dim.DYNAMIC},)) if any_batch else None
        any_batch = exported is not None
        try:
            exported = exported or torch.export.export(module, (torch.zeros(1, *shape),))
        except Exception as error:  # torch.export raises many unrelated classes
            raise export_error("the model cannot be traced by torch.export", error) from error
        return fold_norms(_any_layout(exported.module(check_guards=False))), any_batch


def _export(module: nn.Module, shape: Sequence[int], batch: int, dynamic: Any) -> torch.export.ExportedProgram | None:
    try:
        return torch.export.export(module, (torch.zeros(batch, *shape),), dynamic_shapes=dynamic)
    except Exception:  # the second try, with a fixed batch, tells what is really wrong
        return None


def _any_layout(module: fx.GraphModule) -> fx.GraphModule:
    """Let views be of tensors in any memory layout: a TFLite graph feeds the network images that lie channels last."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is aten.view.default:
            node.target = aten.reshape.default
    return module


def fold_norms(module: fx.GraphModule) -> fx.GraphModule:
    """Fold each batch norm into the convolution before it, if that and its weights serve nothing else. In place.

    W' = W * g / sqrt(var + eps), b' = (b - mean) * g / sqrt(var + eps) + beta, worked out in float64.
    """
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target is aten.batch_norm.default and _foldable(node):
            _fold(module, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _foldable(norm: fx.Node) -> bool:
    conv, scale, shift, mean, var, training = norm.args[:6]
    if training or not isinstance(conv, fx.Node) or conv.target not in _CONVOLUTIONS or len(conv.users) != 1:
        return False
    own = [node for node in conv.args[1:3] if node is not None]
    given = [node for node in (scale, shift) if node is not None]
    stored = all(isinstance(node, fx.Node) and node.op == "get_attr" for node in (*own, *given, mean, var))
    return stored and all(isinstance(node, fx.Node) and len(node.users) == 1 for node in own)


def _fold(module: fx.GraphModule, norm: fx.Node) -> None:
    conv, scale, shift, mean, var = norm.args[:5]
    assert isinstance(conv, fx.Node)
    weight_node = conv.args[1]
    assert isinstance(weight_node, fx.Node)
    weight_name = str(weight_node.target)
    bias_name = weight_name.rpartition(".")[0] + ".bias" if weight_name.endswith(".weight") else f"{weight_name}_bias"
    weight = _stored(module, weight_node)
    bias, gain, beta = (_stored(module, node) for node in (conv.args[2] if len(conv.args) > 2 else None, scale, shift))
    factor = torch.rsqrt(_stored(module, var) + norm.args[7]) * (1 if gain is None else gain)
    folded_bias = ((0 if bias is None else bias) - _stored(module, mean)) * factor + (0 if beta is None else beta)
    dtype = module.get_parameter(weight_name).dtype
    _store(module, weight_name, (weight * factor.reshape(-1, 1, 1, 1)).to(dtype))
    _store(module, bias_name, folded_bias.to(dtype))
    with module.graph.inserting_before(conv):
        conv.args = (conv.args[0], weight_node, module.graph.get_attr(bias_name), *conv.args[3:])
    norm.replace_all_uses_with(conv)
    module.graph.erase_node(norm)


def _stored(module: fx.GraphModule, node: Any) -> Any:
    """The tensor behind a get_attr node, in float64; None for None."""
    if node is None:
        return None
    owner, _, leaf = str(node.target).rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(owner), leaf)
    return tensor.detach().double()


def _store(module: fx.GraphModule, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


def bare(module: fx.GraphModule) -> fx.GraphModule:
    """The same operators and weights without what torch.export leaves on a graph, some of which pickle refuses."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    return fx.GraphModule(module, graph)


def export_error(what: str, error: BaseException, graph: fx.Graph | None = None, said: str = "") -> ExportError:
    """What a converter's exception means for the user.

    Args:
        what: what failed, one sentence.
        error: what the converter raised; its innermost cause is the one quoted.
        graph: what it was converting; the operator that the quoted line names is looked up there.
        said: what it printed, quoted where the exception says nothing.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return conversion_error(what, type(error).__name__, str(error), graph, said)


def conversion_error(what: str, kind: str, text: str, graph: fx.Graph | None = None, said: str = "") -> ExportError:
    """The same of an exception known by its class and message only."""
    reason = f"{kind}: {_first_meaningful_line(text) or _first_meaningful_line(said)}"
    place = _place(graph, reason) if graph is not None else _users_line(text)
    return ExportError(
        what,
        where="\n".join(line for line in (reason, place) if line),
        fix="Write that part with operators the format has, or leave the format out with --formats.",
    )


def _first_meaningful_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    return (lines or [""])[0][:300]


def _place(graph: fx.Graph, reason: str) -> str:
    """Layer and source line of the operator of the graph that a converter's message names."""
    match = _OPERATOR.search(reason)
    if match is None:
        return ""
    name = match[1].strip("_")
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    # Converters name an operator as it is after decomposition: special_bessel_j0 has become bessel_j0.
    found = [node for node in nodes if operator_of(node).strip("_") == name] or [
        node for node in nodes if operator_of(node).endswith(f"_{name}")
    ]
    if not found:
        return ""
    line = _users_line(str(found[0].meta.get("stack_trace", "")))
    return f"operator {found[0].target} at {layer_of(found[0])}" + (f", {line}" if line else "")


def _users_line(text: str) -> str:
    """The last line of the user's own code that a traceback names."""
    places = [line.strip() for line in text.splitlines() if line.strip().startswith('File "') and "/torch/" not in line]
    return (places or [""])[-1]
