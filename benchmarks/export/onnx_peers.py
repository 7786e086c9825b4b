"""Are our ONNX files as small and as fast as those of the tools beside which they stand?

    pip install --target PEERS --no-deps onnxslim==0.1.98 colorama
    PYTHONPATH=.:PEERS python benchmarks/export/onnx_peers.py [resnet56] [mobilenet_v2] [resnet18] [--rounds 24]

For each network the fp32 files of all are timed in turns by `edgeprune.bench`, on this machine:

- ours: as `edgeprune compress` writes it;
- torch: `torch.onnx.export(model, image)` and nothing else, for any number of images as ours is;
- onnxslim: that file by `onnxslim.slim`, where onnxslim can be imported;
- copy: ours once more, which shows what the machine makes of two files that are one.

All weights are random, which changes neither sizes nor times. Printed are the sizes, how many operators ONNX Runtime
runs when it has optimised the graph, the p50, and ours over the other: time (at most 1.00 is wanted) with its 95 %
interval over the rounds that nothing disturbed, and size. `--no-time` leaves times out.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from untrained import untrained

from edgeprune.bench.compare import compare
from edgeprune.bench.session import measure
from edgeprune.bench.single import single_files
from edgeprune.bench.transport import Local
from edgeprune.export.onnx import OPSET, export_onnx
from edgeprune.export.onnx_run import optimised
from edgeprune.export.quiet import quiet
from edgeprune.model import Model
from edgeprune.plan import Cost
from edgeprune.target import load_target

NETWORKS = ("resnet56", "mobilenet_v2", "resnet18")
NOTHING = Cost(macs=0, parameters=0, peak_activation_bytes=0)  # not looked at here


def written(model: Model, folder: Path) -> list[Path]:
    """Everyone's file of a network, ours first."""
    ours, plain, slim, copy = (folder / f"{name}.onnx" for name in ("ours", "torch", "onnxslim", "copy"))
    export_onnx(model, NOTHING, load_target("host"), "fp32", ours)
    shutil.copy(ours, copy)
    image = torch.zeros(2, *model.input.shape)
    with quiet(), torch.no_grad():
        made = torch.onnx.export(
            model.module, (image,), dynamo=True, opset_version=OPSET, dynamic_shapes=({0: "N"},), verbose=False
        )
        assert made is not None
        made.save(plain, external_data=False)
        if importlib.util.find_spec("onnxslim") is None:
            return [ours, plain, copy]
        import onnxslim

        onnxslim.slim(str(plain), str(slim))
    return [ours, plain, slim, copy]


def times(files: list[Path], shape: tuple[int, int, int], rounds: int) -> dict[str, tuple[str, str, str]]:
    """Of each peer: our p50, its own, and their ratio."""
    artifacts, images = single_files(files), np.random.default_rng(0).standard_normal((8, *shape), dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch, Local() as transport:
        measured = measure(artifacts, Path(scratch), images, (1,), transport=transport, rounds=rounds)
    medians = {one.path: np.median([block.median_ns for block in one.blocks]) / 1e6 for one in measured}
    compared = {one.candidate: one for one in compare(measured)}
    found = {}
    for path, artifact in zip(files[1:], artifacts[1:], strict=True):
        one, ratio = compared.get(artifact.path), "too few rounds undisturbed"
        if one:
            ratio = f"{one.ratio:.3f} [{one.ci95[0]:.3f}, {one.ci95[1]:.3f}], {one.rounds} rounds"
        found[path.stem] = (f"{medians[artifacts[0].path]:.3f}", f"{medians[artifact.path]:.3f}", ratio)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], default=[])
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--no-time", action="store_true")
    options = parser.parse_args()
    head = ("network", "peer", "ours, bytes", "peer, bytes", "ours of it", "operators run, ours, peer")
    head += ("ours, ms", "peer, ms", "time, ours over peer [95 %]")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    torch.set_num_threads(1)
    for name in options.networks or NETWORKS:
        model = untrained(name)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            files = written(model, Path(folder))
            taken = {} if options.no_time else times(files, model.input.shape, options.rounds)
            ours, run = files[0].stat().st_size, optimised(files[0].read_bytes())["nodes_run"]
            for path in files[1:]:
                peer, its = path.stat().st_size, optimised(path.read_bytes())["nodes_run"]
                cells = (name, path.stem, f"{ours:,}", f"{peer:,}", f"{ours / peer:.4f}", f"{run}, {its}")
                print(f"| {' | '.join((*cells, *taken.get(path.stem, ('-', '-', '-'))))} |", flush=True)


main()
