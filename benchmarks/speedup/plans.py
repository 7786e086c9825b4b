"""How well are the times of whole cut networks foretold: by the board's table, by MACs, by a published board?

    python benchmarks/speedup/plans.py FOLDER mobilenet_v2 onnxruntime [--plans 30]    # goes on where it stopped
    python benchmarks/speedup/plans.py FOLDER --table

A table is made of the network as `edgeprune profile` makes it (this machine, one thread). Then random plans, none of
which the table has seen, are timed beside the uncut network, five to a run: how much of the network a plan keeps is
drawn evenly between 0.3 and 1 of its filters, and each space keeps up to 0.25 more or less than that, rounded to a
width that is allowed (multiples of 8). Compared is the time as a share of the uncut network's, foretold and measured.
The foretellers: the table; a line over MACs, fitted to the very variants of the table; and the prior of a Raspberry Pi
4, which knows nothing of this machine and shows what a board not at hand costs. A run that cannot be trusted is taken
once more, and then left out.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
from boards import NETWORKS, RUNTIMES, Talk, arguments, opened, profiled, table_of

from edgeprune.cutting import Traced
from edgeprune.deciding import predicted_times
from edgeprune.files import append_lines, whole_lines
from edgeprune.journal import Journal
from edgeprune.latency import LatencyTable
from edgeprune.prune.allocate import allowed_widths, left_whole
from edgeprune.prune.prior import prior_of
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times
from edgeprune.prune.timing_check import compared, line_over_macs
from edgeprune.target import load_target
from edgeprune.trying import Board
from edgeprune.variants import VariantFiles, spread
from edgeprune.worker.runtimes import RUNTIMES as FORMATS

LOG = "plans.jsonl"
BATCH = 5
SEED = 20_261_122
SPREAD = 0.25


def random_plans(uncut: Traced, number: int, multiple: int) -> list[dict[str, int]]:
    """Widths of the spaces inside blocks, for so many plans."""
    whole = left_whole(uncut.channel_map, "inner")
    spaces = [space for space in uncut.channel_map.spaces if space.name not in whole]
    random, found = np.random.default_rng(SEED), []
    for _ in range(number):
        level, widths = random.uniform(0.3, 1.0), {}
        for space in spaces:
            share = np.clip(level + random.uniform(-SPREAD, SPREAD), 0.1, 1.0)
            allowed = np.array(allowed_widths(space, multiple))
            widths[space.name] = int(allowed[np.abs(allowed - share * space.size).argmin()])
        found.append(widths)
    return found


def measured_plans(folder: Path, network: str, runtime: str, plans: int) -> None:
    """Time plans, batch by batch; each is a line in the log."""
    rows = [one for one in whole_lines(folder / LOG) if (one["network"], one["runtime"]) == (network, runtime)]
    done = max((one["plan"] + 1 for one in rows), default=0)
    known, journal = profiled(folder, network, runtime).table, Journal(Talk())
    uncut, target = opened(network), load_target("rpi4")
    shapes, every = Shapes(uncut.program, uncut.channel_map), random_plans(uncut, plans, target.channel_multiple)
    for begin in range(done, plans, BATCH):
        batch = every[begin : begin + BATCH]
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            files = VariantFiles(Path(name), uncut, target, FORMATS[runtime].format, journal)
            artifacts = files.of([spread(widths, shapes.sizes) for widths in batch])
            measured = Board("local", known, shapes, files, False, journal).timed(artifacts, files.folder)
        for place, artifact in enumerate(artifacts[1:]):
            one = measured.get(artifact.path)
            row = {
                "network": network,
                "runtime": runtime,
                "plan": begin + place,
                "measured": 1 / one.ratio if one else None,
                "ci95": [1 / one.ci95[1], 1 / one.ci95[0]] if one else None,
            }
            append_lines(folder / LOG, [row])
        print(f"{network} {runtime}: {begin + len(batch)} of {plans}", flush=True)


def foretellers(folder: Path, network: str, runtime: str, plans: list[int]) -> dict[str, np.ndarray]:
    """What table, MACs and prior say of some plans: shares of the uncut network's time, float64 [plans]."""
    uncut, target = opened(network), load_target("rpi4")
    shapes = Shapes(uncut.program, uncut.channel_map)
    known = LatencyTable.load(table_of(folder, network, runtime)).networks[shapes.fingerprint]
    every = random_plans(uncut, 1 + max(plans), target.channel_multiple)
    wanted = [every[plan] for plan in plans]
    times = Times(shapes, known)
    prior = predicted_times(prior_of(target), uncut, "inner", target.channel_multiple)
    by_macs = line_over_macs(shapes, known.variants)
    return {
        "table": np.array([1 / foretold(times, widths) for widths in wanted]),
        "macs": np.array([by_macs(widths) for widths in wanted]),
        "prior": np.array([1 / foretold(prior, widths) for widths in wanted]),
    }


def told(foretold_shares: np.ndarray, measured: np.ndarray) -> str:
    """Median and worst relative error, and Spearman's correlation."""
    found = compared(foretold_shares, measured)
    return f"{found.median_error:.1%} ({found.worst_error:.1%}), {found.rank_correlation:.3f}"


def table(folder: Path) -> str:
    """As Markdown: each network and runtime, and the three foretellers."""
    rows = whole_lines(folder / LOG)
    lines = ["| network | runtime | plans | times, share of uncut | table | MACs | Raspberry Pi 4's prior |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for network, runtime in itertools.product(NETWORKS, RUNTIMES):
        its = [one for one in rows if (one["network"], one["runtime"]) == (network, runtime) and one["measured"]]
        if len(its) < 3:
            continue
        measured = np.array([one["measured"] for one in its])
        said = foretellers(folder, network, runtime, [one["plan"] for one in its])
        spread = f"{measured.min():.2f} to {measured.max():.2f}"
        cells = [network, runtime, str(len(its)), spread, *(told(one, measured) for one in said.values())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Go on, or print the table."""
    parser = arguments(__doc__)
    parser.add_argument("runtime", nargs="?", choices=RUNTIMES)
    parser.add_argument("--plans", type=int, default=30)
    options = parser.parse_args()
    if options.table:
        print(table(options.folder))
    else:
        measured_plans(options.folder, options.network, options.runtime, options.plans)


if __name__ == "__main__":
    main()
