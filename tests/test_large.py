"""ONNX files whose weights are too large for them: a file beside each, and both go everywhere as one.

The limit is brought down to the size of small networks; `docs/precisions.md` tells of a network of real size.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import torch
from export_nets import COST, Outlier, Tiny, images_of, model_of
from package_runs import a_run, plain_wheels
from PIL import Image
from program_runs import fault, run_forked, run_here, tiny_project
from ssh_server import SSHD, SshServer
from test_mixed import exported as exported_with_a_goal
from told_race import Told
from torch import Tensor, nn

from edgeprune.artifact import Artifact
from edgeprune.bench.single import single_files
from edgeprune.bench.transport import open_device
from edgeprune.errors import ExportError, OutputError, ParityError, UsageError
from edgeprune.export import onnx_store, write
from edgeprune.export.calibration import calibration_of
from edgeprune.export.onnx import export_onnx
from edgeprune.export.onnx_layers import onnx_layers
from edgeprune.export.parity import check
from edgeprune.export.write import check_size
from edgeprune.files import sha256_of
from edgeprune.measurement import load_measurements
from edgeprune.package.choice import choose
from edgeprune.packaging import PackageOrder, package
from edgeprune.report.document import SCHEMA_FILE, Report
from edgeprune.target import load_target
from edgeprune.worker import infer, onboard, trtexec
from edgeprune.worker.onnx_header import read_header

HOST, NANO, RPI4 = load_target("host"), load_target("jetson-nano"), load_target("rpi4")
LIMIT = 20_000


class Wide(nn.Module):
    """Nearly all of its weights are one tensor: 147 kB in fp32, 74 kB in fp16, 37 kB in int8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
        self.head = nn.Linear(64, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.wide(torch.relu(self.stem(images)))).mean((2, 3)))


MODEL = model_of(Wide)


@pytest.fixture
def lowered(monkeypatch) -> None:
    monkeypatch.setattr(onnx_store, "LARGEST_WEIGHTS", LIMIT)


def low() -> None:
    """The same in a process of its own, for networks still smaller."""
    onnx_store.LARGEST_WEIGHTS = 4_000


def exported(out: Path, precision: str = "fp32", target=HOST) -> Artifact:
    shown = calibration_of(images_of(24)) if precision == "int8" else None
    return export_onnx(MODEL, COST, target, precision, out, shown)


@pytest.fixture
def run(monkeypatch, tmp_path) -> Path:
    """A finished run of a tiny network whose two ONNX files have their largest tensor beside them."""
    monkeypatch.setattr(onnx_store, "LARGEST_WEIGHTS", 1_000)
    return a_run(tmp_path / "run")


def content(path: Path) -> tuple[list[tuple], dict[str, tuple]]:
    """The nodes of a file and the numbers it holds, wherever they lie."""
    graph = onnx.load(path).graph
    stored = {one.name: (one.data_type, onnx.numpy_helper.to_array(one).tobytes()) for one in graph.initializer}
    return [(node.op_type, list(node.input), list(node.output)) for node in graph.node], stored


def spoil(path: Path) -> None:
    """Change the last weight of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("target", [HOST, NANO])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_too_large_for_one_file_lie_in_one_beside_it_and_the_network_is_the_same(
    tmp_path, monkeypatch, precision, target
):
    whole = exported(tmp_path / "whole.onnx", precision, target)
    monkeypatch.setattr(onnx_store, "LARGEST_WEIGHTS", LIMIT)
    parted = exported(tmp_path / "x.onnx", precision, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.onnx", "x.onnx", "x.onnx.data"]
    model, data = tmp_path / "x.onnx", tmp_path / "x.onnx.data"
    (beside,) = parted.beside
    assert (beside.path, beside.sha256, beside.bytes) == (data.name, sha256_of(data), data.stat().st_size)
    assert (parted.sha256, parted.bytes) == (sha256_of(model), model.stat().st_size + data.stat().st_size)
    assert data.stat().st_mode == model.stat().st_mode
    assert whole.beside == ()
    assert whole.details == parted.details
    assert content(tmp_path / "whole.onnx") == content(model)
    assert check(parted, tmp_path, MODEL, images_of(8)).parity == check(whole, tmp_path, MODEL, images_of(8)).parity


def test_only_a_precision_that_is_too_large_is_parted(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_store, "LARGEST_WEIGHTS", 100_000)
    found = {precision: exported(tmp_path / f"{precision}.onnx", precision) for precision in ("fp32", "fp16", "int8")}
    assert {precision: len(one.beside) for precision, one in found.items()} == {"fp32": 1, "fp16": 0, "int8": 0}


def test_the_limit_leaves_room_for_the_graph_in_what_protobuf_holds():
    assert onnx.checker.MAXIMUM_PROTOBUF - 200_000_000 < onnx_store.LARGEST_WEIGHTS < onnx.checker.MAXIMUM_PROTOBUF


@pytest.mark.usefixtures("lowered")
def test_the_same_model_gives_the_same_bytes_and_the_onnx_file_vouches_for_its_weights(tmp_path):
    one, same = (exported(tmp_path / folder / "x.onnx") for folder in ("one", "two"))
    assert one == same
    told = {prop.key: prop.value for prop in onnx.load(tmp_path / "one" / "x.onnx").metadata_props}
    assert told["weights_sha256"] == one.beside[0].sha256
    other = model_of(Wide)
    with torch.no_grad():
        other.module.wide.weight[0, 0, 0, 0] += 1
    assert export_onnx(other, COST, HOST, "fp32", tmp_path / "x.onnx").sha256 != one.sha256


@pytest.mark.usefixtures("lowered")
def test_both_files_are_written_or_none(tmp_path, monkeypatch):
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(OutputError):
        exported(tmp_path / "x.onnx")
    assert [path.name for path in tmp_path.rglob("*")] == ["x.onnx"]

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx.external_data_helper.save_external_data", full)
    with pytest.raises(OutputError, match="the disk is full"):
        exported(tmp_path / "y.onnx")
    assert [path.name for path in tmp_path.rglob("*")] == ["x.onnx"]


@pytest.mark.usefixtures("lowered")
def test_a_manifest_tells_of_the_weights_and_one_of_a_whole_file_is_as_it_was(tmp_path):
    one = exported(tmp_path / "x.onnx")
    one.save_manifest(tmp_path)
    assert Artifact.load_manifest(tmp_path / "x.onnx.json") == one
    assert "beside" not in replace(one, beside=()).to_json()


@pytest.mark.usefixtures("lowered")
def test_layers_in_float_are_searched_and_raced_in_large_files_as_in_others(tmp_path, monkeypatch):
    whole = exported_with_a_goal(Outlier, 2.0, tmp_path / "whole.onnx")
    monkeypatch.setattr(onnx_store, "LARGEST_WEIGHTS", 1_000)
    parted = exported_with_a_goal(Outlier, 2.0, tmp_path / "x.onnx")
    assert parted.details["mixed"] == whole.details["mixed"]
    assert parted.beside
    assert not whole.beside
    race = Told({"stem": (0.1, 0.4), "wide": (0.9, 0.4), "head": (0.1, 0.4)})
    raced = export_onnx(
        MODEL, COST, HOST, "int8", tmp_path / "y.onnx", replace(calibration_of(images_of(24)), race=race)
    )
    assert raced.details["race"]["in_float"] == ["wide"]
    assert all(len(file) < LIMIT for _, *files in race.raced for file in files)


def test_what_layers_put_out_is_read_from_both_forms_alike(tmp_path, monkeypatch):
    exported(tmp_path / "whole.onnx")
    monkeypatch.setattr(onnx_store, "LARGEST_WEIGHTS", LIMIT)
    exported(tmp_path / "x.onnx")
    whole, parted = (onnx_layers(tmp_path / name, images_of(2)) for name in ("whole.onnx", "x.onnx"))
    assert (
        [one.weight for one in whole] == [one.weight for one in parted] == ["stem.weight", "wide.weight", "head.weight"]
    )
    for one, other in zip(whole, parted, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-6)


@pytest.mark.slow
def test_compress_and_verify_take_both_files_for_one(tmp_path):
    tiny, run = tiny_project(tmp_path), tmp_path / "run"
    asked = ("--ratio", "0.5", "--formats", "onnx", "--precisions", "int8", "--no-bench", "--out", str(run))
    ran = run_forked(*tiny.compress(*asked), before=low)
    assert ran.code == 0, ran.err
    document = json.loads((run / "report.json").read_text())
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    names = [f"{role}-{precision}.onnx" for precision in ("fp32", "int8") for role in ("baseline", "pruned")]
    assert [(one["path"], one["beside"][0]["path"]) for one in document["artifacts"]] == [
        (name, f"{name}.data") for name in names
    ]
    for one in document["artifacts"]:
        beside = one["beside"][0]
        data = run / beside["path"]
        assert (beside["sha256"], beside["bytes"]) == (sha256_of(data), data.stat().st_size)
        assert one["bytes"] == data.stat().st_size + (run / one["path"]).stat().st_size
        assert json.loads((run / f"{one['path']}.json").read_text())["beside"] == one["beside"]
    assert Report.load(run / "report.json").artifacts[0].beside[0].path == "baseline-fp32.onnx.data"
    ran = run_forked("verify", str(run))
    assert ran.code == 0, ran.err
    spoil(run / "pruned-fp32.onnx.data")
    (run / "baseline-int8.onnx.data").unlink()
    ran = run_forked("verify", str(run))
    assert ran.code == 5
    said = " ".join(ran.out.split())
    assert "pruned-fp32.onnx: pruned-fp32.onnx.data, which belongs beside it, changed since it was written" in said
    assert "baseline-int8.onnx: baseline-int8.onnx.data, which belongs beside it, is missing" in said


@pytest.mark.parametrize("hurt", [spoil, Path.unlink])
def test_a_run_with_other_weights_beside_a_file_is_refused_as_one_with_another_file(run, hurt):
    hurt(run / "pruned-fp32.onnx.data")
    fault(run_here("bench", str(run)), 2, "not the file of the run any more", "pruned-fp32.onnx.data")
    with pytest.raises(UsageError, match="missing, or its manifest") as caught:
        choose(run, Report.load(run / "report.json"), RPI4)
    assert caught.value.where.endswith("pruned-fp32.onnx.data")


def test_a_file_whose_weights_are_gone_does_not_pass_parity(run):
    (artifact, _) = Report.load(run / "report.json").artifacts
    (run / "baseline-fp32.onnx.data").unlink()
    with pytest.raises(ParityError, match=r"baseline-fp32\.onnx"):
        check(artifact, run, model_of(Tiny), images_of(4))


@pytest.mark.slow
def test_a_run_is_timed_here_with_the_weights_beside_its_files(run):
    ran = run_here("bench", str(run), "--threads", "1", "--blocks", "6", "--json")
    assert ran.code in (0, 4), ran.err  # this machine may be busy
    assert len(load_measurements(run / "measurements.jsonl")) == 2


@pytest.fixture
def server(tmp_path, monkeypatch):
    if not Path(SSHD).exists() or not shutil.which("ssh"):
        pytest.skip("openssh-server is not installed")
    server = SshServer(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{server.folder}/bin:{os.environ['PATH']}")
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_the_weights_travel_to_a_board_with_their_file(run, server):
    ran = run_here("bench", str(run), "--device", server.device, "--threads", "1", "--blocks", "6", "--json")
    assert ran.code in (0, 4), ran.err
    (device,) = json.loads(ran.out)["devices"]
    assert [row["device_parity"]["passed"] for row in device["rows"]] == [True, True]
    assert not list(server.cache.glob("run-*"))


def test_the_same_file_with_other_weights_does_not_meet_the_first_on_a_board(server, tmp_path):
    (tmp_path / "x.onnx").write_text("a graph")
    (tmp_path / "w").mkdir()
    with open_device(server.device) as board:
        places = []
        for weights in ("one", "two"):
            (tmp_path / "w" / "x.data").write_text(weights)
            places.append(Path(board.put(tmp_path / "x.onnx", "w/x.data")))
        assert [(place.parent / "w" / "x.data").read_text() for place in places] == ["one", "two"]
        assert [place.read_text() for place in places] == ["a graph", "a graph"]


def test_a_bundle_carries_and_checks_the_weights(run, tmp_path):
    out = tmp_path / "bundle"
    package(PackageOrder(run, "rpi4", out=out, wheels=plain_wheels(tmp_path / "wheels")))
    name = "pruned-fp32.onnx.data"
    assert f"{sha256_of(run / name)}  {name}" in (out / "SHA256SUMS").read_text().splitlines()
    assert onboard.check(onboard.Bundle(out))["passed"]
    again = tmp_path / "again"
    package(PackageOrder(run, "rpi4", out=again, wheels=tmp_path / "wheels"))
    assert (again / "SHA256SUMS").read_bytes() == (out / "SHA256SUMS").read_bytes()
    spoil(out / name)
    with pytest.raises(onboard.BundleError, match=rf"{name} is not the file that was packaged"):
        onboard.Bundle(out)


def test_the_script_beside_the_files_opens_and_checks_the_weights(run, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)).save(photo)
    assert infer.main([str(run / "pruned-fp32.onnx"), str(photo), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["best"]) == 5
    spoil(run / "pruned-fp32.onnx.data")
    assert infer.main([str(run / "pruned-fp32.onnx"), str(photo)]) == 2
    assert "pruned-fp32.onnx.data is not the file" in capsys.readouterr().err


@pytest.mark.usefixtures("lowered")
def test_files_named_one_by_one_are_told_apart_by_their_weights_too(tmp_path):
    exported(tmp_path / "x.onnx")
    (one,) = single_files([tmp_path / "x.onnx"])
    assert one.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    digests = [sha256_of(tmp_path / name) for name in ("x.onnx", "x.onnx.data")]
    assert one.sha256 == sha256("".join(digests).encode()).hexdigest()
    header = read_header(str(tmp_path / "x.onnx"))
    assert header.beside == ("x.onnx.data",)
    engine = trtexec._engine_name(str(tmp_path / "x.onnx"), header, (8, 2, 1), [])
    spoil(tmp_path / "x.onnx.data")
    (other,) = single_files([tmp_path / "x.onnx"])
    assert other.sha256 != one.sha256
    assert trtexec._engine_name(str(tmp_path / "x.onnx"), header, (8, 2, 1), []) != engine


@pytest.mark.usefixtures("lowered")
@pytest.mark.parametrize("place", ["gone.data", "../x.onnx.data", "/x.onnx.data"])
def test_weights_that_are_not_beside_a_named_file_are_an_error(tmp_path, place):
    exported(tmp_path / "in" / "x.onnx")
    proto = onnx.load(tmp_path / "in" / "x.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    (tmp_path / "in" / "y.onnx").write_bytes(proto.SerializeToString())
    shutil.copyfile(tmp_path / "in" / "x.onnx.data", tmp_path / "x.onnx.data")
    with pytest.raises(UsageError, match="which is not beside it") as caught:
        single_files([tmp_path / "in" / "y.onnx"])
    assert "one folder" in caught.value.fix


def test_a_model_too_large_for_tflite_is_refused_before_any_work_and_onnx_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "LARGEST_BYTES", 2_000)
    with pytest.raises(ExportError, match="a TFLite file holds") as caught:
        check_size(model_of(Tiny), ("onnx", "tflite"))
    assert "--formats onnx" in caught.value.fix
    check_size(model_of(Tiny), ("onnx",))
    project = tiny_project(tmp_path)
    pytest.importorskip("litert_torch", reason="needs the [tflite] extra", exc_type=ImportError)
    ran = run_here(*project.compress("--formats", "onnx,tflite", "--out", str(tmp_path / "run")))
    assert "images" not in fault(ran, 2, "a TFLite file holds")
    assert not (tmp_path / "run").exists()


def test_an_export_tells_how_far_it_is(tmp_path):
    told: list[tuple[int, int]] = []
    export_onnx(model_of(Tiny), COST, HOST, "fp32", tmp_path / "x.onnx", tick=lambda *now: told.append(now))
    assert told == [(step, 5) for step in range(1, 6)]
