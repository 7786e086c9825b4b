"""The command that runs many: criteria, budgets and precisions, each combination a `compress` of its own."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from typer.main import get_command

from edgeprune import __version__, options
from edgeprune.bench.device import SshDevice, parse_device
from edgeprune.bench.slots import VARIABLE
from edgeprune.compressing_command import requested
from edgeprune.errors import UsageError
from edgeprune.files import plain_name, sha256_of, sha256_of_json
from edgeprune.request import Request
from edgeprune.sweep.executor import Executor, Serial
from edgeprune.sweep.on_ray import Needs, OnRay
from edgeprune.terminal import Talk, print_json

if TYPE_CHECKING:
    from edgeprune.sweeping import Swept, Task
    from edgeprune.train.recipe import DistilOrder

PARSING = {"allow_extra_args": True, "ignore_unknown_options": True}
"""What the command's parser must allow: words that are not its own go to `compress`."""
Value = TypeVar("Value")
_FILE = re.compile(r"(?P<file>.+\.py):\w+")
_SET_HERE = {
    "criterion": "--criteria",
    "speedup": "--speedups",
    "ratio": "--macs",
    "latency": "--speedups",
    "plan": "--macs",
    "dry_run": "compress itself",
}
"""Options of `compress` that a sweep sets itself, or has no use for, and what to give instead."""


@dataclass(frozen=True)
class Asked:
    """What one task asks of `compress`.

    Attributes:
        words: after `edgeprune compress`.
        request: what they mean.
        order: how to distil.
    """

    words: tuple[str, ...]
    request: Request
    order: DistilOrder


@dataclass(frozen=True)
class Choice:
    """What tasks differ in: a criterion, a budget ("speedup" or "macs", and how much), a precision."""

    criterion: str
    budget: str
    value: float
    precision: str

    def __str__(self) -> str:
        return f"{self.criterion}-{self.budget}-{self.value:g}-{self.precision}"


def sweep(
    context: typer.Context,
    criteria: Annotated[
        str, typer.Option(help="Names from `edgeprune criteria`, e.g. qsfm,fscl.", metavar="LIST")
    ] = "qsfm",
    speedups: Annotated[
        str | None, typer.Option(help="How many times as fast to become, e.g. 1.2,1.5,2.", metavar="LIST")
    ] = None,
    macs: Annotated[
        str | None, typer.Option(help="Beside or instead: shares of the MACs to keep, e.g. 0.5,0.65.", metavar="LIST")
    ] = None,
    precisions: Annotated[
        str, typer.Option(help="Number formats of the files, a task for each: fp32,fp16,int8.", metavar="LIST")
    ] = "fp32",
    ray: Annotated[
        bool, typer.Option("--ray", help="Run tasks side by side on Ray, on a cluster of this machine. [ray] extra")
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Or on a cluster that is there: auto, or HOST:PORT.", metavar="ADDRESS")
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(help="Cores and threads of each task. (default: 1 where several run at once, else all)"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder. (default: runs/MODEL-TARGET-sweep)")] = None,
    as_json: options.AsJson = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run finished tasks again, too.")] = False,
) -> None:
    """Run `compress` for every combination of criteria, budgets and precisions; one table of all.

    MODEL and all other options are those of `compress`. Interrupted, the same command goes on: what is finished is not
    run again. A task that fails does not end the others.
    """
    wishes = [("speedup", value) for value in _several("--speedups", speedups or "", float)]
    wishes += [("macs", value) for value in _several("--macs", macs or "", float)]
    if not wishes:
        raise UsageError("a sweep wants budgets", fix="For example --speedups 1.2,1.5,2 or --macs 0.5,0.65.")
    if cpus is not None and cpus < 1:
        raise UsageError(f"--cpus must be at least 1, got {cpus}", fix="Leave it out for all.")
    names, formats = _several("--criteria", criteria, str), _several("--precisions", precisions, str)
    choices = [Choice(name, *wish, form) for name, wish, form in itertools.product(names, wishes, formats)]
    asked = [_asked(context.args, choice) for choice in choices]
    first = asked[0].request
    needs = _needs(asked[0], cpus)
    on_ray = ray or ray_address is not None
    place = (out or Path("runs") / f"{_short(first.model)}-{_short(first.target)}-sweep").absolute()
    environment = {**_environment(cpus, needs, on_ray), VARIABLE: str(place / "slots")}
    tasks = [_task(choice, one, place, environment) for choice, one in zip(choices, asked, strict=True)]
    executor: Executor = OnRay(needs, ray_address) if on_ray else Serial()
    _print(_run(asked, tasks, place, overwrite, executor), as_json)


def _needs(asked: Asked, cpus: int | None) -> Needs:
    """What each task takes of a cluster."""
    request = asked.request
    here = request.bench and not isinstance(parse_device(request.device or "local"), SshDevice)
    gpus = int(request.recover == "distill" and asked.order.settings.device == "cuda")
    return Needs(cpus or 1, gpus, here)


def _environment(cpus: int | None, needs: Needs, on_ray: bool) -> dict[str, str]:
    """How many threads a task computes with: all where one runs at a time, for Ray would say as many as its cores."""
    alone = needs.here or not on_ray
    if cpus is None and alone:
        return {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))} if on_ray else {}
    return {"OMP_NUM_THREADS": str(needs.cpus)}


def _run(asked: Sequence[Asked], tasks: Sequence[Task], place: Path, overwrite: bool, executor: Executor) -> Swept:
    from edgeprune.criteria import configure
    from edgeprune.sweeping import SweepOrder
    from edgeprune.sweeping import sweep as run

    for one in asked:  # refused now, not by each task when it is its turn
        configure(one.request.criterion, one.request.criterion_options)
    first, talk = asked[0].request, Talk()
    order = SweepOrder(first.model, first.target, tuple(tasks), place, overwrite, ("edgeprune", *sys.argv[1:]))
    with redirect_stdout(sys.stderr):
        return run(order, executor, talk)


def _print(done: Swept, as_json: bool) -> None:
    if as_json:
        print_json(done.report.to_json())
    else:
        from edgeprune.report.render.sweep import show

        show(done.report)
        shown = Path(os.path.relpath(done.folder))
        Talk().say(f"Everything is in {shown}: sweep.json, sweep.md, sweep.html, a run folder for each task in tasks")
    if done.exit_code:
        raise typer.Exit(done.exit_code)


def _several(option: str, text: str, kind: Callable[[str], Value]) -> list[Value]:
    """A list as typed, each once.

    Raises:
        UsageError: a part of it is none of its kind.
    """
    try:
        return list(dict.fromkeys(kind(part) for part in text.split(",") if part))
    except ValueError:
        what = f"{option} must be numbers with commas between, got {text!r}"
        raise UsageError(what, fix=f"For example {option} 0.5,1.5") from None


def _asked(more: Sequence[str], choice: Choice) -> Asked:
    """What a task asks of `compress`, checked as `compress` checks it.

    Args:
        more: MODEL and options for `compress` as typed.
        choice: what this task adds to them.

    Raises:
        UsageError: it could not be done, or the sweep sets an option that is given.
    """
    app = typer.Typer()
    app.command()(requested)
    command = get_command(app)
    given = command.make_context("sweep", list(more))
    for name, instead in _SET_HERE.items():
        source = given.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is no option of a sweep", fix=f"Use {instead}.")
    words = (*more, "--criterion", choice.criterion, f"--{choice.budget}", f"{choice.value:g}")
    words = (*words, "--precisions", choice.precision)
    request, order, _ = command.invoke(command.make_context("sweep", list(words)))
    return Asked(words, request, order)


def _task(choice: Choice, asked: Asked, place: Path, environment: dict[str, str]) -> Task:
    from edgeprune.report.sweep import Row
    from edgeprune.sweep.job import Job
    from edgeprune.sweeping import TASKS, Task

    row = Row(str(choice), choice.criterion, {choice.budget: choice.value}, choice.precision)
    argv = ("compress", *asked.words)
    told = {"version": __version__, "argv": argv, "files": _files(asked)}
    return Task(row, Job(str(choice), argv, sha256_of_json(told), place / TASKS, Path.cwd(), environment))


def _files(asked: Asked) -> dict[str, str]:
    """The files that are named, to their hashes; what is in a folder of images is not looked at."""
    request = asked.request
    network = _FILE.fullmatch(request.model)
    named = [network["file"] if network else "", request.data, request.calibration_data, *asked.order.data]
    paths = [Path(name) for name in named if name] + [one for one in (request.weights, request.class_names) if one]
    return {str(path): sha256_of(path) for path in paths if path.is_file()}


def _short(name: str) -> str:
    """The last part of a path or name, as a folder may be called."""
    return plain_name(Path(name).name)
