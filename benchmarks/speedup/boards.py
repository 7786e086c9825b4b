"""The networks of these benchmarks, and their tables: this machine is the board, with one thread."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgeprune.cutting import Traced, traced
from edgeprune.inputs import named_model
from edgeprune.journal import Journal, Nobody
from edgeprune.profiling import Profiled, ProfileOrder, profile
from edgeprune.prune.allocate import Scope
from edgeprune.request import Request

REPOSITORY = Path(__file__).resolve().parent.parent.parent

NETWORKS: dict[str, dict[str, Any]] = {
    "mobilenet_v2": {"model": "mobilenet_v2_tf"},
    "resnet56": {"model": "resnet56"},
    "resnet18": {
        "model": f"{REPOSITORY / 'benchmarks' / 'resnet18.py'}:ResNet18",
        "input_shape": (3, 224, 224),
        "mean": (0.45,) * 3,
        "std": (0.225,) * 3,
    },
}
"""Name -> what `Request` wants to know of it. Weights make no difference to times."""
RUNTIMES = ("onnxruntime", "litert")


class Talk(Nobody):
    """Prints what the package says."""

    def say(self, line: str) -> None:
        """Print a line."""
        print(f"  {line}", flush=True)


def opened(network: str) -> Traced:
    """A network as it is built, uncut."""
    journal = Journal(Nobody())
    return traced(named_model(Request(**NETWORKS[network]), journal), journal)


def arguments(docstring: str | None) -> argparse.ArgumentParser:
    """What these commands ask: the folder, a network, or the table of what was measured."""
    parser = argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the tables and the log")
    parser.add_argument("network", nargs="?", choices=sorted(NETWORKS))
    parser.add_argument("--table", action="store_true", help="print what was measured")
    return parser


def table_of(folder: Path, network: str, runtime: str, scope: Scope = "inner") -> Path:
    """Where a network's table is."""
    return folder / f"{network}-{runtime}{'' if scope == 'inner' else f'-{scope}'}.json"


def profiled(folder: Path, network: str, runtime: str, scope: Scope = "inner") -> Profiled:
    """A network's table, measured as `edgeprune profile` does it, or read where it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    request = Request(**NETWORKS[network], scope=scope)
    return profile(ProfileOrder(request, table_of(folder, network, runtime, scope), runtime=runtime), Talk())
