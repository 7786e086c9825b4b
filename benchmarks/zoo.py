"""edgeprune against Torch-Pruning, over the zoo of `tests/zoo.py`.

    python benchmarks/zoo.py zoo.jsonl                        # every network; goes on where it stopped
    python benchmarks/zoo.py zoo.jsonl --only 'timm:resnet'   # names that match
    python benchmarks/zoo.py zoo.jsonl --table                # what is there, as Markdown

Wants torchvision, timm and torch-pruning 1.6.1 (`make zoo` installs the first two). Linux only, for the peak of memory.

Each network is cut by each side in a process of its own, on one thread, once: half of the filters, at random.

- edgeprune: `capture` and `trace`, then `apply` of a plan, which also compares what it made with the uncut network.
- Torch-Pruning, as its README says: `BasePruner(model, example_inputs, RandomImportance(), pruning_ratio=0.5,
  ignored_layers=...)`, then `step`. It is told to ignore the layers whose filters are outputs of the network.

**Outcome.** The cut network is right if its outputs are those of the uncut network whose layers give no weight to the
filters that they read and that are gone: all within 1e-4 of the output's largest value, on three random images, with
random statistics, scales and offsets. What Torch-Pruning has removed is taken from its own groups; edgeprune's cut must
also match the uncut network with every number of a removed filter zero. `exact`; `whole`: nothing was cut; `wrong`:
something else is computed, without a word; `broken`: the cut network does not run; `error`: tracing or cutting raises;
`late`: it takes more than the time limit. A cut of channels that a layer or group norm normalises together is `wrong`
here: the kept ones are normalised otherwise than before. `(graph)`: the code of the network has widths written into it,
and edgeprune returned the cut network as a graph of operators instead of its own class.

**Free** is the share of the output channels of all convolutions and linear layers that may be removed by some plan:
layers that run, each counted once, without those whose filters are outputs of the network. For edgeprune these are
the filters of spaces that are not protected (of more than one filter), for Torch-Pruning all filters of layers from
which its step has removed any.

**Times** are of building the channel map or the dependency graph, and of the cut, in seconds; **peak** is by how much
the memory in use rises in the meantime, in MB. Torch-Pruning cuts the model that it is given, edgeprune a copy.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from nets import Traced, ignoring, noise, plan_of, random_keep, silenced
from zoo import NETWORKS, Network, import_zoo

from edgeprune.channels import ChannelMap
from edgeprune.graph import GraphNetwork
from edgeprune.program import capture
from edgeprune.prune.fold import fold_weights
from edgeprune.prune.surgery import apply
from edgeprune.prune.trace import trace

TOLERANCE = 1e-4
LIMIT_S = 120
LAYERS = (_ConvNd, nn.Linear)
WEIGHT_OF = {"ConvolutionBackward0": 1, "AddmmBackward0": 2, "MmBackward0": 1}
"""Operators of layers in the autograd graph, and which of their inputs is the weight."""

Row = dict[str, Any]


@dataclass
class Watch:
    """Seconds of each stage, and MB by which memory rose in all of them."""

    times: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        self.start = _status("VmRSS")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.times[f"{name}_s"] = round(perf_counter() - start, 3)

    @property
    def peak_mb(self) -> int:
        return max(0, _status("VmHWM") - self.start) // 1024


def _status(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


@dataclass(frozen=True)
class Layers:
    """The layers of a network that run, by name, and those among them whose filters are its outputs."""

    ran: dict[str, nn.Module]
    giving: frozenset[str]

    @property
    def counted(self) -> dict[str, int]:
        """Number of filters of each layer that might be cut."""
        return {name: filters(layer) for name, layer in self.ran.items() if name not in self.giving}


def filters(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def layers_of(module: nn.Module, images: Tensor) -> Layers:
    """Follow the autograd graph, which neither side needs to understand, back from the outputs."""
    names = {id(layer.weight): name for name, layer in module.named_modules() if isinstance(layer, LAYERS)}
    roots = [output.grad_fn for output in tree_leaves(module(images))]
    ran = _found(roots, names, stop=False)
    return Layers({name: module.get_submodule(name) for name in ran}, frozenset(_found(roots, names, stop=True)))


def _found(roots: list[Any], names: dict[int, str], *, stop: bool) -> list[str]:
    found: dict[str, None] = {}
    waiting, seen = list(roots), set(roots)
    while waiting:
        node = waiting.pop()
        reads = [source for source, _ in node.next_functions]
        if node.name() in WEIGHT_OF:
            weights = [names[key] for key in _leaves(reads[WEIGHT_OF[node.name()]]) if key in names]
            found.update(dict.fromkeys(weights))
            if weights and stop:
                continue
        new = [source for source in reads if source is not None and source not in seen]
        seen.update(new)
        waiting += new
    return list(found)


def _leaves(node: Any) -> set[int]:
    """The parameters that a weight is computed from."""
    if node is None:
        return set()
    if hasattr(node, "variable"):
        return {id(node.variable)}
    return set().union(*(_leaves(source) for source, _ in node.next_functions))


def outputs(module: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return tree_leaves(module(images))


def judged(pruned: nn.Module, images: Tensor, *masked: nn.Module) -> Row:
    """What the oracle says of a cut network."""
    try:
        found = outputs(pruned, images)
    except Exception as error:  # networks raise anything
        return {"outcome": "broken", "why": told(error)}
    off = max(difference(found, outputs(network, images)) for network in masked)
    return {"outcome": "exact" if off <= TOLERANCE else "wrong", "off": off}


def difference(some: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference as a share of the output's largest value; infinite where the shapes differ."""
    if [one.shape for one in some] != [other.shape for other in others]:
        return float("inf")
    return max(
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))
        for one, other in zip(some, others, strict=True)
    )


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]} {getattr(error, 'where', '')}"[
        :300
    ].strip()


def with_edgeprune(network: Network) -> Row:
    model = network.model()
    # Of a copy: some networks keep what they calculate, with its gradients, and cannot be copied any more.
    layers, images = layers_of(copy.deepcopy(model.module), noise(model)), noise(model, count=3)
    watch = Watch()
    with watch.stage("trace"):
        program = capture(model.module, network.shape)
        folded = fold_weights(model, program)
        if folded is not model:
            model, program = folded, capture(folded.module, network.shape)
        channel_map = trace(program)
    keep = random_keep(channel_map, seed=0, keep=0.5)
    plan = plan_of(channel_map, keep)
    with watch.stage("cut"):
        pruned = apply(plan, channel_map, model)
    row = {
        **watch.times,
        "peak_mb": watch.peak_mb,
        "free": _free_filters(channel_map, layers) / _all(layers),
        "graph": isinstance(pruned.module, GraphNetwork),
        "any_batch": program.any_batch,
        "kept": _reasons(channel_map),
    }
    if not keep:
        return {**row, "outcome": "whole", "why": ", ".join(row["kept"])}
    found = Traced(model, program, channel_map)
    return {**row, **judged(pruned.module, images, ignoring(found, keep), silenced(found, keep))}


def _all(layers: Layers) -> int:
    return max(1, sum(layers.counted.values()))


def _free_filters(channel_map: ChannelMap, layers: Layers) -> int:
    free = np.zeros(channel_map.size + 1, dtype=bool)  # the last entry is what FIXED reads
    for space in channel_map.spaces:
        free[space.first : space.first + space.size] = not space.protected and space.size > 1
    made = {layer.weight.removesuffix(".weight"): layer.outputs for layer in channel_map.layers}
    # A layer that mixes positions passes channels on: its own rows are none.
    return sum(
        int(free[made[name]].sum())
        for name, count in layers.counted.items()
        if name in made and len(made[name]) == count
    )


def _reasons(channel_map: ChannelMap) -> dict[str, int]:
    """Why filters must stay, and how many."""
    found: Counter[str] = Counter()
    for space in channel_map.spaces:
        found[space.protected.partition(" (")[0]] += space.size
    return {reason: count for reason, count in found.most_common() if reason not in ("", "network output")}


def with_torch_pruning(network: Network) -> Row:
    import torch_pruning as tp

    model = network.model()
    module, uncut, images = model.module, copy.deepcopy(model.module), noise(model, count=3)
    layers = layers_of(module, noise(model))
    names = {layer: name for name, layer in module.named_modules()}
    watch = Watch()
    with watch.stage("trace"):
        pruner = tp.pruner.BasePruner(
            module,
            noise(model),
            tp.importance.RandomImportance(),
            pruning_ratio=0.5,
            ignored_layers=[layers.ran[name] for name in layers.giving],
        )
    # The indices of a group are those of the network as cut so far; these are the uncut ones of what is left.
    left: dict[str, list[int]] = {}
    cut: set[str] = set()
    with watch.stage("cut"):
        for group in pruner.step(interactive=True):
            for dependency, gone in group:
                layer = dependency.target.module
                if not isinstance(layer, LAYERS):
                    continue
                if pruner.DG.is_out_channel_pruning_fn(dependency.handler):
                    cut.add(names[layer])
                elif pruner.DG.is_in_channel_pruning_fn(dependency.handler):
                    before = left.setdefault(names[layer], list(range(inputs(layer))))
                    left[names[layer]] = [index for place, index in enumerate(before) if place not in set(gone)]
            group.prune()
    free = sum(count for name, count in layers.counted.items() if name in cut)
    row = {**watch.times, "peak_mb": watch.peak_mb, "free": free / _all(layers)}
    if not cut:
        return {**row, "outcome": "whole"}
    return {**row, **judged(module, images, _reading_only(uncut, left))}


def inputs(layer: Any) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


@torch.no_grad()
def _reading_only(module: nn.Module, left: dict[str, list[int]]) -> nn.Module:
    """The uncut network, changed so that each named layer gives weight only to the inputs that are left; in place."""
    for name, kept in left.items():
        layer = module.get_submodule(name)
        for gone in set(range(inputs(layer))) - set(kept):
            if isinstance(layer, _ConvTransposeNd):
                layer.weight[gone] = 0
            elif isinstance(layer, nn.Linear):
                layer.weight[:, gone] = 0
            else:
                assert isinstance(layer, _ConvNd)
                group, column = divmod(gone, layer.in_channels // layer.groups)
                layer.weight.unflatten(0, (layer.groups, -1))[group, :, column] = 0
    return module


def with_fx(network: Network) -> Row:
    """Whether torch.fx.symbolic_trace follows the network, and computes the same."""
    model = network.model()
    return judged(fx.symbolic_trace(model.module), noise(model, count=3), model.module)


SIDES: dict[str, Callable[[Network], Row]] = {
    "edgeprune": with_edgeprune,
    "torch-pruning": with_torch_pruning,
    "torch.fx": with_fx,
}


def measured(network: Network, side: str) -> Row:
    """One side's row, from a process of its own that has imported all and computed nothing."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_perform, args=(network, side, sending))
    process.start()
    sending.close()
    row = {"outcome": "late", "why": f"more than {LIMIT_S} s"}
    try:
        if receiving.poll(LIMIT_S):
            row = receiving.recv()
    except EOFError:
        row = {"outcome": "error", "why": "the process died"}
    process.kill()
    process.join()
    return {"name": network.name, "family": network.family, "transformer": network.transformer, "side": side, **row}


def _perform(network: Network, side: str, sending: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    try:
        sending.send(SIDES[side](network))
    except Exception as error:  # the point is to learn which
        sending.send({"outcome": "error", "why": told(error)})


def table(rows: list[Row]) -> str:
    """The results as Markdown: how often what, where Torch-Pruning is better, and every network."""
    found = {(row["name"], row["side"]): row for row in rows}
    networks = [n for n in NETWORKS if (n.name, "edgeprune") in found and (n.name, "torch-pruning") in found]
    cnns = [network.name for network in networks if not network.transformer]
    transformers = [network.name for network in networks if network.transformer]
    pairs = {n.name: (found[n.name, "edgeprune"], found[n.name, "torch-pruning"]) for n in networks}
    parts = [
        *(_counts(what, names, found) for what, names in (("CNNs", cnns), ("transformers", transformers)) if names),
        _medians([pairs[name] for name in cnns]),
        _better("Where Torch-Pruning is better", [name for name in pairs if _beats(*reversed(pairs[name]))], pairs),
        _better("Every network", list(pairs), pairs),
    ]
    return "\n\n".join(parts) + "\n"


def _beats(mine: Row, other: Row) -> bool:
    """Whether a side cuts a network that the other does not, or may cut more of it."""
    if mine["outcome"] != "exact":
        return False
    return other["outcome"] != "exact" or mine["free"] > other["free"] + 1e-9


def _counts(what: str, names: list[str], found: dict[tuple[str, str], Row]) -> str:
    outcomes = ("exact", "whole", "wrong", "broken", "error", "late")
    lines = [f"| {len(names)} {what} | {' | '.join(outcomes)} |", "|---" * (len(outcomes) + 1) + "|"]
    for side in SIDES:
        count = Counter(found[name, side]["outcome"] for name in names if (name, side) in found)
        if count:
            lines.append(f"| {side} | {' | '.join(str(count[outcome] or '') for outcome in outcomes)} |")
    return "\n".join(lines)


def _medians(pairs: list[tuple[Row, Row]]) -> str:
    both = [pair for pair in pairs if all(row["outcome"] == "exact" for row in pair)]
    lines = [
        f"| medians of the {len(both)} CNNs that both cut exactly | edgeprune | Torch-Pruning |",
        "|---|---|---|",
    ]
    for key, what in (("free", "free"), ("trace_s", "trace, s"), ("cut_s", "cut, s"), ("peak_mb", "peak, MB")):
        mine, theirs = (float(np.median([pair[side][key] for pair in both])) if both else 0.0 for side in (0, 1))
        lines.append(f"| {what} | {_number(key, mine)} | {_number(key, theirs)} |")
    return "\n".join(lines)


def _number(key: str, value: float) -> str:
    return f"{value:.1%}" if key == "free" else f"{value:.0f}" if key == "peak_mb" else f"{value:.2f}"


def _better(title: str, names: list[str], pairs: dict[str, tuple[Row, Row]]) -> str:
    keys = ("free", "trace_s", "cut_s", "peak_mb")
    lines = [
        f"## {title}: {len(names)} of {len(pairs)}\n",
        "| network | edgeprune | free | trace s | cut s | peak MB | Torch-Pruning | free | trace s | cut s | peak MB |",
        "|---" * 11 + "|",
    ]
    for name in names:
        cells = [name]
        for row in pairs[name]:
            outcome = f"{row['outcome']} (graph)" if row.get("graph") else row["outcome"]
            cells += [outcome, *(_number(key, row[key]) if key in row else "" for key in keys)]
        lines.append(f"| {' | '.join(cells)} |")
    whys = [
        f"- {name}, {row['side']}: {row['why']}"
        for name in names
        for row in pairs[name]
        if "why" in row and len(names) < len(pairs)
    ]
    return "\n".join([*lines, "", *whys]).strip()


def _place(network: Network) -> tuple[bool, int]:
    """One CNN of each family first, then the second ones, so that half of the results already say something."""
    return network.transformer, [n.name for n in NETWORKS if n.family == network.family].index(network.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines, appended to")
    parser.add_argument("--only", default="", help="regular expression that names must match")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--table", action="store_true", help="print what is there as Markdown")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.is_file() else []
    if options.table:
        print(table(rows), end="")
        return
    import_zoo()
    __import__("torch_pruning")  # once, before the forks
    torch.set_num_threads(1)
    done = {(row["name"], row["side"]) for row in rows}
    for network in sorted(NETWORKS, key=_place):
        for side in options.sides:
            if re.search(options.only, network.name) and (network.name, side) not in done:
                row = measured(network, side)
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row["name"], side, row["outcome"], row.get("why", ""), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
