"""Program and Walk: what a model does, piece by piece, as the module itself computes it."""

from __future__ import annotations

import pytest
import torch
from nets import SMALL, Flat, Plain, Residual, found_in, model_of, noise, run, with_statistics
from torch import nn
from torch.nn import functional as F

from edgeprune.errors import TraceError
from edgeprune.program import capture, operator_of
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
