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
from rich.console import Console

from edgeprune import __version__
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.listings import AsJson, criteria, devices_app, models
from edgeprune.packaging_command import package
from edgeprune.request import (
    DEFAULT_RATIO,
    DEMO,
    Request,
    parse_budget,
    parse_more_shapes,
    parse_numbers,
    parse_settings,
    parse_shape,
)
from edgeprune.terminal import Talk, print_description, print_json, print_plan
from edgeprune.timing_commands import bench, compare, doctor
from edgeprune.training_command import train

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

_MODEL = "A name from `edgeprune models`, net.py:build, package.module:build, torchvision:NAME, timm:NAME."
Weights = Annotated[Path | None, typer.Option(help="Safetensors or a plain state dict.")]
InputShape = Annotated[str | None, typer.Option("--input", help="Channels x height x width, e.g. 3x224x224.")]
Scope = Annotated[str, typer.Option(help="inner: inside blocks; all: residual widths and bottlenecks too.")]


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
def compress(
    model: Annotated[str, typer.Argument(help=_MODEL)] = DEMO,
    target: Annotated[str, typer.Option(help="A board from `edgeprune devices`, or a TOML file.")] = "rpi4",
    weights: Weights = None,
    data: Annotated[
        str | None, typer.Option(help="Images: folder, tar, .npz, or path/file.py:function. Labels are optional.")
    ] = None,
    input_shape: InputShape = None,
    mean: Annotated[
        str | None, typer.Option(help="Per channel, of pixels scaled to 0..1, e.g. 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="The same.")] = None,
    criterion: Annotated[str, typer.Option(help="How filters are ranked: see `edgeprune criteria`.")] = "qsfm",
    criterion_option: Annotated[
        list[str] | None,
        typer.Option(help="A setting of the criterion, e.g. metric=psnr; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            help=f"Share of filters to remove in each layer that is cut; auto: what the criterion itself removes. "
            f"(default: {DEFAULT_RATIO})",
            metavar="FLOAT|auto",
        ),
    ] = None,
    macs: Annotated[float | None, typer.Option(help="Instead: share of the model's MACs to keep.")] = None,
    allocation: Annotated[
        str, typer.Option(help="Where filters go: damage (where the output loses least) or uniform.")
    ] = "damage",
    scope: Scope = "inner",
    formats: Annotated[
        str | None, typer.Option(help="Files to write, e.g. onnx,tflite. (default: all that can be)")
    ] = None,
    recover: Annotated[
        str, typer.Option(help="reconstruct (refit layers, then norms), bn (norms only) or none.")
    ] = "reconstruct",
    calibration_data: Annotated[
        str | None,
        typer.Option(
            help="Images for scoring filters and refitting. (default: a part of --data, which is then not scored)"
        ),
    ] = None,
    calibration_images: Annotated[int, typer.Option(help="How many of them at most.")] = 256,
    images: Annotated[int, typer.Option(help="How many images to measure accuracy on at most.")] = 10_000,
    out: Annotated[Path | None, typer.Option(help="Run folder. (default: runs/MODEL-TARGET)")] = None,
    plan: Annotated[Path | None, typer.Option(help="Start from this plan.json instead of scoring.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop at the plan and print it.")] = False,
    bench: Annotated[bool, typer.Option("--bench/--no-bench", help="Measure time on this machine.")] = True,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    as_json: AsJson = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run folder that exists.")] = False,
) -> None:
    """Prune, recover, export, verify, bench here, report.

    With no MODEL it runs the demo: a small CNN on handwritten digits, everything real.
    """
    request = Request(
        model=model,
        target=target,
        weights=weights,
        data=data,
        calibration_data=calibration_data,
        input_shape=parse_shape(input_shape),
        mean=parse_numbers("--mean", mean),
        std=parse_numbers("--std", std),
        criterion=criterion,
        criterion_options=parse_settings(criterion_option or []),
        budget=parse_budget(ratio, macs, plan),
        allocation=allocation,  # type: ignore[arg-type]  # checked by Request.check
        scope=scope,  # type: ignore[arg-type]
        formats=tuple(dict.fromkeys(formats.split(","))) if formats is not None else None,
        recover=recover,  # type: ignore[arg-type]
        calibration_images=calibration_images,
        images=images,
        out=out,
        plan=plan,
        dry_run=dry_run,
        seed=seed,
        overwrite=overwrite,
        bench=bench,
        command=("edgeprune", *sys.argv[1:]),
    )
    request.check()
    talk = Talk()
    if model == DEMO and data is None and weights is None:
        talk.say(
            "This is the demo: a small residual CNN on scikit-learn's handwritten digits; every number below is real."
        )
        talk.say(
            "Your own: edgeprune compress path/net.py:build --weights w.safetensors --data images/ --input 3x224x224"
        )
    from edgeprune.pipeline import compress as run  # torch and all that, not before it is needed

    with redirect_stdout(sys.stderr):  # a model may print in its forward pass; stdout carries the result
        outcome = run(request, talk)
    if outcome.report is None:
        print_plan(outcome.plan.to_json(), outcome.whole, as_json)
    elif as_json:
        print_json(outcome.report.to_json())
    else:
        from edgeprune.report.render.terminal import renderable

        Console(highlight=False).print(renderable(outcome.report))
        talk.say(f"Everything is in {outcome.folder}: the files, plan.json, report.json, report.md, report.html")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: AsJson = False) -> None:
    """Print the report of a finished run again."""
    from edgeprune.report.document import Report
    from edgeprune.report.render.terminal import renderable

    found = Report.load(run / "report.json")
    if as_json:
        print_json(found.to_json())
    else:
        Console(highlight=False).print(renderable(found))


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help=_MODEL)],
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


app.command()(train)
app.command()(bench)
app.command()(compare)
app.command()(doctor)
app.command()(package)
app.command()(models)
app.command()(criteria)
app.add_typer(devices_app, name="devices")
