from __future__ import annotations

import numpy as np
import pytest
import torch
from export_nets import images_of, model_of, outputs_of
from torch import Tensor, nn

from edgeprune.export.execute import opened
from edgeprune.export.litert import litert_file
from edgeprune.export.tflite_quantise import quantised
from edgeprune.model import Model

# The converter and the quantizer alone take seconds to import.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tflite_extra")]

WIDE = 160


class Wide(nn.Module):
    """Long biases and a short one, of every kind of layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDE, 3, padding=1)
        self.depthwise = nn.Conv2d(WIDE, WIDE, 3, groups=WIDE)
        self.point = nn.Conv2d(WIDE, WIDE, 1, stride=2)
        self.hidden, self.head = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.point(torch.relu(self.depthwise(torch.relu(self.stem(images))))))
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


def tensors(content: bytes):
    """The shape of each constant by what it holds: (type, shape)."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    kinds = {schema.TensorType.FLOAT16: "half", schema.TensorType.FLOAT32: "float"}
    held = [one for one in graph.tensors if model.buffers[one.buffer].data is not None and one.type in kinds]
    return [(kinds[one.type], tuple(one.shape)) for one in held]


def error(content: bytes, model: Model) -> float:
    images = images_of(4)
    expected = outputs_of(model, images)
    run = opened("tflite", content)
    got = np.concatenate([run(image[None])[0] for image in images])
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_long_biases_are_stored_in_halves_as_weights_are_and_short_ones_stay():
    model = model_of(Wide)
    content = quantised(litert_file(model), "fp16")
    held = tensors(content)
    assert held.count(("half", (WIDE,))) == 4
    assert held.count(("float", (WIDE,))) == 0
    assert ("float", (5,)) in held
    assert 0 < error(content, model) < 5e-3


def test_a_bias_that_a_half_cannot_hold_stays_in_float():
    model = model_of(Wide)
    with torch.no_grad():
        model.module.hidden.bias[3] = -1e6
    content = quantised(litert_file(model), "fp16")
    held = tensors(content)
    assert held.count(("half", (WIDE,))) == 3
    assert held.count(("float", (WIDE,))) == 1
    assert error(content, model) < 5e-3


def test_the_same_model_gives_the_same_bytes():
    file = litert_file(model_of(Wide))
    assert quantised(file, "fp16") == quantised(file, "fp16")
