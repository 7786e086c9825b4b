"""How long each criterion takes to score every layer of a network, and how much memory.

    python benchmarks/criteria.py [NETWORK ...] [--only NAME ...]   # mobilenet_v2, resnet50; random weights

Each criterion with its default settings, on 128 images of noise at 3x224x224, every space that `--scope all` cuts, in a
process of its own. Seconds include running the network as far as the criterion looks at feature maps; capturing and
tracing are not counted. The peak is by how much the process's memory rises above that before scoring, in MB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from capture import SHAPE, resnet

from edgeprune.criteria import CRITERIA, configure
from edgeprune.model import load_model
from edgeprune.program import capture
from edgeprune.prune.allocate import left_whole
from edgeprune.prune.score import Scorer
from edgeprune.prune.trace import trace

IMAGES, BATCH = 128, 16


def measure(network: str, name: str, answer: Connection) -> None:
    """Send the seconds and the MB of one criterion."""
    torch.manual_seed(0)
    module = resnet(50) if network == "resnet50" else load_model(network).module
    program = capture(module, SHAPE)
    channel_map = trace(program)
    whole = left_whole(channel_map, "all")
    batches = [torch.randn(BATCH, *SHAPE) for _ in range(IMAGES // BATCH)]
    names = [space.name for space in channel_map.spaces if space.name not in whole]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = perf_counter()
    with torch.inference_mode():
        Scorer(channel_map, program, module, batches).score(configure(name), names)
    seconds = perf_counter() - begin
    answer.send((len(names), seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--only", nargs="+", default=list(CRITERIA.rows), help="criteria")
    options = parser.parse_args()
    print("| network | spaces | criterion | s | MB |\n|---|---|---|---|---|")
    for network in options.networks:
        for name in options.only:
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(network, name, theirs))
            process.start()
            theirs.close()  # else a child that fails would be waited for without end
            spaces, seconds, megabytes = ours.recv()
            process.join()
            print(f"| {network} | {spaces} | {name} | {seconds:.1f} | {megabytes:.0f} |", flush=True)


if __name__ == "__main__":
    main()
