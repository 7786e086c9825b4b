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

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from boards import NETWORKS, RUNTIMES, Talk, profiled, table_of

from edgeprune.artifact import Artifact
from edgeprune.bench.compare import Comparison, compare
from edgeprune.bench.session import measure
from edgeprune.bench.single import made_up_images
from edgeprune.bench.transport import open_device
from edgeprune.bench.trust import doubts
from edgeprune.cutting import Traced, traced
from edgeprune.deciding import predicted_times
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import LatencyTable
from edgeprune.model import load_model
from edgeprune.prune.allocate import allowed_widths, left_whole
from edgeprune.prune.prior import prior_of
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times
from edgeprune.target import load_target
from edgeprune.variants import VariantFiles
from edgeprune.worker.runtimes import RUNTIMES as FORMATS

LOG = "plans.jsonl"
BATCH = 5
ROUNDS = 12
SEED = 20_261_122
SPREAD = 0.25

Row = dict[str, Any]


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


def timed(artifacts: tuple[Artifact, ...], folder: Path, runtime: str) -> tuple[Comparison, ...]:
    """Each cut file beside the uncut one, from one run that can be trusted; empty where two cannot."""
    for _ in range(2):
        with open_device("local") as transport:
            measured = measure(
                artifacts,
                folder,
                made_up_images(artifacts[0].input_shape),
                (1,),
                transport=transport,
                runtimes=(runtime,),
                rounds=ROUNDS,
            )
        fatal = [doubt for one in measured for doubt in doubts(one) if doubt.fatal]
        if not fatal:
            return compare(measured)
        print(f"  {fatal[0]}", flush=True)
    return ()


def line_over_macs(shapes: Shapes, variants: list[tuple[dict[str, int], float]]) -> tuple[float, float]:
    """Share of the uncut time as a line in MACs, of least squared relative error: (at 0, slope)."""
    macs = np.array([total_macs(shapes, widths) for widths, _ in variants])
    share = np.array([one for _, one in variants])
    (fixed, slope), *_ = np.linalg.lstsq(np.stack([1 / share, macs / share], 1), np.ones(len(share)), rcond=None)
    return float(fixed), float(slope)


def total_macs(shapes: Shapes, widths: dict[str, int]) -> float:
    """Multiply-accumulates of all layers, in 10^9."""
    return float(sum(one.macs for one in shapes.at(widths))) / 1e9


def opened(network: str) -> Traced:
    """A network, uncut."""
    asked = NETWORKS[network]
    return traced(
        load_model(asked["model"], **{key: value for key, value in asked.items() if key != "model"}), Journal(Nobody())
    )


def measured_plans(folder: Path, network: str, runtime: str, plans: int) -> None:
    """Time plans, batch by batch; each is a line in the log."""
    log = folder / LOG
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = max((one["plan"] + 1 for one in rows if (one["network"], one["runtime"]) == (network, runtime)), default=0)
    profiled(folder, network, runtime)
    uncut, target = opened(network), load_target("rpi4")
    every = random_plans(uncut, plans, target.channel_multiple)
    for begin in range(done, plans, BATCH):
        batch = every[begin : begin + BATCH]
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            files = VariantFiles(Path(name), uncut, target, FORMATS[runtime].format, Journal(Talk()))
            artifacts = files.of(batch)
            comparisons = timed(artifacts, files.folder, runtime)
        measured = {one.candidate: one for one in comparisons}
        with log.open("a") as stream:
            for place, artifact in enumerate(artifacts[1:]):
                one = measured.get(artifact.path)
                row = {
                    "network": network,
                    "runtime": runtime,
                    "plan": begin + place,
                    "measured": 1 / one.ratio if one else None,
                    "ci95": [1 / one.ci95[1], 1 / one.ci95[0]] if one else None,
                }
                stream.write(json.dumps(row) + "\n")
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
    fixed, slope = line_over_macs(shapes, [(dict(one.widths), one.ms / one.uncut_ms) for one in known.variants])
    return {
        "table": np.array([1 / foretold(times, widths) for widths in wanted]),
        "macs": np.array([fixed + slope * total_macs(shapes, widths) for widths in wanted]),
        "prior": np.array([1 / foretold(prior, widths) for widths in wanted]),
    }


def ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value among all; no two are equal here."""
    return values.argsort().argsort()


def told(foretold_shares: np.ndarray, measured: np.ndarray) -> str:
    """Median and worst relative error, and Spearman's correlation."""
    errors = np.abs(foretold_shares / measured - 1)
    correlation = np.corrcoef(ranks(foretold_shares), ranks(measured))[0, 1]
    return f"{np.median(errors):.1%} ({errors.max():.1%}), {correlation:.3f}"


def table(folder: Path) -> str:
    """As Markdown: each network and runtime, and the three foretellers."""
    rows: list[Row] = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the tables and the log")
    parser.add_argument("network", nargs="?", choices=sorted(NETWORKS))
    parser.add_argument("runtime", nargs="?", choices=RUNTIMES)
    parser.add_argument("--plans", type=int, default=30)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(options.folder))
    else:
        measured_plans(options.folder, options.network, options.runtime, options.plans)


if __name__ == "__main__":
    main()
