"""The command that compares the files of a finished run with its models again."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from edgeprune import options
from edgeprune.errors import ParityError
from edgeprune.terminal import Talk


def verify(
    run: Annotated[Path, typer.Argument(help="A finished run folder; it is not changed.")],
    weights: Annotated[Path | None, typer.Option(help="Of the uncut model. (default: those of the run)")] = None,
    data: Annotated[str | None, typer.Option(help="Images to verify with. (default: those of the run)")] = None,
    images: Annotated[
        int | None, typer.Option(help="How many at most. (default: as many as the run; of others 10000)")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare every file of a run with the torch model it was written from, on images it never saw.

    Exit code 5 if one computes something else, or is not the file that was written.
    """
    from edgeprune.verifying import VerifyOrder  # torch and all that, not before it is needed
    from edgeprune.verifying import verify as look
    from edgeprune.verifying_tables import print_verification

    with redirect_stdout(sys.stderr):  # a model may print in its forward pass; stdout carries the result
        found = look(VerifyOrder(run=run, weights=weights, data=data, images=images), Talk())
    print_verification(found.to_json(), as_json)
    if found.failed:
        first, many = found.failed[0], len(found.failed)
        raise ParityError(
            f"{many} of {len(found.files)} files {'is' if many == 1 else 'are'} not what the run's models compute",
            where="\n".join((f"{first.artifact.path}: {first.faults[0]}", *first.faults[1:])),
            fix="Do not hand these on. If the files are as they were written: are these the run's own --weights? "
            "Else run compress again.",
        )
