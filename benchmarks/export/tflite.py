"""Are our TFLite files as small and as fast as those of the tools beside which they stand?

    python benchmarks/export/tflite.py [resnet20] [mobilenet_v2_tf] [--rounds 24] [--threads 1]

Needs the extras [tflite] and [tensorflow], and the weights and images that EDGEPRUNE_DATA names. For each network and
precision the files of all are timed in turns by `edgeprune.bench`, on this machine:

- ours: as `edgeprune compress` writes it, by litert-torch;
- litert-torch: `litert_torch.convert(model, image)` and nothing else, NCHW images; fp16 and int8 by ai-edge-quantizer's
  own recipes and its own `calibrate`, int8 with int8 in and out, which is all that its recipe makes;
- TensorFlow: ours by `--tflite-converter tensorflow`.

Printed are the sizes, the p50, and ours over the other: time (at most 1.00 is wanted) with its 95 % interval over the
rounds that nothing disturbed, and size. onnx2tf is not among them: it wants files from the internet while it converts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from edgeprune.artifact import Artifact
from edgeprune.bench.compare import compare
from edgeprune.bench.session import measure
from edgeprune.bench.single import single_files
from edgeprune.bench.transport import Local
from edgeprune.data import load_images
from edgeprune.export.calibration import Calibration, calibration_of
from edgeprune.export.child import end_child
from edgeprune.export.quiet import quiet
from edgeprune.export.tflite import export_tflite
from edgeprune.model import Model, load_model
from edgeprune.plan import Cost
from edgeprune.target import load_target

DATA = Path(os.environ.get("EDGEPRUNE_DATA", "../shared/data"))
NETWORKS = {
    "resnet20": ("resnet20_cifar10_jpegft.safetensors", "benchmarks/shared_data.py:cifar10_train"),
    "mobilenet_v2_tf": ("mobilenet_v2_1.0_224_imagenet.safetensors", str(DATA / "imagenet_train1000_224.tar")),
}
KINDS = {
    "fp32": ("fp32", "static"),
    "fp16": ("fp16", "static"),
    "int8": ("int8", "static"),
    "int8, int8 in and out": ("int8", "integer"),
}
IMAGES = 64
NOTHING = Cost(macs=0, parameters=0, peak_activation_bytes=0)  # not looked at here


def plain(model: Model, folder: Path, calibration: Calibration) -> Iterator[Path]:
    """What litert-torch and ai-edge-quantizer make of the model by themselves."""
    with quiet():
        import litert_torch
        from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe, recipe_manager

        content = litert_torch.convert(model.module, (torch.zeros(1, *model.input.shape),)).model_content()
        halves = recipe_manager.RecipeManager()
        every = qtyping.TFLOperationName.ALL_SUPPORTED
        casting = algorithm_manager.AlgorithmName.FLOAT_CASTING
        halves.add_weight_only_config(".*", every, num_bits=16, algorithm_key=casting)
        integers = quantizer.Quantizer(bytearray(content), recipe.static_wi8_ai8())
        images = [{"args_0": image[None]} for image in calibration.images]
        ranges = integers.calibrate({"serving_default": images}, num_threads=1)
        files = {
            "fp32": content,
            "fp16": quantizer.Quantizer(bytearray(content), halves.get_quantization_recipe())
            .quantize()
            .quantized_model,
            "int8, int8 in and out": integers.quantize(ranges).quantized_model,
        }
    for kind, made in files.items():
        path = folder / f"litert-torch-{kind}.tflite"
        path.write_bytes(made)
        yield path


def written(model: Model, folder: Path, calibration: Calibration) -> dict[str, list[Path]]:
    """The files of each kind, ours first."""
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for name, converter in (("ours", "litert"), ("TensorFlow", "tensorflow")):
        for kind, (precision, int8) in KINDS.items():
            path, shown = folder / f"{name}-{kind}.tflite", calibration if precision == "int8" else None
            export_tflite(model, NOTHING, load_target("host"), precision, path, shown, converter=converter, int8=int8)
            found[kind].append(path)
    end_child()
    for path in plain(model, folder, calibration):
        found[path.stem.rsplit("-", 1)[1]].append(path)
    return found


def rows(network: str, files: list[Path], images: np.ndarray, threads: int, rounds: int) -> Iterator[str]:
    """One row a peer."""
    artifacts: tuple[Artifact, ...] = single_files(files)
    ours = files[0]
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch, Local() as transport:
        measured = measure(artifacts, Path(scratch), images, (threads,), transport=transport, rounds=rounds)
    medians = {one.path: np.median([block.median_ns for block in one.blocks]) / 1e6 for one in measured}
    compared = {one.candidate: one for one in compare(measured)}
    for at, path in enumerate(files[1:], 1):
        name, kind = path.stem.rsplit("-", 1)
        size, other = ours.stat().st_size, path.stat().st_size
        found = compared.get(artifacts[at].path)
        ratio = "too few rounds undisturbed"
        if found:
            ratio = f"{found.ratio:.3f} [{found.ci95[0]:.3f}, {found.ci95[1]:.3f}], {found.rounds} rounds"
        times = [f"{medians[artifacts[place].path]:.3f}" for place in (0, at)]
        cells = (network, kind, name, f"{size:,}", f"{other:,}", f"{size / other:.4f}", *times, ratio)
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], default=[])
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    head = ("network", "precision", "peer", "ours, bytes", "peer, bytes", "ours of it", "ours, ms", "peer, ms")
    print(f"| {' | '.join((*head, 'time, ours over peer [95 %]'))} |\n|{'---|' * (len(head) + 1)}", flush=True)
    torch.set_num_threads(1)
    for network in options.networks or NETWORKS:
        weights, source = NETWORKS[network]
        model = load_model(network, weights=DATA / weights)
        images = model.input.normalise(load_images(source, model.input, limit=IMAGES, seed=0).images)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            files = written(model, Path(folder), calibration_of(images))
            for kind in KINDS:
                for row in rows(network, files[kind], images[:8], options.threads, options.rounds):
                    print(row, flush=True)


main()
