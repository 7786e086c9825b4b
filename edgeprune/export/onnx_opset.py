"""ONNX in operator sets older than those that torch's own exporter writes, for runtimes that read no later ones."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx

from edgeprune.export.graph import bare

OPSET = 18
"""ONNX operator set: the lowest that torch's exporter writes itself (`torch.onnx.export`, argument opset_version)."""


def in_older_opset(
    graph: fx.GraphModule, shape: tuple[int, int, int], opset: int, names: Sequence[str], any_batch: bool
) -> Any:
    """The ModelProto of a graph, by torch's exporter of TorchScript.

    onnx's own converter is no way down: it leaves attributes that the older operators do not have (ReduceMean), and
    knows no way for others (Reshape from 14 to 13).

    Args:
        graph: of ATen operators.
        shape: (channels, height, width) of one image.
        opset: below `OPSET`.
        names: of its outputs.
        any_batch: whether it takes any number of images.

    Raises:
        Exception: of many kinds, where an operator has no form in this opset.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder) / "exported.onnx"  # to a file: what is too large for one then lies beside it
        torch.onnx.export(
            bare(graph).eval(),
            (torch.zeros(2 if any_batch else 1, *shape),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=list(names),
            dynamic_axes={name: {0: "N"} for name in ("input", *names)} if any_batch else None,
            verbose=False,
        )
        return onnx.load(path)
