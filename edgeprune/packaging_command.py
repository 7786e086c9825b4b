"""The command that packages a model for a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.listings import AsJson
from edgeprune.terminal import Talk, print_json
from edgeprune.wheels import DEFAULT_PYTHON


def package(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    target: Annotated[
        str | None, typer.Option(help="A board from `edgeprune devices`, or a TOML file. (default: the run's)")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="Which file of the run. (default: pruned, in the board's preferred format)")
    ] = None,
    python: Annotated[
        str, typer.Option(help="Version of the board's Python: see `python3 --version` there.")
    ] = DEFAULT_PYTHON,
    out: Annotated[Path | None, typer.Option(help="The folder to make. (default: RUN/bundle)")] = None,
    wheels: Annotated[Path | None, typer.Option(help="Take the wheels from this folder, not from an index.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a folder that runs one model file of a run on its board, which needs Python and no internet.

    On the board, ./run.sh prints the latency, ./run.sh infer photo.jpg the five highest classes.
    """
    from edgeprune.packaging import PackageOrder
    from edgeprune.packaging import package as make

    talk = Talk()
    made = make(
        PackageOrder(
            run=run,
            target=target,
            artifact=artifact,
            python=python,
            out=out,
            wheels=wheels,
            overwrite=overwrite,
        ),
        talk,
    )
    if as_json:
        print_json(made.to_json())
        return
    print(f"{made.folder}: {made.artifact} for {made.target}, {made.bytes / 1e6:.1f} MB, {', '.join(made.packages)}")
    talk.say(f"On the board: scp -r {made.folder} BOARD: && ssh BOARD {made.folder.name}/run.sh")
