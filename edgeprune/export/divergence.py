"""Where a file leaves its model: the first tensor inside it that is not what the model makes of those before it.

The model runs as a graph of operators; wherever a layer with weights has run, its output is replaced by what the file's
layer put out. So each layer is judged by what it makes of what it is given, whatever was rounded or went wrong before:
an error shows at the layer that makes it, and only there. What lies between two layers is judged with the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import fx

from edgeprune.artifact import Artifact
from edgeprune.export.execute import Array, fed
from edgeprune.export.graph import inference_graph
from edgeprune.export.layers import FileLayer
from edgeprune.export.onnx_layers import onnx_layers
from edgeprune.export.pairing import NamedLayer, layers_in, paired
from edgeprune.export.quiet import quiet
from edgeprune.export.rounding import EXPLAINED, TOLERATED, error_of, output_error
from edgeprune.export.tflite_layers import tflite_layers
from edgeprune.model import Model

WALKED = 4
"""Images that are walked through: all tensors of a file are held for them."""
_READERS: Mapping[str, Callable[[Path, Array], list[FileLayer]]] = {"onnx": onnx_layers, "tflite": tflite_layers}


@dataclass(frozen=True)
class Divergence:
    """What a walk through the layers of a file found.

    Attributes:
        compared: how many of the model's layers could be matched with the file's.
        layers: how many the model has.
        tensor: the first that is not as it should be; where all are, the one that is off most.
        operator: what wrote it, as the format calls it; empty for an output after the last layer.
        layer: of the model; empty for the same.
        error: of it: of a float file the largest difference as a share of its largest value, of an int8 file how many
            times as large as rounding makes it.
        tolerated: how much of that is.
        unseen: layers right before it that could not be matched: it may be one of them.
    """

    compared: int
    layers: int
    tensor: str = ""
    operator: str = ""
    layer: str = ""
    error: float = 0.0
    tolerated: float = 0.0
    unseen: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether a tensor is not as it should be."""
        return not self.error <= self.tolerated

    def to_json(self) -> dict[str, Any]:
        """This as a JSON document; an error that is not finite is None."""
        return {**asdict(self), "error": self.error if math.isfinite(self.error) else None, "found": self.found}

    def __str__(self) -> str:
        if not self.compared:
            return "where it begins is not known: none of the file's layers can be matched with the model's"
        kind = f"{self.operator}, layer {self.layer}" if self.layer else "after the last layer"
        unit = "of its largest value" if self.tolerated < 1 else "times what rounding explains"
        off = f"{self.tensor} ({kind}), off by {self.error:.2g} {unit}, {self.tolerated:.2g} is tolerated"
        of = f"{self.compared} of {self.layers} layers were compared"
        if self.found:
            also = f"; or {', '.join(self.unseen)} before it, which cannot be matched" if self.unseen else ""
            return f"first tensor that diverges: {off}; {of}{also}"
        return f"no layer by itself diverges, so differences add up; most is {off}; {of}"


def divergence_of(artifact: Artifact, run: Path, model: Model, images: Array, got: Sequence[Array]) -> Divergence:
    """Find the first tensor inside a file that is not what the model makes of those before it.

    Args:
        artifact: the file, of which `path` is in the folder `run`.
        run: the run folder.
        model: what the file should compute.
        images: normalised as the model wants them, float32 [n, channels, height, width]; a few do.
        got: what the file gives for them, each output float32 [n, ...]; nothing if that is no output of the model's.

    Raises:
        Exception: the file, or the model's graph, cannot be run piece by piece.
    """
    with quiet(), torch.no_grad():
        graph, _ = inference_graph(model.module, model.input.shape, any_batch=False)
        layers, inside = layers_in(graph), _READERS[artifact.format](run / artifact.path, fed(artifact, images))
        pairs = {layer.node.name: (layer, found) for layer, found in paired(layers, inside)}
        errors: dict[str, float] = {}
        for at in range(len(images)):
            walk = _Walk(graph, pairs, artifact.precision, at)
            outputs = torch.utils._pytree.tree_leaves(walk.run(torch.from_numpy(images[at : at + 1])))
            for place, (output, given) in enumerate(zip(outputs if got else (), got, strict=True)):
                walk.errors[f"output {place}"] = output_error(output, given[at])
            for name, error in walk.errors.items():
                errors[name] = max(errors.get(name, 0.0), error)
    return _first(errors, pairs, artifact.precision, layers) if errors else Divergence(compared=0, layers=len(layers))


def _first(
    errors: Mapping[str, float],
    pairs: Mapping[str, tuple[NamedLayer, FileLayer]],
    precision: str,
    layers: Sequence[NamedLayer],
) -> Divergence:
    """The first that is beyond what is tolerated of it; else the one that comes nearest."""

    def tolerated(name: str) -> float:
        return EXPLAINED if precision == "int8" and name in pairs else TOLERATED[precision]

    beyond = (name for name, error in errors.items() if not error <= tolerated(name))
    name = next(beyond, None) or max(errors, key=lambda one: errors[one] / tolerated(one))
    own, found = pairs.get(name, (None, None))
    earlier = layers[: layers.index(own)] if own else layers
    unseen = [one.name for one in takewhile(lambda one: one.node.name not in pairs, reversed(earlier))]
    return Divergence(
        tensor=found.tensor if found else name,
        operator=found.operator if found else "",
        layer=own.name if own else "",
        error=errors[name],
        tolerated=tolerated(name),
        compared=len(pairs),
        layers=len(layers),
        unseen=tuple(reversed(unseen)),
    )


class _Walk(fx.Interpreter):
    """Runs the model's graph for one image, each layer's output replaced by the file's.

    Attributes:
        errors: node -> how far the file's layer was off.
    """

    def __init__(
        self, graph: fx.GraphModule, pairs: Mapping[str, tuple[NamedLayer, FileLayer]], precision: str, at: int
    ) -> None:
        super().__init__(graph)
        self._pairs, self._precision, self._at = pairs, precision, at
        self.errors: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name not in self._pairs:
            return value
        layer, found = self._pairs[n.name]
        got = torch.from_numpy(found.values[self._at : self._at + 1])
        if not layer.channels_first and got.ndim == 4:
            got = got.permute(0, 2, 3, 1)
        got = got.reshape(value.shape)
        arguments, _ = self.fetch_args_kwargs_from_env(n)
        self.errors[n.name] = error_of(layer, found, self._precision, arguments, value, got)
        return got
