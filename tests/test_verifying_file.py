"""`edgeprune verify FILE --model MODEL`: a file that no run wrote, beside the model it should compute."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from program_runs import REPOSITORY, Tiny, fault, run_forked, run_here, tiny_network, tiny_project

from edgeprune.export.foreign import kind_of
from edgeprune.export.quiet import quiet
from edgeprune.request import Request
from edgeprune.verifying_file import FileOrder, verify_file

DATA = Path(os.environ.get("EDGEPRUNE_DATA", REPOSITORY.parent / "shared/data"))
PUBLISHED = "tf2_mobilenet_v2_1.0_224_ptq.tflite"


class Served(torch.nn.Module):
    """The network as others hand it on: with a background class first, and as probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_network()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.net(images)
        none = torch.full_like(logits[:, :1], -30.0)
        return torch.softmax(torch.cat([none, logits], dim=1), dim=1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A user's project with two files that edgeprune did not write."""
    tiny = tiny_project(tmp_path_factory.mktemp("foreign"))
    for name, network in (("plain", tiny_network()), ("served", Served().eval())):
        given = (torch.zeros(1, 1, 8, 8),)
        with quiet():
            torch.onnx.export(network, given, str(tiny.folder / f"{name}.onnx"), dynamo=False, opset_version=17)
    return tiny


def asked(project: Tiny, file: str) -> FileOrder:
    return FileOrder(
        project.folder / file,
        Request(model=project.net, weights=project.weights, data=str(project.data), input_shape=(1, 8, 8)),
    )


def test_a_file_that_computes_what_the_model_does_passes(project):
    found = verify_file(asked(project, "plain.onnx"))
    (one,) = found.files
    assert (found.failed, found.notes, found.change) == ((), (), None)
    assert one.artifact.precision == "fp32"
    assert one.accuracy is not None
    assert one.accuracy.share == found.accuracy.uncut.share
    assert one.accuracy.images == 40


def test_a_background_class_and_probabilities_are_read_as_what_they_are_and_said(project):
    found = verify_file(asked(project, "served.onnx"))
    assert not found.failed
    assert [note.partition(":")[0] for note in found.notes] == [
        "the file has 5 classes, the model 4",
        "the file gives probabilities",
    ]
    assert found.files[0].accuracy is not None
    assert found.files[0].accuracy.share == found.accuracy.uncut.share


def test_another_network_ends_with_5_and_the_document_says_so(project):
    proto = onnx.load(project.folder / "plain.onnx")
    for stored in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(stored)
        if values.ndim == 4 and values.shape[1] == 32:
            stored.CopyFrom(onnx.numpy_helper.from_array(-values, stored.name))
    onnx.save(proto, project.folder / "other.onnx")
    given = ("--model", project.net, "--weights", str(project.weights), "--data", str(project.data))
    ran = run_forked("verify", str(project.folder / "other.onnx"), *given, "--input", "1x8x8", "--json")
    assert ran.code == 5, ran.err
    document = json.loads(ran.out)
    (one,) = document["files"]
    assert (document["passed"], one["passed"]) == (False, False)
    assert one["divergence"]["layer"] == "second"
    assert "first tensor that diverges: " in ran.err
    assert "error: the file failed verification" in " ".join(ran.err.split())


def test_what_does_not_go_together_is_a_usage_error(project):
    file = str(project.folder / "plain.onnx")
    fault(run_here("verify", file), 2, "which one?", "--model")
    fault(run_here("verify", str(project.folder), "--model", "digits"), 2, "a run knows its model")
    fault(run_here("verify", file, "--model", "resnet20", "--data", str(project.data)), 2, "the file takes images of")
    fault(run_here("verify", str(project.folder / "none.onnx"), "--model", "digits"), 2, "no such file")


def test_the_precision_of_a_file_is_that_of_its_weights(project, tmp_path):
    assert kind_of(project.folder / "plain.onnx") == ("fp32", False)
    assert kind_of(project.folder / "served.onnx") == ("fp32", True)
    proto = onnx.load(project.folder / "plain.onnx")
    half = onnx.numpy_helper.from_array(np.zeros(1, np.float16), "half")
    proto.graph.initializer.append(half)
    onnx.save(proto, tmp_path / "half.onnx")
    assert kind_of(tmp_path / "half.onnx")[0] == "fp16"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / PUBLISHED).is_file(), reason=f"needs {PUBLISHED} in EDGEPRUNE_DATA")
def test_a_published_quantised_file_passes_beside_its_network():
    pytest.importorskip("ai_edge_litert", reason="needs the [tflite] extra")
    assert kind_of(DATA / PUBLISHED) == ("int8", True)
    weights, images = DATA / "mobilenet_v2_1.0_224_imagenet.safetensors", DATA / "imagenet_val1300_227.tar"
    found = verify_file(
        FileOrder(DATA / PUBLISHED, Request(model="mobilenet_v2_tf", weights=weights, data=str(images), images=12))
    )
    assert not found.failed
    assert len(found.notes) == 2
    parity = found.files[0].artifact.parity
    assert parity is not None
    assert (parity.images, parity.passed) == (12, True)
    assert parity.cosine is not None
    assert parity.cosine > 0.98


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / PUBLISHED).is_file(), reason=f"needs {PUBLISHED} in EDGEPRUNE_DATA")
def test_a_published_quantised_file_is_timed():
    pytest.importorskip("ai_edge_litert", reason="needs the [tflite] extra")
    ran = run_forked("bench", str(DATA / PUBLISHED), "--blocks", "6", "--threads", "1", "--json")
    assert ran.code in (0, 4), ran.err  # 4: this machine is busy
    (row,) = json.loads(ran.out)["devices"][0]["rows"]
    assert (Path(row["artifact"]).name, row["runtime"]) == (PUBLISHED, "litert")
    assert row["p50_ms"] > 0
