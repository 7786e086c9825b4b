from __future__ import annotations

import pytest
import torch
from export_nets import SHAPE, Classifier, Viewed, images_of, model_of, outputs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.export.channels_last import flatten_channels_last
from edgeprune.export.graph import inference_graph

aten = torch.ops.aten


def flattened(network: type[nn.Module]):
    """The graph with its flattened pixels in order of channels-last images, and the model it was made of."""
    model = model_of(network)
    graph, _ = inference_graph(model.module, SHAPE, any_batch=False)
    return flatten_channels_last(graph), model


def permutes(graph) -> int:
    return sum(node.target is aten.permute.default for node in graph.graph.nodes)


class TwoHeads(nn.Module):
    """Flattened maps read by two linear layers of one weight, and by one of another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 9), nn.Linear(32, 5), nn.Linear(32, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        flat = self.conv(images).flatten(1)
        return self.one(flat) + self.two(flat) * self.one(flat.relu())


@pytest.mark.parametrize("network", [Viewed, Classifier, TwoHeads])
def test_reordered_linear_layers_compute_the_same(network):
    graph, model = flattened(network)
    assert permutes(graph) == 1
    images = torch.from_numpy(images_of(1))
    expected = outputs_of(model, images_of(1))
    torch.testing.assert_close(graph(images), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def test_the_models_own_weights_are_left_as_they_were():
    model = model_of(Viewed)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    graph, _ = inference_graph(model.module, SHAPE, any_batch=False)
    flatten_channels_last(graph)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


class Seen(nn.Module):
    """The order of the flattened values is to be seen in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 9), nn.Linear(32, 5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        flat = self.conv(images).flatten(1)
        return self.fc(flat), flat


class Normed(Seen):
    """What lies between does not treat all values alike."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(images).flatten(1)))


class OnePixel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, (12, 10)), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).flatten(1))


@pytest.mark.parametrize("network", [Seen, Normed, OnePixel])
def test_where_the_order_shows_or_makes_no_difference_nothing_is_touched(network):
    assert permutes(flattened(network)[0]) == 0


@given(channels=st.integers(2, 5), height=st.integers(1, 4), width=st.integers(2, 4))
@settings(max_examples=8, deadline=None)
def test_any_size_of_image_may_be_flattened(channels, height, width):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, channels, 1)
            self.pool, self.fc = nn.AdaptiveMaxPool2d((height, width)), nn.Linear(channels * height * width, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.pool(self.conv(images)).reshape(images.shape[0], -1))

    graph, model = flattened(Net)
    assert permutes(graph) == 1
    expected = torch.from_numpy(outputs_of(model, images_of(1)))
    torch.testing.assert_close(graph(torch.from_numpy(images_of(1))), expected, rtol=1e-5, atol=1e-6)
