"""Model: a network, what it wants of an image, and what rebuilds it. Load one, save a cut one, load it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from edgeprune.cards import Card, known_models
from edgeprune.data import InputSpec
from edgeprune.errors import EdgepruneError, ModelError, UsageError, WeightsError
from edgeprune.files import read_json, sha256_of, write_json, writing
from edgeprune.graph import GraphNetwork
from edgeprune.graph_json import from_json, to_json
from edgeprune.imports import user_code
from edgeprune.resize import all_tensors, bare_widths, with_tensors
from edgeprune.sources import build, source_file
from edgeprune.weights import fit_weights, listed, read_weights

__all__ = ["Card", "Model", "known_models", "load_model", "load_saved", "save_model", "with_tensors"]

SCHEMA = 1


@dataclass(frozen=True)
class Model:
    """A network and what is known of it.

    Attributes:
        module: the network, in eval mode, on the CPU; for `compress` it takes float32 [n, channels, height, width] to
            [n, classes].
        input: what the network wants of an image.
        name: short, for people and folders ("mobilenet_v2").
        source: what rebuilds the network: a name from `models/`, "/abs/net.py:build", "pkg.mod:build",
            "torchvision:resnet18".
        plans: fingerprints of the plans that cut it, oldest first; empty if it is uncut.
        weights: the file its weights were read from; empty if they are as built (for most networks: random).
        more_inputs: the shape of each further input, without the batch.
        rewritten: why the network is a graph of operators in place of the user's own class; empty if it is the class.
        classes: the name of each output; empty if they are not known.
    """

    module: nn.Module
    input: InputSpec
    name: str
    source: str
    plans: tuple[str, ...] = ()
    weights: str = ""
    more_inputs: tuple[tuple[int, ...], ...] = ()
    rewritten: str = ""
    classes: tuple[str, ...] = ()

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each input, without the batch, the images first."""
        return (self.input.shape, *self.more_inputs)


def load_model(
    source: str,
    *,
    weights: Path | str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    more_inputs: tuple[tuple[int, ...], ...] = (),
    classifier: bool = True,
    from_scratch: bool = False,
) -> Model:
    """Build a network, check that it runs, and load its weights. Nothing is downloaded.

    Args:
        source: a name from `models/`, `path/net.py:build`, `package.module:build`, `torchvision:NAME` or `timm:NAME`.
        weights: safetensors or a plain state dict; by default the card's own, or else as built.
        input_shape: (channels, height, width); needed for a network of the user's own.
        mean: per channel, of pixel values scaled to 0..1; by default the card's, ImageNet's for the zoos, else 0.
        std: the same; by default the card's, ImageNet's for the zoos, else 1.
        more_inputs: the shape of each input after the images, without the batch.
        classifier: whether to insist on a network that gives one [n, classes] tensor, as `compress` does.
        from_scratch: leave the card's own weights aside.

    Raises:
        UsageError: no model has that name, its input size is not known, or the input's numbers do not fit together.
        ModelError: the network cannot be built, does not take such an input, or does not give what is insisted on.
        WeightsError: the weights cannot be read, or are not those of this network.
        MissingExtraError: torchvision or timm is not installed.
    """
    built = build(source)
    known = built.input
    shape = input_shape or (known.shape if known else None)
    if shape is None:
        raise UsageError(f"the input size of {source} is not known", fix="Pass it, for example: --input 3x224x224")
    spec = InputSpec(
        shape,
        mean or (known.mean if known else (0.0,) * shape[0]),
        std or (known.std if known else (1.0,) * shape[0]),
    )
    model = Model(built.module, spec, built.name, built.source, more_inputs=more_inputs)
    # Before the weights are loaded: a lazy layer has no tensors until it has run once.
    output = _run(model.module, model.input_shapes, model.source)
    if classifier:
        _check_logits(output, model)
    file = Path(weights) if weights else None if from_scratch else built.weights
    if file is not None:
        fit_weights(built.module, read_weights(file), file)
    return replace(model, weights=str(file or ""))


def save_model(model: Model, folder: Path | str, stem: str = "pruned") -> None:
    """Write `<stem>.safetensors` and `<stem>.json`, from which `load_saved` rebuilds the model. No pickle.

    Raises:
        OutputError: the folder cannot be written.
        ModelError: the network is a graph that holds an operator which is not ATen's.
    """
    folder, tensors = Path(folder), all_tensors(model.module)
    first: dict[int, str] = {}
    shared = {name: first[id(value)] for name, value in tensors.items() if first.setdefault(id(value), name) != name}
    # Cloned because safetensors refuses tensors that are views of one storage.
    content = save(
        {
            name: value.detach().clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
            if name not in shared
        }
    )
    graph = to_json(model.module) if isinstance(model.module, GraphNetwork) else None
    file = source_file(model.source) if graph is None else None  # a graph does without
    document = {
        "schema": SCHEMA,
        "name": model.name,
        "source": model.source,
        "source_sha256": sha256_of(file) if file else None,
        "input": model.input.to_json(),
        "plans": list(model.plans),
        "weights": model.weights,
        "more_inputs": [list(shape) for shape in model.more_inputs],
        "graph": graph,
        "rewritten": model.rewritten,
        "classes": list(model.classes),
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "tensors": {name: list(value.shape) for name, value in tensors.items()},
        "shared": shared,
        "widths": bare_widths(model.module),
    }
    with writing(folder / f"{stem}.safetensors") as path:
        path.write_bytes(content)
    write_json(folder / f"{stem}.json", document)


def load_saved(folder: Path | str, stem: str = "pruned", *, source: str | None = None) -> Model:
    """Rebuild a model that `save_model` wrote: the original class, with the saved tensors in it.

    A network that was saved as a graph needs no class, and runs no code of the user's.

    Args:
        folder: where the two files are, for example a run folder.
        stem: their name without ending.
        source: where the network's Python file is now, if it was moved: `path/net.py:build`. Its content must be
            the same.

    Raises:
        ModelError: the files are missing or torn, the network cannot be built, or its Python file has changed since.
        WeightsError: the tensors cannot be read, or are not those that were written.
    """
    folder = Path(folder)
    path = folder / f"{stem}.json"
    document = _read_document(path)
    source = source or str(document["source"])
    spec, more_inputs = InputSpec.from_json(document["input"]), tuple(map(tuple, document["more_inputs"]))
    module, source = _unfilled(document, (spec.shape, *more_inputs), source, path)
    stored = _read_tensors(folder / f"{stem}.safetensors", document["tensors_sha256"])
    stored |= {name: stored[first] for name, first in document["shared"].items() if first in stored}
    _check_tensors(stored, document["tensors"], all_tensors(module), path)
    module = with_tensors(module, stored, _widths(document["widths"], bare_widths(module), path))
    _run(module, (spec.shape, *more_inputs), source)
    plans = tuple(document["plans"])
    told = {"weights": document["weights"], "rewritten": document["rewritten"], "classes": tuple(document["classes"])}
    return Model(module, spec, document["name"], source, plans, more_inputs=more_inputs, **told)


def _unfilled(
    document: Mapping[str, Any], shapes: Sequence[tuple[int, ...]], source: str, path: Path
) -> tuple[nn.Module, str]:
    """The network that a document tells of, with other numbers in its tensors, and its source."""
    if document["graph"] is not None:
        try:
            return from_json(document["graph"]), source
        except ModelError as error:
            raise ModelError(f"not a saved model: {error.what}", where=str(path), fix=error.fix) from error
    _check_source(source, document["source_sha256"])
    built = build(source)
    _run(built.module, shapes, built.source)  # a lazy layer has no tensors until it has run once
    return built.module, built.source


def _run(module: nn.Module, shapes: Sequence[tuple[int, ...]], source: str) -> Any:
    """What a network gives for two images of noise."""
    size = ", ".join("x".join(map(str, shape)) for shape in shapes)
    noise = [torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    with user_code(source, "running the model", ModelError), torch.no_grad():
        try:
            return module(*noise)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            fix = "Is the size right? Another one is given by --input CxHxW."
            raise ModelError(f"the model does not take an input of {size}: {reason}", where=source, fix=fix) from error


def _check_logits(output: Any, model: Model) -> None:
    if not isinstance(output, Tensor):
        what, fix = (
            f"the model gives a {type(output).__name__}, not one tensor",
            "Wrap it in one that returns the logits.",
        )
        raise ModelError(what, where=model.source, fix=fix)
    if output.ndim != 2 or len(output) != 2 or not output.is_floating_point():
        size = "x".join(map(str, model.input.shape))
        what = f"for two images of {size} the model gives {output.dtype} {list(output.shape)}, not float [2, classes]"
        raise ModelError(what, where=model.source, fix="A classifier is wanted: one row of logits an image.")


def _read_document(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError("there is no saved model", where=str(path), fix="Name the folder of a finished run.")
    try:
        later: dict[str, Any] = {
            "more_inputs": [],
            "graph": None,
            "rewritten": "",
            "widths": {},
            "classes": [],
        }  # these keys came later
        document = {**later, **read_json(path, SCHEMA)}
        InputSpec.from_json(document["input"])
    except KeyError as error:
        raise ModelError(f"not a saved model: {error} is missing", where=str(path)) from error
    except EdgepruneError as error:
        raise ModelError(f"not a saved model: {error.what}", where=str(path), fix=error.fix) from error
    kinds: dict[str, Any] = {"name": str, "source": str, "plans": list, "weights": str}
    kinds |= {"tensors": dict, "shared": dict, "tensors_sha256": str, "source_sha256": str | None}
    kinds |= {"more_inputs": list, "graph": dict | None, "rewritten": str, "widths": dict, "classes": list}
    wrong = [key for key, kind in kinds.items() if key not in document or not isinstance(document[key], kind)]
    if wrong:
        raise ModelError(f"not a saved model: {', '.join(wrong)} missing or of the wrong kind", where=str(path))
    return document


def _check_source(source: str, sha256: str | None) -> None:
    file = source_file(source)
    if file is None:
        return
    if not file.is_file():
        fix = "Put the file back, or say where it is now: load(folder, source='path/net.py:build')"
        raise ModelError("the Python file of the saved model is missing", where=str(file), fix=fix)
    if sha256_of(file) != sha256:
        fix = f"Restore the file whose SHA-256 is {sha256}, or prune again."
        raise ModelError("the Python file has changed since the model was saved", where=str(file), fix=fix)


def _widths(stored: Mapping[str, Any], built: Mapping[str, int], path: Path) -> dict[str, int]:
    """The saved widths of layers that have theirs as an attribute only; those of a file from before are as built."""
    wrong = [name for name, width in stored.items() if name not in built or type(width) is not int or width < 1]
    if wrong:
        raise ModelError(f"not a saved model: no layer {wrong[0]!r} has such a width", where=str(path))
    return {**built, **stored}


def _read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    stored = read_weights(path)
    if sha256_of(path) != sha256:
        fix = "The two files of a saved model belong together: copy both again."
        raise WeightsError("these are not the tensors that were saved", where=str(path), fix=fix)
    return stored


def _check_tensors(
    stored: Mapping[str, Tensor], shapes: Mapping[str, list[int]], built: Mapping[str, Tensor], path: Path
) -> None:
    wrong = [name for name in shapes if name not in stored or list(stored[name].shape) != shapes[name]]
    wrong += [name for name in stored if name not in shapes]
    wrong += built.keys() ^ shapes.keys()
    wrong += [name for name in built.keys() & stored.keys() if built[name].ndim != stored[name].ndim]
    if wrong:
        fix = "The code that builds the network has changed since; restore it, or prune again."
        raise WeightsError(
            f"the saved tensors do not fit the network: {listed(sorted(set(wrong)))}", where=str(path), fix=fix
        )
