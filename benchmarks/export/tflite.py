"""Are our TFLite files as small and as fast as those of the tools beside which they stand?

    python benchmarks/export/tflite.py [resnet20] [mobilenet_v2_tf] [--rounds 24] [--threads 1]
    python -m venv PEER && PEER/bin/pip install onnx2tf==1.29.24
    python benchmarks/export/tflite.py resnet20 --onnx2tf PEER/bin/onnx2tf [--only onnx2tf] [--no-time]

Needs the extras [tflite] and [tensorflow], and the weights and images that EDGEPRUNE_DATA names. For each network and
precision the files of all are timed in turns by `edgeprune.bench`, on this machine:

- ours: as `edgeprune compress` writes it, by litert-torch;
- litert-torch: `litert_torch.convert(model, image)` and nothing else, NCHW images; fp16 and int8 by ai-edge-quantizer's
  own recipes and its own `calibrate`, int8 with int8 in and out, which is all that its recipe makes;
- TensorFlow: ours by `--tflite-converter tensorflow`;
- copy: ours once more, which shows what the machine makes of two files that are one;
- onnx2tf: what it makes of the network's ONNX file, calibrated with the same images; it does not install beside our
  pins. While it converts it fetches a file of sample images, with which it only checks itself; one of noise is put in
  its place, so that it runs without a network.

Printed are the sizes, how far the outputs of both are from torch's on 8 images (the largest difference, as a share of
the largest output), the p50, and ours over the other: time (at most 1.00 is wanted) with its 95 % interval over the
rounds that nothing disturbed, and size. `--no-time` leaves times out, `--only` all peers but one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
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
from edgeprune.export.execute import opened
from edgeprune.export.onnx import one_image_onnx
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
SUFFIXES = {
    "fp32": "float32",
    "fp16": "float16",
    "int8": "integer_quant",
    "int8, int8 in and out": "full_integer_quant",
}
"""What onnx2tf calls its files."""
SAMPLES = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""What it fetches where it does not find it in the folder that it runs in."""
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


def by_onnx2tf(model: Model, folder: Path, calibration: Calibration, program: Path) -> Iterator[Path]:
    """What onnx2tf makes of the model's ONNX file, in an environment of its own."""
    scratch = folder / "onnx2tf"
    scratch.mkdir()
    (scratch / "net.onnx").write_bytes(one_image_onnx(model))
    np.save(scratch / SAMPLES, np.random.default_rng(0).random((20, 128, 128, 3), dtype=np.float32))
    np.save(scratch / "images.npy", calibration.images.transpose(0, 2, 3, 1))
    as_they_are = ("[[[[0,0,0]]]]", "[[[[1,1,1]]]]")  # the images are normalised already
    words = ("-i", "net.onnx", "-o", "out", "-n", "-oiqt", "-cind", "input", "images.npy", *as_they_are)
    with (scratch / "said.txt").open("w") as said:
        subprocess.run([program.absolute(), *words], cwd=scratch, check=True, stdout=said, stderr=said)
    for kind, suffix in SUFFIXES.items():
        path = folder / f"onnx2tf-{kind}.tflite"
        (scratch / "out" / f"net_{suffix}.tflite").rename(path)
        yield path


def written(
    model: Model, folder: Path, calibration: Calibration, only: str | None, program: Path | None
) -> dict[str, list[Path]]:
    """The files of each kind, ours first."""
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for name, converter in (("ours", "litert"), ("TensorFlow", "tensorflow")):
        if name != "ours" and only not in (None, name):
            continue
        for kind, (precision, int8) in KINDS.items():
            path, shown = folder / f"{name}-{kind}.tflite", calibration if precision == "int8" else None
            export_tflite(model, NOTHING, load_target("host"), precision, path, shown, converter=converter, int8=int8)
            found[kind].append(path)
    end_child()
    peers: list[Path] = []
    if only is None:
        peers += [Path(shutil.copy(ours, folder / f"copy-{kind}.tflite")) for kind, (ours, *_) in found.items()]
    if only in (None, "litert-torch"):
        peers += plain(model, folder, calibration)
    if program:
        peers += by_onnx2tf(model, folder, calibration, program)
    for path in peers:
        found[path.stem.rsplit("-", 1)[1]].append(path)
    return found


def difference(model: Model, artifact: Artifact, images: np.ndarray) -> float:
    """The largest difference of a file's outputs from torch's, as a share of the largest output."""
    run = opened("tflite", Path(artifact.path).read_bytes())
    shown = images if artifact.layout == "NHWC" else images.transpose(0, 3, 1, 2)  # it is turned to NHWC, come what may
    with torch.inference_mode(), quiet():
        expected = model.module(torch.from_numpy(images)).numpy()
        got = np.concatenate([run(shown[at : at + 1])[0] for at in range(len(images))])
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def times(
    artifacts: tuple[Artifact, ...], images: np.ndarray, threads: int, rounds: int
) -> dict[str, tuple[str, str, str]]:
    """Of each peer: our p50, its own, and their ratio."""
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch, Local() as transport:
        measured = measure(artifacts, Path(scratch), images, (threads,), transport=transport, rounds=rounds)
    medians = {one.path: np.median([block.median_ns for block in one.blocks]) / 1e6 for one in measured}
    compared = {one.candidate: one for one in compare(measured)}
    found = {}
    for artifact in artifacts[1:]:
        one, ratio = compared.get(artifact.path), "too few rounds undisturbed"
        if one:
            ratio = f"{one.ratio:.3f} [{one.ci95[0]:.3f}, {one.ci95[1]:.3f}], {one.rounds} rounds"
        found[artifact.path] = (f"{medians[artifacts[0].path]:.3f}", f"{medians[artifact.path]:.3f}", ratio)
    return found


def rows(network: str, model: Model, files: list[Path], images: np.ndarray, threads: int, rounds: int) -> Iterator[str]:
    """One row a peer; without rounds, no times."""
    ours, *peers = artifacts = single_files(files)
    taken = times(artifacts, images, threads, rounds) if rounds else {}
    own = difference(model, ours, images)
    for artifact, path in zip(peers, files[1:], strict=True):
        name, kind = path.stem.rsplit("-", 1)
        sizes = (f"{ours.bytes:,}", f"{artifact.bytes:,}", f"{ours.bytes / artifact.bytes:.4f}")
        off = (f"{own:.1e}", f"{difference(model, artifact, images):.1e}")
        yield f"| {' | '.join((network, kind, name, *sizes, *off, *taken.get(artifact.path, ('-', '-', '-'))))} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], default=[])
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--onnx2tf", type=Path, help="its program, in an environment of its own")
    parser.add_argument("--only", choices=("TensorFlow", "litert-torch", "onnx2tf"))
    parser.add_argument("--no-time", action="store_true")
    options = parser.parse_args()
    head = ("network", "precision", "peer", "ours, bytes", "peer, bytes", "ours of it", "ours off by", "peer off by")
    head = (*head, "ours, ms", "peer, ms")
    print(f"| {' | '.join((*head, 'time, ours over peer [95 %]'))} |\n|{'---|' * (len(head) + 1)}", flush=True)
    torch.set_num_threads(1)
    for network in options.networks or NETWORKS:
        weights, source = NETWORKS[network]
        model = load_model(network, weights=DATA / weights)
        images = model.input.normalise(load_images(source, model.input, limit=IMAGES, seed=0).images)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            program = options.onnx2tf if options.only in (None, "onnx2tf") else None
            files = written(model, Path(folder), calibration_of(images), options.only, program)
            rounds = 0 if options.no_time else options.rounds
            for kind in KINDS:
                for row in rows(network, model, files[kind], images[:8], options.threads, rounds):
                    print(row, flush=True)


main()
