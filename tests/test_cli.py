"""The command line's contracts: data on stdout, talk on stderr, one JSON document, nothing written unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program_runs import (
    Tiny,
    environment,
    fingerprint,
    run_forked,
    run_here,
    run_python,
)

import edgeprune
from edgeprune.files import sha256_of
from edgeprune.plan import PruningPlan
from edgeprune.report.document import Report

HEAVY = ["torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "litert_torch", "sklearn", "scipy", "PIL", "numpy"]
QUICK = ("--formats", "onnx", "--no-bench")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is light stays light


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("compress", "--help"), ("sweep", "--help"), ("inspect", "--help"), ()]
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    start = (
        "import sys\n"
        f"sys.argv = ['edgeprune', *{arguments!r}]\n"
        "from edgeprune.cli import _run\n"
        "_run()\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = run_python(["-c", start])
    assert ran.err.splitlines()[-1] == "heavy: []"
    assert ran.out


def test_help_answers_within_half_a_second_of_computing() -> None:
    start = (
        "import time, sys\n"
        "sys.argv = ['edgeprune', '--help']\n"
        "from edgeprune.cli import _run\n"
        "_run()\n"
        "print(time.process_time(), file=sys.stderr)\n"
    )
    seconds = [float(run_python(["-c", start]).err.splitlines()[-1]) for _ in range(3)]
    assert min(seconds) < 0.5, seconds


@pytest.mark.parametrize("arguments", [("devices",), ("models",), ("report", "--help")])
def test_looking_things_up_imports_no_torch(arguments: tuple[str, ...]) -> None:
    start = (
        "import sys\n"
        f"sys.argv = ['edgeprune', *{arguments!r}]\n"
        "from edgeprune.cli import _run\n"
        "code = _run()\n"
        "print(code, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    assert run_python(["-c", start]).err.splitlines()[-1] == "0 False"


def test_importing_the_package_imports_none_of_it() -> None:
    start = "import edgeprune, sys; print([name for name in sys.modules if name.startswith(('edgeprune.', 'torch'))])"
    assert run_python(["-c", start]).out == "[]\n"


def test_without_a_command_the_help_is_printed_and_the_exit_code_is_2() -> None:
    ran = run_here()
    assert ran.code == 2
    assert "compress" in ran.out + ran.err
    assert "error" not in ran.err


def test_version_is_that_of_the_package() -> None:
    assert run_here("--version").out == f"{edgeprune.__version__}\n"


# JSON


@pytest.mark.parametrize(
    ("arguments", "key", "name"),
    [
        (("devices",), "devices", "jetson-nano"),
        (("models",), "models", "resnet56"),
        (("criteria",), "criteria", "qsfm"),
    ],
)
def test_a_list_is_one_document_or_a_table_of_the_same_names(arguments: tuple[str, ...], key: str, name: str) -> None:
    ran = run_here(*arguments, "--json")
    document = json.loads(ran.out)
    assert (ran.code, ran.err, document["schema"]) == (0, "", 1)
    names = [row["name"] for row in document[key]]
    assert name in names
    table = run_here(*arguments).out
    assert all(each in table for each in names)


def test_one_board_is_shown_with_the_source_of_each_fact() -> None:
    document = json.loads(run_here("devices", "show", "rpi4", "--json").out)
    assert (document["schema"], document["name"]) == (1, "rpi4")
    assert all(fact["source"] for fact in document["facts"].values())
    assert "rpi4" in run_here("devices", "show", "rpi4").out


def test_a_speed_up_on_a_board_that_is_not_at_hand_is_predicted_and_called_so(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = run_forked(*tiny.compress("--speedup", "1.1", *QUICK, "--scope", "all", "--out", str(out)))
    assert ran.code == 0, ran.err
    assert "PREDICTED, not measured: 1." in ran.err
    assert "on Raspberry Pi 4 Model B with 4 threads, from latencies of other networks (ncnn benchmark" in ran.err
    report = json.loads((out / "report.json").read_text())
    assert report["budget"]["asked"] == {"speedup": 1.1}
    assert report["budget"]["predicted"]["speedup"] >= 1.1
    assert 0 < report["budget"]["predicted"]["error"] < 0.2
    assert "PREDICTED" in (out / "report.md").read_text()
    assert " ms" not in ran.out


def test_a_dry_run_prints_the_plan_and_writes_nothing(place: Path, tiny: Tiny) -> None:
    before = fingerprint(place), fingerprint(tiny.folder)
    ran = run_forked(*tiny.compress("--dry-run", "--json"))
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    plan = PruningPlan.from_json(document)
    assert document["schema"] == 1
    assert 0 < plan.macs_kept < 1
    assert all(len(kept) < plan.sizes[name] for name, kept in plan.keep.items())
    table = run_forked(*tiny.compress("--dry-run"))
    assert "Nothing was written" in table.out
    for name in plan.sizes:
        assert name in table.out
    assert (fingerprint(place), fingerprint(tiny.folder)) == before


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> tuple[Path, dict[str, Any]]:
    """One run of a user's model, ONNX only, without bench: its folder, and the document it printed."""
    folder = tmp_path_factory.mktemp("quick") / "run"
    ran = run_forked(*tiny.compress("--out", str(folder), "--json", *QUICK))
    assert ran.code == 0, ran.err
    return folder, json.loads(ran.out)  # nothing but the document on stdout


def test_compress_prints_its_report_as_json_and_nothing_else(quick: tuple[Path, dict[str, Any]]) -> None:
    folder, document = quick
    assert document["schema"] == 1
    assert document == json.loads((folder / "report.json").read_text())


def test_report_prints_it_again(quick: tuple[Path, dict[str, Any]]) -> None:
    folder, document = quick
    assert json.loads(run_here("report", str(folder), "--json").out) == document
    assert "pruned-fp32.onnx" in run_here("report", str(folder)).out


def test_the_report_says_what_was_typed(quick: tuple[Path, dict[str, Any]]) -> None:
    command = quick[1]["command"]
    assert command[:2] == ["edgeprune", "compress"]
    assert "--no-bench" in command


@pytest.mark.slow
def test_the_same_seed_gives_the_same_plan_and_the_same_bytes(quick: tuple[Path, dict[str, Any]], tiny: Tiny) -> None:
    folder = quick[0]
    again = folder.with_name("again")
    ran = run_forked(*tiny.compress("--out", str(again), *QUICK))
    assert ran.code == 0, ran.err
    assert PruningPlan.load(folder / "plan.json") == PruningPlan.load(again / "plan.json")
    for name in ("baseline-fp32.onnx", "pruned-fp32.onnx", "pruned.safetensors"):
        assert sha256_of(folder / name) == sha256_of(again / name), name


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_of_tflite(place: Path, tiny: Tiny) -> None:
    for name in ("one", "two"):
        ran = run_forked(*tiny.compress("--out", name, "--formats", "tflite", "--no-bench"))
        assert ran.code == 0, ran.err
    for name in ("baseline-fp32.tflite", "pruned-fp32.tflite"):
        assert sha256_of(place / "one" / name) == sha256_of(place / "two" / name), name


def test_the_plan_of_a_run_gives_the_same_filters_again(quick: tuple[Path, dict[str, Any]], tiny: Tiny) -> None:
    ran = run_forked(*tiny.compress("--plan", str(quick[0] / "plan.json"), "--dry-run", "--json"))
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == json.loads((quick[0] / "plan.json").read_text())


def test_the_plan_of_a_dry_run_is_that_of_the_run(quick: tuple[Path, dict[str, Any]], tiny: Tiny) -> None:
    ran = run_forked(*tiny.compress("--dry-run", "--json"))
    assert json.loads(ran.out)["keep"] == json.loads((quick[0] / "plan.json").read_text())["keep"]


# Streams


@pytest.mark.slow
def test_talk_is_on_stderr_without_bars_or_colours_when_it_is_no_terminal(place: Path, tiny: Tiny) -> None:
    ran = run_forked(*tiny.compress("--recover", "none", *QUICK))
    assert ran.code == 0, ran.err
    assert "Everything is in runs/net-rpi4" in ran.err
    assert (place / "runs" / "net-rpi4" / "report.json").is_file()
    assert "\x1b" not in ran.out + ran.err
    assert "━" not in ran.err
    assert "\r" not in ran.err
    assert "Everything is in" not in ran.out
    assert "Accuracy" in ran.out


@pytest.mark.slow
def test_no_color_is_honoured_on_a_terminal(place: Path) -> None:
    told = {"NO_COLOR": "1", "TERM": "xterm-256color"}
    plain, coloured = _on_terminal(told), _on_terminal({"TERM": "xterm-256color"})
    assert "\x1b[31m" not in plain
    assert "31m" in coloured
    assert "unknown model 'resnet65'" in plain


def _on_terminal(more: dict[str, str]) -> str:
    """What a failing run prints on a terminal of its own."""
    ours, theirs = os.openpty()
    argv = [sys.executable, "-m", "edgeprune", "compress", "resnet65"]
    try:
        subprocess.run(argv, env=environment(**more), stdout=theirs, stderr=theirs, stdin=theirs, check=False)
        return os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("arguments", [("devices",), ("devices", "--json"), ("--help",), ("models", "--json")])
def test_a_reader_that_goes_away_ends_the_program_quietly(arguments: tuple[str, ...]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)  # `| head` that has seen enough
    argv = [sys.executable, "-m", "edgeprune", *arguments]
    try:
        done = subprocess.run(
            argv, env=environment(), stdout=theirs, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_model_that_prints_does_not_spoil_the_document(place: Path, tiny: Tiny) -> None:
    loud = (
        (tiny.folder / "net.py")
        .read_text()
        .replace("def forward(self, x):", "def forward(self, x):\n        print('loud')")
    )
    (place / "loud.py").write_text(loud)
    ran = run_forked("compress", "loud.py:build", "--data", str(tiny.data), "--input", "1x8x8", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["schema"] == 1


def test_the_demo_says_that_it_is_one_and_how_to_pass_a_model(place: Path) -> None:
    ran = run_forked("compress", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert "demo" in ran.err
    assert "--weights" in ran.err
    assert "demo" not in ran.out


# Images


@pytest.mark.parametrize("same", [pytest.param(True, marks=pytest.mark.slow), False], ids=["same", "spelled otherwise"])
def test_calibration_images_are_never_scored(place: Path, tiny: Tiny, same: bool) -> None:
    """The same file for both: some of its images calibrate, only the others are scored."""
    other = f"{tiny.folder}/../{tiny.folder.name}/{tiny.data.name}"
    given = ("--calibration-data", str(tiny.data) if same else other, "--calibration-images", "15", "--out", "run")
    ran = run_forked(*tiny.compress(*given, "--recover", "none", *QUICK))
    assert ran.code == 0, ran.err
    report = Report.load(place / "run" / "report.json")
    assert report.data.calibration is not None
    assert report.data.scoring is not None
    assert (report.data.calibration.images, report.data.scoring.images) == (15, 25)
    assert same or any("also calibration images" in line for line in report.run.warnings)


@pytest.mark.slow
def test_without_labels_the_agreement_with_the_uncut_model_is_told(place: Path, tiny: Tiny) -> None:
    np.savez(place / "images.npz", images=np.load(tiny.data)["images"])
    ran = run_forked(*tiny.compress("--data", "images.npz", "--out", "run", "--recover", "none", "--json", *QUICK))
    assert ran.code == 0, ran.err
    accuracy = json.loads(ran.out)["accuracy"]
    assert accuracy["metric"] == "agreement"
    assert accuracy["baseline"] == 1.0
    assert 0 <= accuracy["after_cut"] <= 1
