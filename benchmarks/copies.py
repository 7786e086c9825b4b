"""What does the harness make of files that are one and the same?

    python benchmarks/copies.py [resnet18] [--copies 6] [--rounds 12] [--runs 2] [--stay]

Copies of one ONNX file, fp32, one thread, this machine, timed in turns as `edgeprune bench` times files. Printed of
each run: the median time of a call of each copy, in the order in which they are named, and the speed-up of each copy
over the first with its 95 % interval, all of which should hold 1. `--stay` times them in processes that stay for the
whole run, as before decision 0019.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from untrained import untrained

import edgeprune.bench.session
from edgeprune.bench.compare import compare
from edgeprune.bench.session import measure
from edgeprune.bench.single import made_up_images, single_files
from edgeprune.bench.transport import Local
from edgeprune.export.onnx import export_onnx
from edgeprune.plan import Cost
from edgeprune.target import load_target


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="resnet18", help="resnet18, or one of models/")
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--stay", action="store_true")
    options = parser.parse_args()
    edgeprune.bench.session.FRESH = not options.stay
    model = untrained(options.network)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
        folder = Path(name)
        files = [folder / f"{number}.onnx" for number in range(options.copies)]
        export_onnx(model, Cost(0, 0, 0), load_target("host"), "fp32", files[0])
        for copy in files[1:]:
            shutil.copy(files[0], copy)
        artifacts, images = single_files(files), made_up_images(model.input.shape)
        for _ in range(options.runs):
            with Local() as transport:
                measured = measure(artifacts, folder, images, (1,), transport=transport, rounds=options.rounds)
            calls = " ".join(f"{np.median([block.median_ns for block in one.blocks]) / 1e6:.2f}" for one in measured)
            ratios = (f"{one.ratio:.3f} [{one.ci95[0]:.3f}, {one.ci95[1]:.3f}]" for one in compare(measured))
            print(f"{calls} ms; {', '.join(ratios) or 'too few rounds undisturbed'}", flush=True)


if __name__ == "__main__":
    main()
