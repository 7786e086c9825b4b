"""litert-torch: a graph becomes a TFLite file with float weights, without TensorFlow."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor, fx, nn

from edgeprune.errors import ExportError, MissingExtraError
from edgeprune.export.channels_last import flatten_channels_last, keep_spatial_axes
from edgeprune.export.child import RefusedError, apart
from edgeprune.export.graph import bare, conversion_error, inference_graph
from edgeprune.export.tflite_layout import laid_out
from edgeprune.model import Model


def litert_file(model: Model) -> bytes:
    """A model as a TFLite file: one float32 NHWC image in, images out are NHWC too.

    Raises:
        MissingExtraError: litert-torch is not installed.
        ExportError: an operator has no TFLite form, or the converter crashed.
    """
    if importlib.util.find_spec("litert_torch") is None:
        raise MissingExtraError("tflite", "TFLite export")
    graph, _ = inference_graph(model.module, model.input.shape, any_batch=False)
    graph = flatten_channels_last(keep_spatial_axes(graph))
    channels, height, width = model.input.shape
    try:
        content: bytes = apart("edgeprune.export.litert:convert", bare(graph), (1, height, width, channels))
    except RefusedError as refused:
        if refused.kind in ("ImportError", "ModuleNotFoundError", "OSError"):
            fix = "pip install --force-reinstall 'edgeprune[tflite]'"
            raise ExportError("litert-torch cannot be used", where=refused.text[:300], fix=fix) from refused
        raise conversion_error(
            "the model cannot be written as TFLite", refused.kind, refused.text, graph.graph, refused.said
        ) from refused
    return content


def convert(graph: fx.GraphModule, shape: tuple[int, ...]) -> bytes:
    """Convert a graph of NCHW images to a file for NHWC images of this shape. Imports what takes seconds and prints."""
    import litert_torch

    litert_torch.config.show_progress = False
    with torch.no_grad():
        converted = litert_torch.convert(_ChannelsLast(graph), (torch.zeros(shape),))
    return laid_out(converted.model_content())


class _ChannelsLast(nn.Module):
    """The graph with NHWC images in, NHWC images out, and its outputs in a flat tuple."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.wrapped = graph
        self.training = False  # eval() is refused by traced graphs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = torch.utils._pytree.tree_leaves(self.wrapped(images.permute(0, 3, 1, 2)))
        return tuple(output.permute(0, 2, 3, 1) if output.ndim == 4 else output for output in outputs)
