"""The command that times a network's layers on a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune import options
from edgeprune.request import Request, parse_shape
from edgeprune.terminal import Talk, print_json

if TYPE_CHECKING:
    from edgeprune.prune.timing_check import Check


def profile(
    model: options.Model,
    table: Annotated[Path, typer.Option(help="The table to write, or to go on with: a .json file.")],
    target: options.Target = "rpi4",
    weights: options.Weights = None,
    input_shape: options.InputShape = None,
    scope: options.Scope = "inner",
    device: Annotated[
        str, typer.Option(help="local, ssh://user@host:port, docker://IMAGE or podman://IMAGE.")
    ] = "local",
    runtime: Annotated[str | None, typer.Option(help="In which to time. (default: the target's preferred one)")] = None,
    threads: Annotated[int, typer.Option(help="That the runtime is to use.")] = 1,
    minutes: Annotated[float | None, typer.Option(help="Begin no batch of variants after so long.")] = None,
    allow_mixed: options.AllowMixed = False,
    as_json: options.AsJson = False,
) -> None:
    """Time a network cut in many ways, on your board: the table on which `compress --speedup` is solved.

    Interrupted, the same command goes on. Neither images nor trained weights are needed.
    """
    from edgeprune.profiling import ProfileOrder
    from edgeprune.profiling import profile as run

    request = Request(
        model=model,
        target=target,
        weights=weights,
        input_shape=parse_shape(input_shape),
        allow_mixed=allow_mixed,
        scope=scope,  # type: ignore[arg-type]  # checked by Request.check
    )
    done = run(ProfileOrder(request, table, device, runtime, threads, minutes), Talk())
    told = done.to_json()
    if as_json:
        print_json(told)
        return
    where = done.table.conditions
    print(f"{where.board}; {where.runtime} {where.runtime_version}, {where.threads} threads, {where.format}")
    print(f"{told['network']}: {told['variants']} variants in {done.path}, uncut {told['uncut_ms']:.3g} ms")
    for name, found in (("this table", done.checked), ("MACs alone", done.by_macs)):
        print(f"by {name}: {_said(found)}")
    print(f"largest speed-up foretold of any widths: {done.reachable:.2f}x")


def _said(found: Check | None) -> str:
    if found is None:
        return "too few variants to tell how well times are foretold"
    return (
        f"times of {found.variants} variants that were held out are foretold to {found.median_error:.1%} "
        f"(median; worst {found.worst_error:.1%}), rank correlation {found.rank_correlation:.3f}"
    )
