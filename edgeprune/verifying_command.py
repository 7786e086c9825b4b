"""The command that compares the files of a finished run, or one file, with their models."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from edgeprune import options
from edgeprune.errors import ParityError, UsageError
from edgeprune.request import Request, parse_numbers, parse_shape
from edgeprune.terminal import Talk


def verify(
    what: Annotated[
        Path,
        typer.Argument(help="A finished run folder, or an .onnx or .tflite file with --model.", metavar="RUN|FILE"),
    ],
    model: Annotated[str | None, typer.Option(help="Of a FILE: the model it should compute, as for compress.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Of the uncut model. (default: those of the run)")] = None,
    data: Annotated[str | None, typer.Option(help="Images to verify with. (default: those of the run)")] = None,
    images: Annotated[
        int | None, typer.Option(help="How many at most. (default: as many as the run; of others 10000)")
    ] = None,
    input_shape: options.InputShape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare every file of a run with the torch model it was written from, on images it never saw.

    Exit code 5 if one computes something else, or is not the file that was written.
    """
    from edgeprune.verifying_tables import print_verification  # what draws and computes, not before it is needed

    with redirect_stdout(sys.stderr):  # a model may print in its forward pass; stdout carries the result
        if what.suffix in (".onnx", ".tflite") and not what.is_dir():
            if model is None:
                fix = "Give --model, its --weights, and --data; or name a run folder."
                raise UsageError("a single file is compared with a model: which one?", where=str(what), fix=fix)
            from edgeprune.verifying_file import FileOrder, verify_file

            request = Request(
                model=model,
                weights=weights,
                data=data,
                images=Request.images if images is None else images,
                input_shape=parse_shape(input_shape),
                mean=parse_numbers("--mean", mean),
                std=parse_numbers("--std", std),
            )
            found = verify_file(FileOrder(what, request), Talk())
        else:
            if model or input_shape or mean or std:
                fix = "Leave --model, --input, --mean and --std out; they go with an .onnx or .tflite file."
                raise UsageError("a run knows its model", where=str(what), fix=fix)
            from edgeprune.verifying import VerifyOrder
            from edgeprune.verifying import verify as look

            found = look(VerifyOrder(run=what, weights=weights, data=data, images=images), Talk())
    print_verification(found.to_json(), as_json)
    if found.failed:
        first, which = found.failed[0], f"{len(found.failed)} of {len(found.files)} files"
        raise ParityError(
            f"{'the file' if len(found.files) == 1 else which} failed verification",
            where="\n".join((f"{first.artifact.path}: {first.faults[0]}", *first.faults[1:])),
            fix="Do not hand these on. If the files are as they were written: are these their own --weights? "
            "Else export them again.",
        )
