"""The command that packages a model for a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.options import AsJson
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
    runtime: Annotated[
        str | None, typer.Option(help="To execute it in there, e.g. tensorrt. (default: the format's own)")
    ] = None,
    python: Annotated[
        str, typer.Option(help="Version of the board's Python: see `python3 --version` there.")
    ] = DEFAULT_PYTHON,
    output: Annotated[
        str,
        typer.Option(help="folder; oci or docker-archive: an image in a file; context: what an image is built from."),
    ] = "folder",
    out: Annotated[
        Path | None, typer.Option(help="The folder or file to make. (default: bundle, or image..., in RUN)")
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option(help="Take the wheels from this folder or bundle, not from an index.")
    ] = None,
    engine: Annotated[str, typer.Option(help="docker, podman or buildah. (default: the first that answers)")] = "auto",
    parent: Annotated[
        str | None,
        typer.Option("--base", help="Image to build on, best with its digest. (default: Debian's slim Python)"),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Pull and download nothing; needs --wheels.")] = False,
    push: Annotated[str | None, typer.Option(help="Send the image to its registry under this name.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke/--no-smoke", help="Run the image once before it is shipped.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle or file that exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make what runs one model file of a run on its board: a folder that needs only Python there, or an image.

    On the board, bundle/run.sh (or the image) prints the latency, with `infer photo.jpg` the five highest classes.
    """
    from edgeprune.package.image import ImageOrder
    from edgeprune.packaging import PackageOrder
    from edgeprune.packaging import package as make

    talk = Talk()
    made = make(
        PackageOrder(
            run=run,
            target=target,
            artifact=artifact,
            runtime=runtime,
            python=python,
            output=output,
            out=out,
            wheels=wheels,
            overwrite=overwrite,
            image=ImageOrder(output, engine, parent, offline, push, smoke),
        ),
        talk,
    )
    if as_json:
        print_json(made.to_json())
        return
    print(f"{made.place}: {made.artifact} for {made.target}, {made.bytes / 1e6:.1f} MB, {', '.join(made.packages)}")
    if made.image:
        tested = made.image["smoke"]["said"] if made.image["smoke"] else "not tested"
        layers = ", ".join(f"{layer['bytes'] / 1e6:.1f}" for layer in made.image["layers"])
        print(f"{made.image['reference']} ({made.image['digest'][:19]}): {tested}; layers of {layers} MB")
    elif output == "folder":
        talk.say(f"On the board: scp -r {made.place} BOARD: && ssh BOARD {made.place.name}/run.sh")
