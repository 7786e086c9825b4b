"""SSM's point: a network trained and pruned in one run, against one that is trained, then pruned.

    python benchmarks/papers/ssm.py --images 10000 --epochs 8     # writes ssm.md beside it; goes on where it stopped

ResNet-20 from random weights on CIFAR-10's training images (JPEG-75 copy), one seed: the same images, epochs, batches,
rates and first weights for both; nothing is trained after the cut. Wants the folder EDGEPRUNE_DATA.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from edgeprune.journal import Nobody
from edgeprune.pipeline import compress
from edgeprune.plan import Budget
from edgeprune.report.document import Report
from edgeprune.request import Recovery, Request
from edgeprune.train.order import TrainOrder, Zero
from edgeprune.train.settings import Settings
from edgeprune.training import train

HERE = Path(__file__).resolve().parent
DATA = str(HERE.parent / "shared_data.py")
RUNS = HERE.parent.parent / "runs" / "papers-ssm"
RATIO = 0.4


class Lines(Nobody):
    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def drawn(images: int, seed: int) -> str:
    """The images to train on, in a file."""
    path = RUNS / f"train-{images}-{seed}.npz"
    if not path.is_file():
        from importlib.util import module_from_spec, spec_from_file_location

        spec = spec_from_file_location("shared_data", DATA)
        assert spec is not None
        assert spec.loader is not None
        shared = module_from_spec(spec)
        spec.loader.exec_module(shared)
        pixels, labels = shared.cifar10_train()
        chosen = np.random.default_rng(seed).permutation(len(pixels))[:images]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=pixels[chosen], labels=labels[chosen])
    return str(path)


def trained(name: str, options: argparse.Namespace, prune: bool, zero: Zero = "scales") -> Path:
    """The folder of a training; made if it is not there."""
    out = RUNS / f"{name}-{options.images}-{options.epochs}-{options.seed}"
    if not (out / "training.json").is_file():
        request = Request(
            "resnet20",
            data=drawn(options.images, options.seed),
            criterion="ssm",
            budget=Budget(ratio=RATIO),
            allocation="uniform",
            formats=("onnx",),
            out=out,
            images=options.test_images,
            seed=options.seed,
            bench=False,
        )
        settings = Settings(epochs=options.epochs, batch=options.batch, device="cpu")
        order = TrainOrder(
            request, settings, test_data=f"{DATA}:cifar10_test", from_scratch=True, prune=prune, zero=zero
        )
        train(order, Lines())
    return out


def then_pruned(uncut: Path, recover: Recovery, options: argparse.Namespace) -> Report:
    """What `compress` makes of an ordinary training's network."""
    out = uncut.with_name(f"{uncut.name}-{recover}")
    if not (out / "report.json").is_file():
        request = Request(
            "resnet20",
            weights=uncut / "trained.safetensors",
            data=f"{DATA}:cifar10_test",
            calibration_data=drawn(options.images, options.seed),
            criterion="ssm",
            budget=Budget(ratio=RATIO),
            allocation="uniform",
            recover=recover,
            formats=("onnx",),
            out=out,
            images=options.test_images,
            seed=options.seed,
            bench=False,
        )
        compress(request, Lines())
    return Report.load(out / "report.json")


def page(options: argparse.Namespace) -> str:
    """Train, prune, and write down what came of it."""
    uncut = trained("ordinary", options, prune=False)
    cut = {kind: then_pruned(uncut, kind, options) for kind in ("none", "bn", "reconstruct")}
    found = {zero: trained(zero, options, prune=True, zero=zero) for zero in options.zero}
    first = cut["none"].accuracy
    assert first is not None
    rows = [("trained", "100 %", first.uncut.share)]
    for kind, words in (("none", "nothing"), ("bn", "norms re-estimated"), ("reconstruct", "refitted, no labels")):
        scored = cut[kind].accuracy
        assert scored is not None
        assert scored.final is not None
        rows.append((f"trained, then pruned; {words}", share(cut[kind]), scored.final.share))
    for zero, folder in found.items():
        report = Report.load(folder / "report.json")
        assert report.accuracy is not None
        assert report.accuracy.cut is not None
        kind = f"trained and pruned in one run; `--zero {zero}`"
        rows.append((kind, share(report), report.accuracy.cut.share))
    table = "\n".join(f"| {kind} | {kept} | {100 * top1:.1f} |" for kind, kept, top1 in rows)
    asked = [f"--images {options.images} --epochs {options.epochs} --batch {options.batch} --seed {options.seed}"]
    asked += [f"--zero {zero}" for zero in options.zero]
    return f"""# SSM: training and pruning in one run

    python benchmarks/papers/ssm.py {" ".join(asked)}

ResNet-20 from random weights, {options.images:,} of CIFAR-10's training images (JPEG-75 copy), {options.epochs}
epochs in batches of {options.batch}, rate up to 0.1, seed {options.seed}. Criterion `ssm`, ratio {RATIO} inside the
blocks, widths in steps of the Raspberry Pi 4's channel multiple; nothing is trained after the cut. Trainings cost the
same: filters are at zero until the end, and only then cut. Top-1 on {first.images:,} test images; one standard error is
{100 * error(first.uncut.share, first.images):.1f} points.

| | MACs | top-1, % |
|---|---|---|
{table}
"""


def share(report: Report) -> str:
    return f"{100 * report.cost.pruned.macs / report.cost.baseline.macs:.1f} %"


def error(top1: float, images: int) -> float:
    return (top1 * (1 - top1) / images) ** 0.5


def main() -> None:
    """Run and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="the page, instead of ssm.md beside this script")
    parser.add_argument("--zero", action="append", choices=["scales", "weights"], help="may be repeated")
    options = parser.parse_args()
    options.zero = options.zero or ["scales"]
    torch.set_num_threads(options.threads)
    (options.out or HERE / "ssm.md").write_text(page(options))


if __name__ == "__main__":
    main()
