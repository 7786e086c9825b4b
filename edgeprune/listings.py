"""What there is to choose from: networks, criteria, boards. Commands of the command line."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgeprune.options import AsJson
from edgeprune.terminal import print_json, print_rows, table

if TYPE_CHECKING:
    from edgeprune.criteria import Criterion

devices_app = typer.Typer(help="The boards edgeprune knows.", invoke_without_command=True)


def models(as_json: AsJson = False) -> None:
    """The networks that come with edgeprune."""
    from edgeprune.cards import known_models

    cards = known_models().values()
    rows = [
        {"name": c.name, "input": "x".join(map(str, c.input.shape)), "classes": c.classes, "title": c.title}
        for c in cards
    ]
    print_rows("models", rows, as_json)


def criteria(
    name: Annotated[str | None, typer.Argument(help="How this one works, its source and its settings.")] = None,
    as_json: AsJson = False,
) -> None:
    """The ways to rank filters; with a name, how that one works."""
    from edgeprune.criteria import CRITERIA, configure

    if name is not None:
        _criterion(configure(name), as_json)
        return
    known = [configure(name) for name in CRITERIA.table()]
    rows = [
        {
            "name": c.name,
            "paper": c.about.paper,
            "images": "yes" if c.about.needs_data else "no",
            "grows_with": c.about.cost,
            "title": (c.function.__doc__ or "").partition("\n")[0],
        }
        for c in known
    ]
    print_rows("criteria", rows, as_json)


def _criterion(found: Criterion, as_json: bool) -> None:
    """Print where a criterion comes from, what is ours in it, and its settings."""
    source = inspect.getdoc(inspect.getmodule(found.function)) or ""
    text = f"{source}\n\n{inspect.getdoc(found.function) or ''}"
    if as_json:
        print_json({"name": found.name, "settings": dict(found.settings), "text": text})
        return
    typer.echo(f"{text}\n\nSettings (--criterion-option KEY=VALUE):")
    for key, value in found.settings.items() or [("(none)", "")]:
        typer.echo(f"  {key}{'=' if key in found.settings else ''}{value}")


@devices_app.callback()
def devices(context: typer.Context, as_json: AsJson = False) -> None:
    """List the boards; `edgeprune devices show NAME` prints one with its facts and their sources."""
    if context.invoked_subcommand:
        return
    from edgeprune.target import known_targets, load_target

    targets = [load_target(name) for name in known_targets()]
    rows = [
        {
            "name": t.name,
            "arch": t.arch,
            "cores": t.cores,
            "channel_multiple": t.channel_multiple,
            "formats": ",".join(t.formats),
            "title": t.title,
        }
        for t in targets
    ]
    print_rows("devices", rows, as_json)


@devices_app.command()
def show(name: Annotated[str, typer.Argument(help="A board, or a TOML file.")], as_json: AsJson = False) -> None:
    """Print one board: what it is, what to beware of, and where each fact is from."""
    from edgeprune.target import load_target

    target = load_target(name)
    if as_json:
        print_json({"schema": 1, **target.to_json()})
        return
    console = Console(highlight=False)
    console.print(f"[bold]{target.name}[/]  {target.title}")
    console.print(
        f"{target.arch}, {target.cores} cores, channels in multiples of {target.channel_multiple}, "
        f"formats {', '.join(target.formats)}"
    )
    for warning in target.warnings:
        console.print(f"beware: {warning}", style="yellow")
    console.print(
        table([{"fact": key, "value": str(fact.value), "source": fact.source} for key, fact in target.facts.items()])
    )
