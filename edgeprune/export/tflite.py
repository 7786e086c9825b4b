"""TFLite: channels-last files, made from one float file of each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.artifact import Artifact
from edgeprune.export.calibration import Calibration
from edgeprune.export.tflite_converters import Numbers, converted
from edgeprune.export.tflite_pixels import from_pixels
from edgeprune.export.write import Feed, check_size, require, write_artifact
from edgeprune.model import Model
from edgeprune.plan import Cost
from edgeprune.registry import unknown
from edgeprune.target import Target
from edgeprune.tflite_graph import operators_of

INT8 = ("static", "integer", "dynamic")
"""What int8 files are: all of the network in int8 with float32 in and out; the same with int8 in and out; int8 weights
only, activations being quantised at every call."""
_DYNAMIC = (
    "only weights are int8: a depthwise network takes longer than in fp32 (MobileNet-V2 2.6 times on an x86 server)"
)


def export_tflite(
    model: Model,
    cost: Cost,
    target: Target,  # noqa: ARG001 (contract)
    precision: str,
    out: Path,
    calibration: Calibration | None = None,
    *,
    converter: str = "auto",
    int8: str = "static",
    fold_preprocessing: bool = False,
) -> Artifact:
    """Write a model as TFLite: one float32 NHWC image in; images out (4-D outputs) are NHWC too.

    Args:
        model: what to write; it is not changed.
        cost: of the model, for the manifest.
        target: the board; no board needs anything special yet.
        precision: one of `edgeprune.export.PRECISIONS`.
        out: the file, written whole or not at all. The same model and versions give the same bytes.
        calibration: images for int8.
        converter: one of `edgeprune.export.tflite_converters.CONVERTERS`.
        int8: one of `INT8`, for precision "int8".
        fold_preprocessing: the input is raw pixels, uint8, which the file normalises itself.

    Returns:
        The artifact; its details name the converter and count the file's operators, and `warnings` names those that
        make it slow or need more than a plain runtime.

    Raises:
        UsageError: another precision, converter or kind of int8, or int8 without images.
        MissingExtraError: the converter is not installed.
        ExportError: an operator has no TFLite form.
        OutputError: the file cannot be written.
    """
    require("tflite", precision, calibration)
    check_size(model, ("tflite",))
    if int8 not in INT8:
        raise unknown("--tflite-int8", int8, INT8)
    dynamic = precision == "int8" and int8 == "dynamic"
    numbers = Numbers("int8-dynamic" if dynamic else precision)
    if precision == "int8" and calibration is not None:
        numbers = Numbers(numbers.precision, calibration.images, int8 == "integer", calibration.goal, calibration.race)
    made = converted(model, numbers, converter)
    content = from_pixels(made.content, model.input) if fold_preprocessing else made.content
    details = inspect(content)
    details["warnings"] = [*made.warnings, *details["warnings"], *([_DYNAMIC] if dynamic else [])]
    details["converter"] = list(made.by)
    details |= made.told
    entry, sink = ends_of(content)
    ends = replace(entry, raw=fold_preprocessing), sink
    return write_artifact(model, cost, content, out, ("tflite", precision, "NHWC"), details, ends)


def inspect(content: bytes) -> dict[str, Any]:
    """Count the operators of a TFLite file.

    Returns:
        `operators` {name: count}, `transposes` (of 4-D tensors: a layout the converter could not resolve), `flex` and
        `custom` (operators that a plain runtime does not have), `warnings`.
    """
    operators: Counter[str] = Counter()
    transposes = 0
    for name, axes in _operators(content):
        operators[name] += 1
        transposes += name == "TRANSPOSE" and axes == 4
    flex = sum(count for name, count in operators.items() if name.startswith("Flex"))
    custom = sorted(name for name in operators if not name.isupper())
    warnings = [f"{transposes} TRANSPOSE of images left in the graph: each costs a copy"] if transposes else []
    if custom:
        warnings.append(f"operators a plain TFLite runtime does not have: {', '.join(custom)}")
    return {
        "operators": dict(sorted(operators.items())),
        "transposes": transposes,
        "flex": flex,
        "custom": custom,
        "warnings": warnings,
    }


def ends_of(content: bytes) -> tuple[Feed, Feed]:
    """The first input and the first output of a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    graph = schema.Model.GetRootAs(content).Subgraphs(0)

    def feed(place: int) -> Feed:
        tensor = graph.Tensors(place)
        steps = tensor.Quantization()
        stepped = steps is not None and steps.ScaleLength() > 0
        scales = (float(steps.Scale(0)), int(steps.ZeroPoint(0))) if stepped else (None, None)
        return Feed(tensor.Name().decode(), names[tensor.Type()].lower(), *scales)

    return feed(graph.Inputs(0)), feed(graph.Outputs(0))


def _operators(content: bytes) -> Iterator[tuple[str, int]]:
    """Name (upper case if built in) and number of axes of the first input, for each operator of a file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    for subgraph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for name, operator in operators_of(model, subgraph):
            axes = subgraph.Tensors(operator.Inputs(0)).ShapeLength() if operator.InputsLength() else 0
            yield name, axes
