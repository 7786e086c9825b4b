"""Networks as graphs: they compute what the user's class computes, and come back from JSON without it."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from nets import SMALL, Plain, Residual, found_in, noise, run, with_statistics
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import ModelError, TraceError
from edgeprune.export.quiet import quiet
from edgeprune.graph import GraphNetwork
from edgeprune.graph_json import from_json, to_json
from edgeprune.program import Program, capture, network_of, operator_of
from edgeprune.resize import all_tensors, with_tensors

SHAPE = (3, 12, 12)


def graph_of(module: nn.Module, *shapes: tuple[int, ...]) -> GraphNetwork:
    return network_of(capture(module, shapes or (SHAPE,)), module)


def read_again(network: GraphNetwork) -> GraphNetwork:
    """What is left of a network that was written as JSON and read."""
    return with_tensors(from_json(json.loads(json.dumps(to_json(network), allow_nan=False))), all_tensors(network))


@cache
def _plain_as_json() -> str:
    return json.dumps(to_json(graph_of(with_statistics(Plain()))))


def plain_document() -> dict[str, Any]:
    return json.loads(_plain_as_json())


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def assert_same(given: Any, wanted: Any) -> None:
    """The same structure, bit by bit."""
    assert type(given) is type(wanted)
    if isinstance(wanted, Tensor):
        assert given.dtype == wanted.dtype
        assert torch.equal(given, wanted)
    elif isinstance(wanted, Mapping):
        assert list(given) == list(wanted)
        assert_same(list(given.values()), list(wanted.values()))
    elif isinstance(wanted, tuple | list):
        assert len(given) == len(wanted)
        for one, other in zip(given, wanted, strict=True):
            assert_same(one, other)
    else:
        assert given == wanted


class Shuffling(nn.Module):
    """A width written into the code, a constant, sizes worked out, other data types, infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("offset", torch.randn(8, 1, 1), persistent=False)
        self.unread = nn.Linear(2, 2)
        self.conv.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Any]:
        n, _, height, width = x.shape
        y = self.norm(self.conv(x)) * torch.tensor(2.0) + self.offset
        y = y.view(n, 2, 4, height, width).transpose(1, 2).reshape(n, 8, height * width)
        floor = y.masked_fill(y < 0, -float("inf"))
        return {"double": y.to(torch.float64), "floor": floor, "places": torch.arange(n, device=x.device)}


# --- computing


@pytest.mark.parametrize("network", SMALL)
def test_a_graph_computes_what_the_class_computes_at_any_batch_size(network: type[nn.Module]):
    found = found_in(network)
    module = found.model.module
    for again in (graph := network_of(found.program, module), read_again(graph)):
        for count in (1, 5):
            assert_same(run(again, noise(found.model, count)), run(module, noise(found.model, count)))
        assert again.state_dict().keys() == module.state_dict().keys()
        assert all_tensors(again).keys() == all_tensors(module).keys()


def test_sizes_constants_and_data_types_are_kept():
    module = with_statistics(Shuffling())
    graph = graph_of(module)
    for again in (graph, read_again(graph), copy.deepcopy(graph)):
        assert_same(run(again, images()), run(module, images()))


Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Holder:
    left: Tensor


class Returning(nn.Module):
    def __init__(self, form: Any) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(x + 1, x * 2)


@pytest.mark.parametrize(
    "form",
    [
        lambda a, b: a,
        lambda a, b: (a,),
        lambda a, b: [a, b, a],
        lambda a, b: {"out": a, "aux": b},
        lambda a, b: OrderedDict(out=b, aux=a),
        lambda a, b: {"levels": [a, (b, None)], "count": 3, "share": 0.5, "flag": True, "none": ()},
    ],
)
def test_outputs_come_back_in_the_structure_of_the_class(form: Any):
    module = Returning(form).eval()
    graph = graph_of(module)
    assert_same(run(graph, images()), run(module, images()))
    assert_same(run(read_again(graph), images()), run(module, images()))


@pytest.mark.parametrize(
    ("form", "told"),
    [(Pair, "returns a Pair"), (lambda a, b: {0: a}, "returns a dict"), (lambda a, b: {"a": "text"}, "returns a str")],
)
def test_other_structures_are_refused(form: Any, told: str):
    with pytest.raises(TraceError, match=told) as caught:
        capture(Returning(form).eval(), SHAPE)
    assert "tuple" in caught.value.fix


def test_a_dataclass_is_refused():
    with pytest.raises(TraceError, match="Holder"):
        capture(Returning(lambda a, b: Holder(a)).eval(), SHAPE)


def test_several_inputs_are_taken_in_order():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 4, 1), nn.Linear(5, 4)

        def forward(self, image: Tensor, code: Tensor) -> Tensor:
            return self.conv(image) * self.gate(code)[:, :, None, None]

    module = Two().eval()
    program = capture(module, (SHAPE, (5,)))
    assert len(program.inputs) == 2
    assert program.input == program.inputs[0]
    assert program.any_batch
    graph, code = network_of(program, module), torch.randn(3, 5)
    with torch.no_grad():
        assert_same(graph(images(), code), module(images(), code))
        assert_same(read_again(graph)(images(), code), module(images(), code))
    with pytest.raises(ValueError, match="argument"):
        graph(images())


# --- tensors


def test_parameters_and_buffers_stay_what_they_were():
    module = with_statistics(Shuffling())
    graph = graph_of(module)
    for again in (graph, read_again(graph), copy.deepcopy(graph)):
        own, its = all_tensors(again), all_tensors(module)
        assert {n for n, p in again.named_parameters() if p.requires_grad} == {
            n for n, p in module.named_parameters() if p.requires_grad
        }
        assert dict(again.named_parameters()).keys() == dict(module.named_parameters()).keys()
        assert "offset" in own
        assert "offset" not in again.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in its.items())
    assert graph.get_submodule("conv").weight is module.conv.weight


def test_one_tensor_under_two_names_stays_one():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.two(x)

    graph = graph_of(Tied().eval())
    for again in (graph, read_again(graph), copy.deepcopy(graph)):
        assert again.get_submodule("one").weight is again.get_submodule("two").weight


def test_a_copy_shares_no_memory_with_the_original():
    graph = graph_of(with_statistics(Shuffling()))
    before = run(graph, images())
    twin = copy.deepcopy(graph)
    with torch.no_grad():
        for tensor in all_tensors(twin).values():
            tensor.fill_(7)
    assert_same(run(graph, images()), before)


def test_a_graph_can_be_trained():
    graph = graph_of(with_statistics(Residual()))
    F.cross_entropy(graph(images()), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())


# --- being captured and exported


def test_a_graph_is_not_exported_again_to_be_captured():
    module = with_statistics(Shuffling())
    first = capture(module, SHAPE)
    graph = network_of(first, module)
    again = capture(graph, SHAPE)
    assert again.graph is first.graph
    assert (again.stored, again.result, again.shapes) == (first.stored, first.result, first.shapes)
    assert again.any_batch
    assert_same(run(network_of(again, graph), images()), run(module, images()))


def test_a_graph_knows_the_sizes_it_takes():
    class Fixed(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).view(2, 4)

    assert not capture(graph_of(with_statistics(Fixed())), SHAPE).any_batch
    free = capture(with_statistics(Plain()), SHAPE, any_size=True)
    assert free.any_size
    assert capture(network_of(free, Plain()), SHAPE, any_size=True).any_size


@pytest.mark.parametrize("shapes", [(5, 12, 12), ((3, 12, 12), (3, 12, 12)), (3, 1, 1)])
def test_a_graph_refuses_inputs_that_it_does_not_take(shapes: Any):
    with pytest.raises(TraceError, match="does not take inputs of") as caught:
        capture(from_json(plain_document()), shapes)
    assert "takes 1" in caught.value.fix


def test_layers_are_known_after_reading():
    module = with_statistics(Residual())
    program = capture(module, SHAPE)
    again = capture(read_again(network_of(program, module)), SHAPE)

    def layers(program: Program) -> list[Any]:
        return [(operator_of(node), list(node.meta["nn_module_stack"].values())[-1][0]) for node in program.nodes]

    assert layers(again) == layers(program)


def test_a_graph_is_exported_for_any_batch_size():
    module = with_statistics(Shuffling())
    exported = torch.export.export(
        read_again(graph_of(module)), (images(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    assert_same(exported.module()(images(5)), run(module, images(5)))


def test_a_graph_becomes_onnx():
    graph = graph_of(with_statistics(Residual()))
    with quiet():
        written = torch.onnx.export(graph, (images(2),), dynamo=True, dynamic_shapes=({0: "N"},), verbose=False)
    assert written is not None
    assert not written.model.graph.inputs[0].shape.is_static(0)
    assert "Conv" in {node.op_type for node in written.model.graph}


# --- reading


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "operator.call",
        "torch.load",
        "aten.nothing.default",
        "aten.relu",
        "aten.relu_.default",
        "aten.add.out",
        "aten.from_file.default",
        "aten.save.default",
        "prims.add.default",
        "__class__.__init__.default",
    ],
)
def test_what_is_no_functional_aten_operator_is_not_read(target: str):
    document = plain_document()
    document["nodes"][2]["target"] = target
    with pytest.raises(ModelError, match="operator"):
        from_json(document)


def damage(key: str, value: Any) -> Any:
    return lambda document: document.update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("nodes"),
        lambda document: document["nodes"].pop(0),
        lambda document: document["nodes"].append(document["nodes"][0]),
        lambda document: document["nodes"][0].update(name="import os"),
        lambda document: document["nodes"][0].update(args=[{"node": "nowhere"}]),
        lambda document: document["nodes"][0].update(args=[{"dtype": "ops"}]),
        lambda document: document["nodes"][0].update(args=[{"call": "exit"}]),
        lambda document: document["nodes"][0].update(args=[{"dtype": "float32", "node": "x"}]),
        lambda document: document["tensors"].update({"forward": document["tensors"]["first.weight"]}),
        lambda document: document["tensors"]["first.weight"].update(dtype="load"),
        lambda document: document["tensors"]["first.weight"].update(shape="wide"),
        damage("result", "nowhere"),
        damage("result", {"set": []}),
        damage("inputs", None),
    ],
)
def test_a_graph_that_is_not_whole_is_refused(change: Any):
    document = plain_document()
    from_json(document)
    change(document)
    with pytest.raises(ModelError, match="not whole"):
        from_json(document)


def test_an_operator_that_is_not_aten_s_is_not_written():
    @torch.library.custom_op("edgeprune_tests::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    twice.register_fake(torch.empty_like)

    class Custom(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(twice(x))

    module = with_statistics(Custom())
    graph = graph_of(module)
    assert_same(run(graph, images()), run(module, images()))
    with pytest.raises(ModelError, match=r"edgeprune_tests\.twice\.default is not one of ATen's"):
        to_json(graph)


@pytest.mark.parametrize("name", ["computation", "graph", "code", "stored"])
def test_a_part_of_the_network_may_have_any_name(name):
    network = Plain().eval()
    network.add_module(name, network.second)
    del network.second
    network.forward = lambda x: network.head(network.get_submodule(name)(network.first(x)).mean((2, 3)))
    assert_same(run(read_again(graph_of(network)), images()), run(network, images()))


def test_the_one_name_that_a_graph_keeps_for_itself_is_refused():
    network = Plain().eval()
    network._constants = nn.BatchNorm1d(4).eval()
    with pytest.raises(ModelError, match="a part named '_constants'") as caught:
        graph_of(network)
    assert "another name" in caught.value.fix
