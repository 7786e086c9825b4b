"""The papers' tables.

    python benchmarks/papers                       # everything, hours; goes on where it stopped
    python benchmarks/papers no_training curves    # these tables
    python benchmarks/papers --only 'qsfm.*bn'     # trials that match, of all tables
    python benchmarks/papers --quick               # a subset in minutes, into runs/papers-quick
    python benchmarks/papers --render              # the pages, from the results that are there

Results are lines of JSON (`results.jsonl`): one a trial, with whether each image was classified right, so that the
pages are worked out from them and nothing is run twice. Wants the folder EDGEPRUNE_DATA, and matplotlib for the
drawings.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from pathlib import Path

import torch
from network import Network, weights_of
from trials import Results, Trial

HERE = Path(__file__).resolve().parent
TABLES = ("no_training", "fine_tuning", "mobilenet", "own_widths", "ablations", "curves")


def run(trials: list[Trial], results: Results) -> None:
    """Run what is missing, network by network; not those of a network whose weights are not there."""
    for name in sorted({trial.network for trial in trials if not weights_of(trial.network).is_file()}):
        print(f"{name}: {weights_of(name)} is missing, its trials are left out", file=sys.stderr)
        trials = [trial for trial in trials if trial.network != name]
    missing = results.missing([*dict.fromkeys(trial.uncut for trial in trials), *trials])
    networks: dict[str, Network] = {}
    for done, trial in enumerate(missing):
        if trial.network not in networks:
            networks = {trial.network: Network(trial.network)}
        result = networks[trial.network].result(trial)
        results.add(result)
        told = f"{done + 1}/{len(missing)} {trial.network} {trial.name} {trial.widths} {trial.recovery} {trial.seed}"
        print(f"{told}: {result.top1:.2f} % in {result.seconds:.0f} s", file=sys.stderr, flush=True)


def render(names: list[str], results: Results, quick: bool, folder: Path) -> None:
    """Write the pages of which all results are there."""
    for name in names:
        table = importlib.import_module(name)
        wanted = getattr(table, "needed", table.trials)(quick)
        missing = results.missing([*(trial.uncut for trial in wanted), *wanted])
        if missing:
            print(f"{name}: {len(missing)} trials are missing, {missing[0]} first; no page written", file=sys.stderr)
            continue
        (folder / f"{name}.md").write_text(table.page(results, quick))
        if hasattr(table, "plot") and importlib.util.find_spec("matplotlib"):
            table.plot(results, quick, folder)
        elif hasattr(table, "plot"):
            print(f"{name}: not drawn, matplotlib is not installed", file=sys.stderr)


def main() -> None:
    """Run and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--render", action="store_true", help="run nothing")
    parser.add_argument("--only", default="", help="regular expression that a trial's key must match")
    parser.add_argument("--out", type=Path, help="folder of the results and pages, instead of this one")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    names = options.tables or list(TABLES)
    if unknown := set(names) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    torch.set_num_threads(options.threads)
    folder = options.out or (HERE.parent.parent / "runs" / "papers-quick" if options.quick else HERE)
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(folder / "results.jsonl")
    if not options.render:
        trials = [trial for name in names for trial in importlib.import_module(name).trials(options.quick)]
        run([trial for trial in trials if re.search(options.only, trial.key)], results)
    render(names, results, options.quick, folder)


main()
