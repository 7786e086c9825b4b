"""The command line: parse, call the pipeline, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edgeprune import __version__
from edgeprune.compressing_command import compress
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.finetuning_command import finetune
from edgeprune.listings import criteria, devices_app, models
from edgeprune.options import AsJson, Model, Scope, Weights
from edgeprune.packaging_command import package
from edgeprune.profiling_command import profile
from edgeprune.request import Request, parse_more_shapes, parse_shape
from edgeprune.sweeping_command import PARSING, sweep
from edgeprune.terminal import Talk, print_description, print_json
from edgeprune.timing_commands import bench, compare, doctor
from edgeprune.training_command import train
from edgeprune.verifying_command import verify

app = typer.Typer(
    name="edgeprune",
    help="Prune a CNN by filter similarity, recover it, export it, and measure whether it got faster.",
    epilog="Exit codes: 0 done, 1 goal missed, 2 usage, 3 device, 4 not trustworthy, 5 parity failed, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130
_CLEAN_UP_SECONDS = 10.0
"""How long a run may take to clean up after Ctrl-C: ending a worker that does not listen takes five."""


def main() -> NoReturn:
    """Run the command line; every error ends here with its exit code."""
    interruption = _Interruption()
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(kind) is not signal.SIG_IGN:  # nohup and `&` ask for that
            signal.signal(kind, interruption)
    Talk.interrupted = staticmethod(interruption.happened)
    sys.exit(_run())


class _Interruption:
    """A signal becomes KeyboardInterrupt; those that follow while the run cleans up are ignored."""

    def __init__(self) -> None:
        self._last = -_CLEAN_UP_SECONDS  # clocks may begin at 0

    def happened(self) -> bool:
        """Whether there was a signal."""
        return self._last > 0

    def __call__(self, *_: object) -> None:
        now = time.monotonic()
        if now - self._last >= _CLEAN_UP_SECONDS:
            self._last = now
            raise KeyboardInterrupt


def _run() -> int:
    try:
        result = app(standalone_mode=False)
        sys.stdout.flush()  # a reader that went away must be noticed here, not when Python shuts down
        if result == _INTERRUPTED:  # what typer makes of KeyboardInterrupt
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except EdgepruneError as error:
        Talk().failed(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: nothing is left half-written", file=sys.stderr)
        return _INTERRUPTED
    except typer.Exit as done:
        return done.exit_code
    except (BrokenPipeError, SystemExit) as error:
        # Rich and click each make an exit with code 1 of it, which stands for a missed goal here.
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _forget_stdout()
        return 0
    except Exception as error:
        # Click's own usage errors have it; anything else is a bug and keeps its traceback.
        if not hasattr(error, "format_message"):
            raise
        if error.format_message():  # empty where no command was named: click has printed the help
            Talk().failed(UsageError(error.format_message(), fix="See edgeprune --help, or edgeprune COMMAND --help."))
        return 2


def _forget_stdout() -> None:
    """Nobody reads standard output any more: let what is still buffered go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: AsJson = False) -> None:
    """Print the report of a finished run again."""
    from edgeprune.report.document import Report
    from edgeprune.report.render.terminal import show

    found = Report.load(run / "report.json")
    if as_json:
        print_json(found.to_json())
    else:
        show(found)


@app.command()
def inspect(
    model: Model,
    weights: Weights = None,
    input_shape: Annotated[
        str | None,
        typer.Option("--input", help="Channels x height x width, e.g. 3x224x224; further inputs follow a comma."),
    ] = None,
    scope: Scope = "inner",
    as_json: AsJson = False,
    as_dot: Annotated[bool, typer.Option("--dot", help="Print a drawing for Graphviz instead.")] = False,
) -> None:
    """Say which filters could go, which go together, and what stays whole and why.

    Needs neither images nor weights.
    """
    request = Request(
        model=model,
        weights=weights,
        input_shape=parse_shape(input_shape and input_shape.partition(",")[0]),
        more_inputs=parse_more_shapes(input_shape),
        scope=scope,  # type: ignore[arg-type]
    )
    request.check()
    if as_json and as_dot:
        raise UsageError("--json and --dot exclude each other", fix="Give one of them.")
    from edgeprune.inspection import inspect as run
    from edgeprune.prune.dot import digraph

    with redirect_stdout(sys.stderr):
        description = run(request, Talk())
    if as_dot:
        print(digraph(description))
    else:
        print_description(description.to_json(), as_json)


app.command()(compress)
app.command(context_settings=PARSING, options_metavar="[MODEL] [OPTIONS] [OPTIONS OF compress]")(sweep)
app.command()(train)
app.command()(profile)
app.command()(finetune)
app.command()(verify)
app.command()(bench)
app.command()(compare)
app.command()(doctor)
app.command()(package)
app.command()(models)
app.command()(criteria)
app.add_typer(devices_app, name="devices")
