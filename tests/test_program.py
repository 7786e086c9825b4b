"""Program and Walk: what a model does, piece by piece, as the module itself does it; and what cannot be captured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import SMALL, Flat, Plain, Residual, found_in, model_of, noise, run, with_statistics
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import TraceError
from edgeprune.functional import functional
from edgeprune.program import capture, network_of, operator_of
from edgeprune.walk import Walk

HUGE, TINY = 1 << 30, 1


def program_of(network, shape=(3, 12, 12)):
    model = model_of(network)
    return model, capture(model.module, shape)


@pytest.mark.parametrize("network", SMALL)
def test_the_last_value_of_a_walk_is_what_the_module_returns(network):
    model, program = found_in(network).model, found_in(network).program
    images = noise(model, 5)
    (value,) = Walk(program, model.module, [images]).stream(program.outputs[0].name)
    assert torch.equal(value, run(model.module, images))


def spied(module: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each layer puts out, by the layer's name."""
    seen = {}

    def note(layer, inputs, output):
        seen[names[layer]] = output.clone()

    names = {layer: name for name, layer in module.named_modules() if not list(layer.children())}
    hooks = [layer.register_forward_hook(note) for layer in names]
    run(module, images)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("memory_bytes", [TINY, 20_000, HUGE])
@pytest.mark.parametrize("order", [1, -1])
def test_a_walk_shows_what_each_layer_puts_out_in_any_order_and_memory(memory_bytes, order):
    model, program = found_in(Residual).model, found_in(Residual).program
    batches = [noise(model, 2, 1), noise(model, 3, 2)]
    walk = Walk(program, model.module, batches, memory_bytes)
    seen = [spied(model.module, batch) for batch in batches]
    convolutions = [node for node in program.nodes if operator_of(node) in ("conv2d", "linear")]
    names = [name for name, layer in model.module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for node, name in list(zip(convolutions, names, strict=True))[::order]:
        values = list(walk.stream(node.name))
        assert [len(value) for value in values] == [2, 3]
        assert all(torch.equal(value, found[name]) for value, found in zip(values, seen, strict=True))


@pytest.mark.parametrize("memory_bytes", [TINY, HUGE])
def test_several_values_come_together_in_the_order_asked(memory_bytes):
    model, program = found_in(Residual).model, found_in(Residual).program
    images = noise(model, 2)
    names = [node.name for node in program.nodes if "batch_norm" not in operator_of(node)]
    walk = Walk(program, model.module, [images], memory_bytes)
    first = {name: next(iter(Walk(program, model.module, [images]).stream(name))) for name in names}
    for asked in (names[3:5], names[4:2:-1], [names[8], names[2], names[5]], [names[6], names[8]], [program.input]):
        (values,) = walk.stream_all(asked)
        for name, value in zip(asked, values, strict=True):
            assert torch.equal(value, images if name == program.input else first[name])


@pytest.mark.parametrize("memory_bytes", [TINY, HUGE])
def test_weights_changed_ahead_of_the_walk_take_effect(memory_bytes):
    model, program = program_of(Plain())
    images = noise(model, 2)
    walk = Walk(program, model.module, [images], memory_bytes)
    list(walk.stream("relu"))
    with torch.no_grad():
        model.module.second.weight.mul_(3)
        model.module.head.bias.add_(1)
    (value,) = walk.stream(program.outputs[0].name)
    assert torch.equal(value, run(model.module, images))


def test_a_question_that_is_not_read_to_its_end_leaves_the_walk_where_it_was():
    model, program = program_of(Plain())
    batches = [noise(model, 2, seed) for seed in (1, 2)]
    walk = Walk(program, model.module, batches)
    next(iter(walk.stream("relu")))
    values = list(walk.stream(program.outputs[0].name))
    assert all(torch.equal(value, run(model.module, batch)) for value, batch in zip(values, batches, strict=True))


@pytest.mark.parametrize("memory_bytes", [TINY, HUGE])
def test_activations_in_place_do_not_spoil_what_was_kept(memory_bytes):
    class InPlace(Flat):
        def forward(self, x):
            x = self.body[0](x)
            y = F.relu_(x)
            x += 1
            x[:, :, 0] = 0
            return self.head(self.hidden(self.body[3](F.max_pool2d(x + y, 2)).flatten(1)))

    model, program = program_of(InPlace())
    images = noise(model, 2)
    walk = Walk(program, model.module, [images], memory_bytes)
    (before,) = walk.stream("conv2d")
    kept = before.clone()
    (output,) = walk.stream(program.outputs[0].name)
    assert torch.equal(output, run(model.module, images))
    assert torch.equal(before, kept)
    (again,) = walk.stream("conv2d")
    assert torch.equal(again, kept)


@pytest.mark.parametrize("place", [0, 3, -1])
def test_a_walk_is_finished_with_other_values_from_wherever_it_is(place):
    model = model_of(Residual())
    program = capture(model.module, model.input_shapes)
    batches = [noise(model, 2, 1), noise(model, 3, 2)]
    (changed,) = [node.name for node in program.nodes if operator_of(node) == "add"][:1]
    reads = program.nodes[program.position[changed]].args
    walk = Walk(program, model.module, batches)
    list(walk.stream(program.nodes[place].name))
    same = list(walk.finish({}, images=100))
    twice = {changed: lambda values: 2 * (values[reads[0].name] + values[reads[1].name])}
    other = list(walk.finish(twice, images=2))
    assert all(
        torch.allclose(run(model.module, batch), out, atol=1e-5) for batch, (out,) in zip(batches, same, strict=True)
    )
    assert len(other) == 1
    assert not torch.allclose(other[0][0], same[0][0])
    again = list(walk.finish({changed: lambda values: values[reads[0].name] + values[reads[1].name]}, images=2))
    assert torch.allclose(again[0][0], same[0][0])


def test_shapes_are_those_of_the_example_batch_and_other_batches_run():
    model, program = program_of(Plain())
    assert program.shapes["conv2d"] == (2, 8, 12, 12)
    assert program.any_batch
    (value,) = Walk(program, model.module, [noise(model, 7)]).stream("conv2d_1")
    assert value.shape == (7, 6, 5, 5)


def test_a_batch_size_that_the_code_fixes_is_kept():
    class Two(Plain):
        def forward(self, x):
            return super().forward(x).view(2, 4)

    _, program = program_of(Two())
    assert not program.any_batch
    assert program.shapes[program.outputs[0].name] == (2, 4)


def test_peak_bytes_are_the_most_that_live_at_once():
    class Chain(nn.Module):
        def forward(self, x):  # 4 x 4 x 4 bytes an image
            y = x + 1  # x, y
            z = y + x  # x, y, z
            return (z * 2).mean((1, 2, 3))

    program = capture(Chain().eval(), (1, 4, 4))
    assert program.peak_bytes == 3 * 64
    assert program.alive_bytes[0] == 2 * 64
    assert program.image_bytes("add") == 64


def test_one_tensor_under_two_names_is_known_by_the_first():
    model = model_of(Tied())
    program = capture(model.module, (3, 12, 12))
    assert list(program.stored.values()).count("a.weight") == 2 or "b.weight" not in program.stored.values()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return (self.a(x) + self.b(x)).mean((2, 3))


def test_a_buffer_that_the_forward_pass_writes_is_not_an_output():
    class Counting(Plain):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    _, program = program_of(Counting())
    assert [operator_of(node) for node in program.outputs] == ["linear"]


def test_control_flow_on_values_is_refused_with_the_line():
    class Undecided(Plain):
        def forward(self, x):
            if x.sum() > 0:
                x = -x
            return super().forward(x)

    with pytest.raises(TraceError, match="cannot be traced") as caught:
        program_of(Undecided())
    assert "test_program.py" in caught.value.where
    assert "x.sum() > 0" in caught.value.where or "line" in caught.value.where
    assert caught.value.fix


def test_a_model_of_two_inputs_is_refused():
    class Pair(Plain):
        def forward(self, x, y):
            return super().forward(x + y)

    with pytest.raises(TraceError) as caught:
        capture(with_statistics(Pair()), (3, 12, 12))
    assert "y" in str(caught.value)


def test_an_error_in_the_forward_pass_is_told():
    class Broken(Plain):
        def forward(self, x):
            raise ValueError("no luck today")

    with pytest.raises(TraceError, match="no luck today"):
        program_of(Broken())


# --- operators that change what they read


class Does(nn.Module):
    """A convolution, then what a test is about."""

    def __init__(self, does: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.does = nn.Conv2d(3, 8, 3, padding=1), does

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self.conv(x))


def through_a_view(x):
    y = x.view(x.shape[0], 2, 4, 12, 12)
    y.mul_(2)
    return x + 1


def before_a_view(x):
    y = F.relu_(x)
    first, second = y.chunk(2, 1)
    return first + second + x[:, :4]


def after_a_view(x):
    first, _ = x.chunk(2, 1)
    x.relu_()
    return first


def through_a_slice(x):
    x[:, 2:4] = 0
    return x.relu_()


def twice(x):
    y = x.relu_()
    z = y.add_(1)
    return x + y * z


def after_nothing(x):
    y = F.dropout(x, 0.5, training=False)
    y.add_(1)
    return x


def after_nothing_through_a_view(x):
    F.dropout(x.unsqueeze(1).squeeze(1), 0.5, training=False).sigmoid_()
    return x


def flattened(x):
    y = x.flatten(1)
    y += 1
    return x.contiguous().sigmoid_() + 1


def of_another_type(x):
    x.eq_(x.round())
    return x + 0.5


def of_several(x):
    values, _ = x.max(1, keepdim=True)
    values.clamp_(0, 1)
    return values.expand_as(x).reshape(x.shape[0], -1)


IN_PLACE = [
    through_a_view,
    before_a_view,
    after_a_view,
    through_a_slice,
    twice,
    after_nothing,
    after_nothing_through_a_view,
    flattened,
    of_another_type,
    of_several,
]


@pytest.mark.parametrize("does", IN_PLACE)
def test_operators_in_place_come_out_as_what_they_compute(does):
    module = Does(does).eval()
    program = capture(module, (3, 12, 12))
    images = torch.randn(3, 3, 12, 12)
    assert not [
        node for node in program.nodes if getattr(node.target, "_schema", None) and node.target._schema.is_mutable
    ]
    assert torch.equal(run(network_of(program, module), images), run(module, images.clone()))


def test_an_input_that_is_written_is_read_as_written():
    class Writing(Plain):
        def forward(self, x):
            x += 1
            return super().forward(x) + x.mean()

    model, program = program_of(Writing())
    images = noise(model, 3)
    assert torch.equal(run(network_of(program, model.module), images.clone()), run(model.module, images.clone()))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("network", [*SMALL, lambda: Does(twice)])
def test_a_graph_is_made_functional_as_torch_does_it(network):
    """Up to copies, and up to `reshape`, which stands for `view` everywhere."""

    def told(graph):
        names = {"view": "reshape", "_unsafe_view": "reshape"}
        found = [(names.get(operator_of(n), operator_of(n)), n.meta.get("val")) for n in graph.nodes]
        firsts = [(name, value[0] if isinstance(value, tuple | list) else value) for name, value in found]
        return [(name, value.shape) for name, value in firsts if isinstance(value, Tensor) and name != "clone"]

    exported = torch.export.export(
        with_statistics(network()), (torch.randn(2, 3, 12, 12),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    quick = functional(exported.graph)
    assert quick is not None
    assert str(told(quick)) == str(told(exported.run_decompositions({}).graph))


# --- free sizes


def in_pairs(x):
    return x.view(x.shape[0] // 2, 2, 8 * 144).sum(1)


def by_length(x):
    return x * len(x) if len(x) < 4 else x


def by_example(x):
    return x.reshape(2, -1)


@pytest.mark.parametrize("does", [in_pairs, by_length, by_example])
def test_a_batch_size_that_is_folded_into_the_graph_is_noticed(does):
    program = capture(Does(does).eval(), (3, 12, 12))
    assert not program.any_batch
    assert not program.any_size


def test_a_batch_of_one_is_not_taken_for_any():
    assert not capture(with_statistics(Plain()), (3, 12, 12), batch=1).any_batch


@pytest.mark.parametrize(("network", "free"), [(Plain, True), (Residual, True), (Flat, False)])
def test_other_image_sizes_run_where_the_code_allows_them(network, free):
    module = with_statistics(network())
    program = capture(module, (3, 12, 12), any_size=True)
    assert (program.any_size, program.any_batch) == (free, True)
    images = torch.randn(3, 3, *((20, 16) if free else (12, 12)))
    assert torch.equal(run(network_of(program, module), images), run(module, images))
    assert not capture(module, (3, 12, 12)).any_size


# --- names


@pytest.mark.parametrize("name", ["code", "graph", "meta", "recompile", "input", "output", "x", "_graph", "self"])
def test_a_part_may_have_any_name(name):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module(name, nn.Conv2d(3, 4, 1))
            self.register_parameter(f"{name}_", nn.Parameter(torch.ones(4, 1, 1)))

        def forward(self, input):
            return getattr(self, name)(input).relu_() * getattr(self, f"{name}_")

    module = Named().eval()
    program = capture(module, (3, 12, 12))
    assert set(program.stored.values()) == {f"{name}.weight", f"{name}.bias", f"{name}_"}
    images = torch.randn(3, 3, 12, 12)
    assert torch.equal(run(copy.deepcopy(network_of(program, module)), images), run(module, images))


def test_a_name_that_torch_needs_is_refused_where_torch_needs_it():
    module = Does(through_a_slice)
    module.code = nn.Conv2d(8, 8, 1)
    with pytest.raises(TraceError, match="a part named 'code'") as caught:
        capture(module.eval(), (3, 12, 12))
    assert "another name" in caught.value.fix


# --- what cannot be captured


def hooked(module):
    module.second.register_forward_hook(lambda layer, inputs, output: output * 2)
    return module


def hooked_before(module):
    module.second.register_forward_pre_hook(lambda layer, inputs: (inputs[0] * 2,))
    return module


def on_meta(module):
    return module.to("meta")


def lazy(module):
    module.head = nn.LazyLinear(4).eval()
    return module


def scripted(module):
    module.head = torch.jit.trace(module.head, torch.randn(2, 6))
    return module


def compiled_part(module):
    module.second.compile()
    return module


def quantised(module):
    module.head = torch.ao.nn.quantized.Linear(6, 4)
    return module


def training(module):
    return module.train()


def training_part(module):
    module.norm.train()
    return module


def weight_norm(module):
    torch.nn.utils.weight_norm(module.second)
    return module


def uncopyable(module):
    module.pixels = (n for n in range(3))
    return module


UNTRACEABLE = [
    (hooked, "forward hook", "second"),
    (hooked_before, "forward hook", "second"),
    (weight_norm, r"forward hook \(WeightNorm\)", "second"),
    (on_meta, "meta device", ""),
    (lazy, "lazy", "head.weight"),
    (scripted, "TorchScript", "head"),
    (torch.compile, "compiled", ""),
    (compiled_part, "compiled", "second"),
    (quantised, "quantised", "head"),
    (nn.DataParallel, "wrapped in DataParallel", ""),
    (training, "training mode", ""),
    (training_part, "training mode", "norm"),
    (uncopyable, "cannot be copied", ""),
    (lambda module: module.half(), "computes in torch.float16", "first.weight"),
    (lambda module: module.to(torch.bfloat16), "computes in torch.bfloat16", "first.weight"),
    (lambda module: module.double(), "computes in torch.float64", "first.weight"),
]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("change", "told", "where"), UNTRACEABLE)
def test_a_module_that_is_not_plain_python_in_float32_is_refused_with_a_way_out(change, told, where):
    module = change(with_statistics(Plain()))
    with pytest.raises(TraceError, match=told) as caught:
        capture(module, (3, 12, 12))
    assert where in caught.value.where
    assert caught.value.fix


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_model_on_another_device_is_captured_there():
    module = with_statistics(Plain()).cuda()
    program = capture(module, (3, 12, 12))
    assert program.any_batch
    assert all(parameter.is_cuda for parameter in module.parameters())
    images = torch.randn(3, 3, 12, 12, device="cuda")
    assert torch.equal(run(network_of(program, module), images), run(module, images))


def test_a_parametrised_layer_computes_its_weight():
    module = with_statistics(Plain())
    torch.nn.utils.parametrizations.weight_norm(module.second)
    module.eval()
    program = capture(module, (3, 12, 12))
    assert "second.parametrizations.weight.original1" in program.stored.values()
    images = torch.randn(3, 3, 12, 12)
    assert torch.equal(run(network_of(program, module), images), run(module, images))


class Remembering(Plain):
    """Writes into its own attributes whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.last: Any = None
        self.times = 0
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        self.calls += 1
        y = super().forward(x)
        self.seen.append(y)
        return y


@pytest.mark.parametrize("fails", [False, True])
def test_the_module_is_as_it_was_after_a_capture(fails):
    class Failing(Remembering):
        def forward(self, x):
            y = super().forward(x)
            return -y if fails and y.sum() > 0 else y

    module = with_statistics(Failing())
    before = {name: dict(part.__dict__) for name, part in module.named_modules()}
    tensors = {name: (tensor, tensor.clone()) for name, tensor in module.state_dict(keep_vars=True).items()}
    if fails:
        with pytest.raises(TraceError, match="data-dependent"):
            capture(module, (3, 12, 12))
    else:
        capture(module, (3, 12, 12))
    assert {name: dict(part.__dict__) for name, part in module.named_modules()} == before
    assert (module.seen, module.last, module.times) == ([], None, 0)
    after = module.state_dict(keep_vars=True)
    assert all(after[name] is tensor and torch.equal(tensor, old) for name, (tensor, old) in tensors.items())


def helper_that_decides(x):
    if x.mean() > 0:
        return x
    return -x


def test_the_error_names_the_line_of_the_user_s_code():
    with pytest.raises(TraceError) as caught:
        capture(Does(helper_that_decides).eval(), (3, 12, 12))
    assert "test_program.py" in caught.value.where
    assert "in helper_that_decides: if x.mean() > 0:" in caught.value.where
    assert "torch.where" in caught.value.fix


def test_values_that_decide_how_large_another_is_are_refused_with_the_line():
    with pytest.raises(TraceError, match="decide how large another one is") as caught:
        capture(Does(lambda x: x * x[x > 0].mean()).eval(), (3, 12, 12))
    assert "test_program.py" in caught.value.where
    assert "in forward: return self.does(self.conv(x))" in caught.value.where


def test_an_input_that_the_model_does_not_take_is_told_by_its_own_error():
    with pytest.raises(TraceError, match="expected input") as caught:
        capture(with_statistics(Plain()), (5, 12, 12))
    assert "self.first(x)" in caught.value.where
    assert "such images" in caught.value.fix
