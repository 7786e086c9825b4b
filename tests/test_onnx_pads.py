from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_nets import COST, images_of, model_of, outputs_of
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.export.onnx import export_onnx
from edgeprune.export.onnx_pads import NOTHING
from edgeprune.target import load_target


class Below(nn.Module):
    """All maxima lie below zero, so that a padded pixel is the greatest wherever there is one (HGNetV2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.side, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 2), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = F.pad(-1.0 - F.relu(self.conv(images)), (0, 1, 0, 1))
        both = torch.cat([F.max_pool2d(x, 2, 1), self.side(x)], 1)
        return self.head(both.mean((2, 3)))


class Alone(nn.Module):
    """The maximum is all that reads the padded map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.pad(-1.0 - F.relu(self.conv(images)), (1, 1, 1, 1)), 3, 2)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-5), ("fp16", 5e-3)])
@pytest.mark.parametrize("network", [Below, Alone])
def test_zeros_in_front_of_a_maximum_stay_zeros(network, precision, off, tmp_path):
    model, path = model_of(network), tmp_path / "net.onnx"
    export_onnx(model, COST, load_target("rpi4"), precision, path)
    images = images_of(4)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = outputs_of(model, images)
    assert np.abs(session.run(None, {"input": images})[0] - expected).max() < off * np.abs(expected).max()


def test_a_pad_that_no_maximum_reads_is_left_as_it_is(tmp_path):
    class Plain(Alone):
        def forward(self, images: Tensor) -> Tensor:
            return self.head(F.pad(self.conv(F.pad(images, (1, 1, 1, 1))), (1, 0, 1, 0)).mean((2, 3)))

    path = tmp_path / "net.onnx"
    export_onnx(model_of(Plain), COST, load_target("rpi4"), "fp32", path)
    stored = [onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
    assert not any((values == np.float32(NOTHING)).any() for values in stored)
