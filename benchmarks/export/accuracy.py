"""What int8 costs in accuracy: the uncut network's int8 files against its fp32 files.

    python benchmarks/export/accuracy.py [resnet20] [resnet56] [mobilenet_v2_tf] [--half first]

Needs the extra [tflite], and the weights and images that EDGEPRUNE_DATA names. The files are those that `edgeprune
compress --precisions int8` writes of the uncut network with its defaults: ONNX for a board of x86 (U8S8) and of ARM
(S8S8), TFLite; calibrated with 256 training images. What there is to choose, the way to calibrate, the exporter chooses
on a quarter of these. Each file is run by its own runtime on this machine, on the second half of the test (CIFAR-10)
or validation images (ImageNet); `--half first` is the half to choose settings by, should these defaults have to change.

Printed are the shares of right answers and the change in points with its 95 % interval, counted image by image; at most
0.5 points are to be lost.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from edgeprune.data import ImageSet, load_images
from edgeprune.export import EXPORTERS
from edgeprune.export.calibration import Calibration, calibration_of
from edgeprune.export.child import end_child
from edgeprune.exporting import score_files
from edgeprune.journal import Journal, Nobody
from edgeprune.model import Model, load_model
from edgeprune.plan import Cost
from edgeprune.report.precisions import FileAccuracy
from edgeprune.target import load_target

DATA = Path(os.environ.get("EDGEPRUNE_DATA", "../shared/data"))
SHARED = "benchmarks/shared_data.py"
NETWORKS = {
    "resnet20": ("resnet20_cifar10_jpegft.safetensors", f"{SHARED}:cifar10_train", "cifar10_test"),
    "resnet56": ("resnet56_cifar10_jpegft.safetensors", f"{SHARED}:cifar10_train", "cifar10_test"),
    "mobilenet_v2_tf": (
        "mobilenet_v2_1.0_224_imagenet.safetensors",
        str(DATA / "imagenet_train1000_224.tar"),
        "imagenet_val",
    ),
}
BOARDS = {"onnx": {"U8S8": "x86_64", "S8S8": "aarch64"}, "tflite": {"int8": "aarch64"}}
CALIBRATION = 256
WANTED = -0.005
NOTHING = Cost(macs=0, parameters=0, peak_activation_bytes=0)  # not looked at here


def scored(model: Model, calibration: Calibration, images: ImageSet) -> Iterator[tuple[str, str, FileAccuracy]]:
    """Format, kind of int8 and accuracy of each int8 file."""
    host = load_target("host")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
        folder = Path(name)
        for form, kinds in BOARDS.items():
            exporter = EXPORTERS.load(form)
            files = [exporter(model, NOTHING, host, "fp32", folder / f"fp32.{form}")]
            for kind, arch in kinds.items():
                board, out = replace(host, arch=arch), folder / f"{kind}.{form}"
                files.append(exporter(model, NOTHING, board, "int8", out, calibration))
            end_child()
            found = score_files(files, folder, model.input, images, Journal(Nobody()))
            yield from ((form, kind, one) for kind, one in zip(("fp32", *kinds), found, strict=True))


def rows(network: str, half: str) -> Iterator[str]:
    """One row a file in int8."""
    weights, source, test = NETWORKS[network]
    model = load_model(network, weights=DATA / weights)
    shown = load_images(source, model.input, limit=CALIBRATION, seed=0)
    images = load_images(f"{SHARED}:{test}_{half}", model.input, seed=0)
    reference = 0.0
    for form, kind, one in scored(model, calibration_of(model.input.normalise(shown.images)), images):
        if one.change is None:
            reference = one.share
            continue
        change, low, high = (100 * value for value in (one.change.difference, *one.change.ci95))
        met = "yes" if one.change.difference >= WANTED else "no"
        shares = (f"{100 * reference:.2f} %", f"{100 * one.share:.2f} %")
        cells = (network, form, kind, f"{one.images:,}", *shares, f"{change:+.2f} [{low:+.2f}, {high:+.2f}]", met)
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], default=[])
    parser.add_argument("--half", choices=("first", "second"), default="second")
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = ("network", "format", "int8", "images", "fp32", "int8", "points [95 %]", "at most 0.5 lost")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for network in options.networks or NETWORKS:
        for row in rows(network, options.half):
            print(row, flush=True)


main()
