"""What a packaged model prints on the board: the zip file beside its bundle, run by a Python that has the runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from package_runs import a_run, plain_wheels
from PIL import Image

from edgeprune.data import InputSpec
from edgeprune.packaging import PackageOrder, package
from edgeprune.worker import infer, latency, onboard
from edgeprune.worker.onboard import Bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onboard")
    order = PackageOrder(a_run(folder / "run"), "host", out=folder / "bundle", wheels=plain_wheels(folder / "wheels"))
    return package(order).place


@pytest.fixture
def bundle(pristine, tmp_path) -> Path:
    """A bundle that may be spoilt."""
    return shutil.copytree(pristine, tmp_path / "bundle")


@pytest.fixture
def emulated(monkeypatch):
    facts = {"cpu": "Cortex-A72", "cores": 4, "emulated": True, "emulated_by": "qemu-aarch64 in its memory"}
    monkeypatch.setattr(onboard.sensors, "facts", lambda _: facts)


def on_board(bundle: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, bundle / "edgeprune.pyz", *words], capture_output=True, text=True, check=False, cwd="/"
    )


def answer(bundle: Path, words: list[str], monkeypatch, capsys) -> tuple[int, str]:
    """The same within this process."""
    monkeypatch.setattr(sys, "argv", [str(bundle / "edgeprune.pyz"), *words])
    with pytest.raises(SystemExit) as ended:
        onboard.main()
    return int(ended.value.code), capsys.readouterr().out


def test_the_packaged_image_gives_what_it_gave_on_the_host(pristine):
    ran = on_board(pristine, "check", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["passed"], told["max_rel"], told["runtime"]) == (True, 0.0, "onnxruntime")


def test_another_output_than_the_hosts_has_an_exit_code_of_its_own(bundle):
    np.save(bundle / "expected.npy", np.load(bundle / "expected.npy") + 0.1)
    ran = on_board(bundle, "check")
    assert ran.returncode == 5
    assert "DOES NOT COMPUTE WHAT THE HOST COMPUTES" in ran.stdout


def test_another_model_than_the_packaged_one_is_refused(bundle):
    (bundle / "pruned-fp32.onnx").write_bytes(b"junk")
    ran = on_board(bundle, "check")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: pruned-fp32.onnx is not the file that was packaged: copy the bundle anew\n"
    (bundle / "bundle.json").unlink()
    assert "cannot read the bundle" in on_board(bundle, "check").stderr


def test_without_a_word_it_measures_in_processes_of_its_own(pristine):
    ran = on_board(pristine, "--json", "--threads", "1", "--blocks", "2")
    assert ran.returncode in (0, 4), ran.stderr  # 4 where other programs keep this machine busy
    told = json.loads(ran.stdout)
    (row,) = told["rows"]
    assert (row["threads"], row["blocks"]) == (1, 2)
    assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert told["check"]["passed"] is True


def test_under_an_emulator_no_time_is_told(pristine, emulated, monkeypatch, capsys):
    code, said = answer(pristine, [], monkeypatch, capsys)
    assert code == 4
    assert said.splitlines()[-1] == "emulated (qemu-aarch64 in its memory): functional, not timed"
    assert "ms" not in said
    code, said = answer(pristine, ["report", "--json"], monkeypatch, capsys)
    assert (code, json.loads(said)["rows"]) == (4, [])
    assert "_ms" not in said


def test_a_photo_gives_the_classes_in_order(pristine, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    ran = on_board(pristine, "infer", str(tmp_path / "photo.png"), "--json")
    assert ran.returncode == 0, ran.stderr
    best = json.loads(ran.stdout)["best"]
    values = [one["value"] for one in best]
    assert sorted(one["class"] for one in best) == [0, 1, 2, 3, 4]
    assert values == sorted(values, reverse=True)
    wanted = InputSpec.from_json(Bundle(pristine).facts["input"])
    image = wanted.normalise(infer.decode((tmp_path / "photo.png").read_bytes(), wanted.shape)[None])
    expected, _ = Bundle(pristine).output(image)
    assert values == sorted(expected, reverse=True)


def test_a_class_is_told_by_its_name_where_it_has_one(bundle, tmp_path):
    Image.new("RGB", (10, 12), (200, 30, 90)).save(tmp_path / "photo.png")
    facts = json.loads((bundle / "bundle.json").read_text())
    names = ["ant", "bee", "cat", "dog", "elk"]
    (bundle / "bundle.json").write_text(json.dumps({**facts, "classes": names}))
    best = json.loads(on_board(bundle, "infer", str(tmp_path / "photo.png"), "--json").stdout)["best"]
    assert [one["name"] for one in best] == [names[one["class"]] for one in best]
    told = on_board(bundle, "infer", str(tmp_path / "photo.png")).stdout.splitlines()
    assert [line.partition(":")[0] for line in told] == [one["name"] for one in best]


def test_what_is_no_photo_is_told(pristine):
    ran = on_board(pristine, "infer", str(pristine / "bundle.json"))
    assert ran.returncode == 2
    assert "bundle.json as a photo" in ran.stderr


def test_the_interval_of_the_median_is_that_of_order_statistics():
    # n=16: P(X <= 3) = 0.0106, P(X <= 4) = 0.0384 for X ~ Binomial(16, 1/2): the 4th smallest and the 4th largest.
    assert latency.median_interval(list(range(1, 17))) == (4, 13)
    assert latency.median_interval([5, 1, 2, 3, 4, 6]) == (1, 6)
    assert latency.median_interval([1, 2, 3, 4, 5]) is None


def block(milliseconds: float, throttled: int) -> dict:
    return {"samples_ns": [int(milliseconds * 1e6)] * 3, "sensors": {"throttled": throttled}}


def test_tainted_blocks_are_left_out_unless_they_are_too_many():
    good, bad = [block(10, 0)] * 9, [block(30, 0x4)]
    row = latency.row(1, [*good, *bad], {"throttled": 0})
    assert (row["p99_ms"], row["blocks"], row["tainted"], row["trusted"]) == (10, 9, {"THROTTLED": 1}, True)
    row = latency.row(1, [*good, *(bad * 9)], {"throttled": 0})
    assert (row["blocks"], row["trusted"], row["p90_ms"]) == (18, False, 30)
