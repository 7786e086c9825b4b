"""Networks as they are and cut, written in both formats and three precisions, each file compared with its model.

    python benchmarks/export/networks.py networks.jsonl                  # every network; goes on where it stopped
    python benchmarks/export/networks.py networks.jsonl --only resnet    # names that match
    python benchmarks/export/networks.py networks.jsonl --table          # what is there, as Markdown

Wants the extra [tflite], torchvision and timm (`make zoo` installs these two), and EDGEPRUNE_DATA.

Thirty of torchvision's and timm's, one small network of each kind of the zoo in `tests/zoo.py` and seven more, with
64x64 images, and those of `models/`. All but four of `models/` have random weights, with norms measured on the images;
then all of a convolution's outputs vary as in a trained one.
Each is cut by L1 to 70 % of its MACs by `edgeprune.pipeline.compress`, which writes the uncut and the cut network and
compares each file, run by its own runtime, with the torch model on real images: all that a user gets. Where it refuses,
each format and precision is tried alone, and what it said is told. Times are not measured here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
from test_zoo import QUICK
from zoo import NETWORKS, Network, unlike_at_birth

from edgeprune.errors import EdgepruneError
from edgeprune.model import Model, load_model
from edgeprune.pipeline import compress
from edgeprune.plan import Budget
from edgeprune.program import capture
from edgeprune.recover.batchnorm import reestimate
from edgeprune.request import Request

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("EDGEPRUNE_DATA", REPOSITORY / "../shared/data"))
SHARED = REPOSITORY / "benchmarks" / "shared_data.py"
OWN = {
    "digits": {},
    "resnet20": {"weights": DATA / "resnet20_cifar10_jpegft.safetensors", "data": f"{SHARED}:cifar10_test_second"},
    "resnet56": {"weights": DATA / "resnet56_cifar10_jpegft.safetensors", "data": f"{SHARED}:cifar10_test_second"},
    "mobilenet_v2_tf": {
        "weights": DATA / "mobilenet_v2_1.0_224_imagenet.safetensors",
        "data": str(DATA / "imagenet_val1300_227.tar"),
    },
}
"""Those of `models/` that have weights here, and images."""
UNTRAINED = ("vgg16_bn_cifar", "mobilenet_v2")
"""The others of `models/`."""
_MORE = (
    "torchvision:resnet18 torchvision:mobilenet_v2 torchvision:mnasnet0_5 torchvision:regnet_y_400mf "
    "torchvision:efficientnet_b0 timm:mobilenetv3_small_050 timm:repghostnet_050"
)
MORE = frozenset(_MORE.split())
"""Of the zoo, beside the small ones."""

FORMATS = ("onnx", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")
IMAGES = 192
LIMIT_S = 3600

Row = dict[str, Any]


def asked(network: Network | str, folder: Path) -> Request:
    """What a user would ask, without the files' formats."""
    kept = Request(
        budget=Budget(macs=0.7), criterion="l1", recover="bn", bench=False, images=IMAGES, calibration_images=64
    )
    if isinstance(network, str) and network in OWN:
        return Request(**{**vars(kept), "model": network, **OWN[network]})
    name, model = (network, untrained(network)) if isinstance(network, str) else (network.name, network.model())
    images, shape = run_path(str(SHARED))["tiny_imagenet"]()[0][:IMAGES], model.input.shape
    if shape[1:] != images.shape[1:3]:
        size = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        scaled = torch.nn.functional.interpolate(size, shape[1:], mode="bilinear", antialias=True)
        images = scaled.round().byte().permute(0, 2, 3, 1).numpy()
    np.savez(folder / "images.npz", images=images, labels=np.arange(IMAGES) % 10)
    batch = torch.from_numpy(images[:64]).permute(0, 3, 1, 2).float().div(255).sub(0.45).div(0.225)
    reestimate(capture(model.module, shape), model.module, [batch])
    save_model(model.module, str(folder / "weights.safetensors"))
    return Request(
        **{
            **vars(kept),
            "model": name,
            "weights": folder / "weights.safetensors",
            "data": str(folder / "images.npz"),
            "input_shape": shape,
            "mean": (0.45,) * 3,
            "std": (0.225,) * 3,
        }
    )


def untrained(name: str) -> Model:
    """A network of `models/` as those of the zoo are."""
    torch.manual_seed(0)
    model = load_model(name)
    unlike_at_birth(model.module)
    return model


def written(request: Request, formats: tuple[str, ...], precisions: tuple[str, ...], out: Path) -> Row:
    """Each file's cosine with its model, by name; or why there are none."""
    request = Request(**{**vars(request), "formats": formats, "precisions": precisions, "out": out})
    try:
        report = compress(request).report
    except EdgepruneError as error:
        return {"why": f"{type(error).__name__}: {error.what}"}
    assert report is not None
    return {
        f"{one.role} {one.format} {one.precision}": {"cosine": one.parity.cosine, "max_rel": one.parity.max_rel}
        for one in report.artifacts
        if one.parity
    }


def tried(network: Network | str) -> Row:
    """All files at once; where these are refused one by one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = asked(network, folder)
        every = written(request, FORMATS, PRECISIONS, folder / "run")
        if every.get("why", "").startswith("BudgetError"):  # all of its layers are joined across blocks
            request = Request(**{**vars(request), "scope": "all"})
            every = written(request, FORMATS, PRECISIONS, folder / "whole")
        if "why" not in every:
            return {"files": every, "faults": {}}
        files, faults = {}, {}
        for form in FORMATS:
            for precision in PRECISIONS:
                kinds = tuple(dict.fromkeys(("fp32", precision)))
                found = written(request, (form,), kinds, folder / f"{form}-{precision}")
                if "why" in found:
                    faults[f"{form} {precision}"] = found["why"]
                else:
                    files.update(found)
        return {"files": files, "faults": faults}


def measured(network: Network | str) -> Row:
    """From a process of its own: a converter may end its process."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    name = network if isinstance(network, str) else network.name
    process = context.Process(target=_perform, args=(name, sending))
    process.start()
    sending.close()
    row: Row = {"files": {}, "faults": {"all": f"more than {LIMIT_S} s"}}
    try:
        if receiving.poll(LIMIT_S):
            row = receiving.recv()
    except EOFError:
        row = {"files": {}, "faults": {"all": "the process died"}}
    process.kill()
    process.join()
    return {"name": name, **row}


def _perform(name: str, sending: Connection) -> None:
    torch.set_num_threads(1)
    network = next((one for one in NETWORKS if one.name == name), name)
    try:
        sending.send(tried(network))
    except Exception as error:
        sending.send({"files": {}, "faults": {"all": f"{type(error).__name__}: {str(error).splitlines()[0]}"}})


def table(rows: list[Row]) -> str:
    """The lowest cosine of the uncut and the cut file, by format and precision; what failed, below."""
    kinds = [f"{form} {precision}" for form in FORMATS for precision in PRECISIONS]
    lines = [f"| network | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]
    for row in rows:
        cells = []
        for kind in kinds:
            found = [row["files"].get(f"{role} {kind}") for role in ("baseline", "pruned")]
            cells.append(f"{min(one['cosine'] for one in found):.4f}" if all(found) else "**no**")
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    faults = [f"- {row['name']}, {kind}: {why}" for row in rows for kind, why in row["faults"].items()]
    return "\n".join([*lines, "", *faults])


def main() -> None:
    """Go on, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("--only", default="", help="a regular expression")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    if options.table:
        print(table(rows))
        return
    done = {row["name"] for row in rows}
    every: list[Network | str] = [
        *OWN,
        *UNTRAINED,
        *(one for one in NETWORKS if one.name in QUICK | MORE and one.rebuilt),
    ]
    for network in every:
        name = network if isinstance(network, str) else network.name
        if name not in done and re.search(options.only, name):
            row = measured(network)
            with options.log.open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(name, len(row["files"]), row["faults"], flush=True)


if __name__ == "__main__":
    main()
