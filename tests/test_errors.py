"""When things go wrong: a message of one screen (what, where, what to do), the exit code, and nothing half-written."""

from __future__ import annotations

import io
import os
import pickle
import resource
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from program_runs import (
    ONE_SCREEN,
    REPOSITORY,
    Ran,
    Tiny,
    fault,
    fingerprint,
    run_forked,
    run_here,
    run_program,
    run_python,
)

from edgeprune.errors import EdgepruneError

QUICK = ("--formats", "onnx", "--no-bench", "--recover", "none")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's current folder. Whatever goes wrong, it is afterwards as the test left it before the run."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name or "replaced" in path.name]


def refused(place: Path, code: int, arguments: tuple[str, ...], *said: str) -> str:
    """Run a command line that must fail and leave the current folder as it was; the message."""
    before = fingerprint(place)
    message = fault(run_here(*arguments), code, *said)
    assert fingerprint(place) == before
    return message


def images_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


# Names and options


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compress", "resnet65"), ("unknown model 'resnet65'", "Did you mean 'resnet56'?", "mobilenet_v2_tf")),
        (("compress", "--criterion", "qsmf"), ("unknown criterion 'qsmf'", "Did you mean 'qsfm'?", "l1")),
        (("compress", "--target", "rpi44"), ("unknown target 'rpi44'", "Did you mean 'rpi4'?", "jetson-nano")),
        (("devices", "show", "rpi44"), ("unknown target 'rpi44'", "Did you mean 'rpi4'?")),
        (("compress", "--formats", "onxx"), ("unknown format 'onxx'", "Did you mean 'onnx'?")),
        (("compress", "--recover", "recontruct"), ("recontruct", "Did you mean 'reconstruct'?")),
        (("compress", "--scope", "outer"), ("outer", "inner")),
        (("compress", "--criterion-option", "metrik=psnr"), ("metrik", "Did you mean 'metric'?")),
        (("compress", "--criterion-option", "metric"), ("KEY=VALUE",)),
        (("compress", "--taget", "rpi4"), ("--taget", "--target")),
        (("compres",), ("compres", "compress")),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_one(
    place: Path, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    refused(place, 2, arguments, *said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ratio", "1.0"), "--ratio must lie between 0 and 1"),
        (("--ratio", "-0.1"), "--ratio must lie between 0 and 1"),
        (("--ratio", "nan"), "--ratio must lie between 0 and 1"),
        (("--macs", "0"), "--macs must lie between 0 and 1"),
        (("--macs", "inf"), "--macs must lie between 0 and 1"),
        (("--ratio", "a third"), "--ratio"),
        (("--ratio", "0.3", "--macs", "0.5"), "exclude each other"),
        (("--plan", "plan.json", "--macs", "0.5"), "exclude each other"),
        (("--speedup", "1.5", "--macs", "0.5"), "exclude each other"),
        (("--latency", "30ms"), "--latency is solved on times measured on the board"),
        (("--speedup", "1.5", "--target", "rpi5"), "no time can be predicted for Raspberry Pi 5"),
        (("--table", "board.json"), "a --table is for --speedup, --latency or --max-drop alone"),
        (("--max-drop", "1", "--macs", "0.5"), "--max-drop is what int8 may cost, which is not asked for"),
        (("--max-drop", "100"), "--max-drop must be from 0 to below 100"),
        (("--max-drop", "1", "--target", "rpi5"), "no time can be predicted for Raspberry Pi 5"),
        (("--latency", "30"), "--latency must be a time as 30ms or 0.2s, got '30'"),
        (("--latency", "0ms", "--table", "board.json"), "--latency must be above 0"),
        (("--latency", "30ms", "--speedup", "2"), "exclude each other"),
        (("--device", "ssh://-oProxy"), "is not a device"),
        (("--device", "cuda"), "--device says where to measure, not cuda"),
        (("--device", "local", "--no-bench"), "--device says where to measure, --no-bench not to"),
        (("--speedup", "2", "--table", "no-such.json"), "no-such.json"),
        (("--speedup", "0.9", "--table", "board.json"), "--speedup must be a number above 1, got 0.9"),
        (("--input", "224"), "--input"),
        (("--input", "3x0x224"), "--input"),
        (("--mean", "a,b"), "--mean"),
        (("--std", "0"), "std"),
        (("--seed", "-1"), "--seed"),
        (("--images", "0"), "--images"),
        (("--calibration-images", "0"), "--calibration-images"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_option_named(
    place: Path, arguments: tuple[str, ...], said: str
) -> None:
    refused(place, 2, ("compress", *arguments), said)


# Models and weights


def test_a_missing_file_of_weights_is_named(place: Path, tiny: Tiny) -> None:
    refused(place, 2, tiny.compress("--weights", "gone.safetensors"), "no such file", "gone.safetensors", "--weights")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_safetensors_are_refused(place: Path, tiny: Tiny, share: float) -> None:
    whole = tiny.weights.read_bytes()
    (place / "torn.safetensors").write_bytes(whole[: int(share * len(whole))])
    refused(place, 2, tiny.compress("--weights", "torn.safetensors"), "torn.safetensors", "Copy it again")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_state_dict_is_refused(place: Path, tiny: Tiny, share: float) -> None:
    stream = io.BytesIO()
    torch.save({"first.weight": torch.zeros(32, 1, 3, 3)}, stream)
    (place / "torn.pt").write_bytes(stream.getvalue()[: int(share * len(stream.getvalue()))])
    refused(place, 2, tiny.compress("--weights", "torn.pt"), "torn.pt")


def test_weights_of_another_architecture_are_refused_with_the_missing_and_surplus_names(
    place: Path, tiny: Tiny
) -> None:
    digits = REPOSITORY / "models" / "digits.safetensors"
    message = refused(place, 2, tiny.compress("--weights", str(digits)), "9 missing: first.weight", "37 surplus")
    assert "another architecture" in message


class RunsCode:
    """A pickle that leaves a file behind when it is opened without care."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, (f"touch {self.trace}",)


def test_a_pickle_that_wants_to_run_code_is_not_opened(place: Path, tiny: Tiny) -> None:
    (place / "evil.pt").write_bytes(pickle.dumps({"first.weight": RunsCode(place / "it-ran")}))
    refused(place, 2, tiny.compress("--weights", "evil.pt"), "evil.pt", "save_file")
    torch.save({"first.weight": RunsCode(place / "it-ran")}, place / "evil.pt")
    refused(place, 2, tiny.compress("--weights", "evil.pt"), "wants to run code", "system", "save_file")
    assert not (place / "it-ran").exists()


def test_an_input_size_that_the_network_rejects_is_named(place: Path, tiny: Tiny) -> None:
    refused(place, 2, tiny.compress("--input", "1x9x9"), "does not take an input of 1x9x9", "net.py:build", "--input")


def test_a_model_of_the_users_own_needs_its_input_size(place: Path, tiny: Tiny) -> None:
    refused(place, 2, ("compress", tiny.net, "--data", str(tiny.data)), "input size", "--input")


def test_an_error_in_the_users_model_file_is_quoted_with_its_line(place: Path) -> None:
    (place / "net.py").write_text("import torch\n\ndef build():\n    return torch.nn.Conv2d(1, 0 / 0, 3)\n")
    arguments = ("compress", "net.py:build", "--input", "1x8x8", "--data", "x.npz")
    refused(place, 2, arguments, "ZeroDivisionError", "net.py, line 4")


def test_a_model_that_cannot_be_traced_is_refused_with_the_line_named(place: Path, tiny: Tiny) -> None:
    undecided = tiny.net.replace(":build", ":Undecided")
    arguments = ("compress", undecided, "--data", str(tiny.data), "--input", "1x8x8")
    before = fingerprint(place)
    ran = run_forked(*arguments)
    line = (tiny.folder / "net.py").read_text().splitlines().index("        if x.sum() > 0:") + 1
    fault(ran, 2, "cannot be traced", f'net.py", line {line}')
    assert fingerprint(place) == before


# Budgets and plans


def test_a_budget_out_of_reach_is_a_missed_goal_and_names_one_that_works(place: Path, tiny: Tiny) -> None:
    message = refused(place, 1, tiny.compress("--macs", "0.01"), "cannot be reached")
    reachable = message.split("--macs ")[2].split()[0]
    ran = run_here(*tiny.compress("--macs", reachable, "--dry-run", "--json"))
    assert ran.code == 0, ran.err


def test_a_torn_plan_is_refused(place: Path, tiny: Tiny) -> None:
    whole = run_here(*tiny.compress("--dry-run", "--json")).out
    for name, text in {"torn": whole[: len(whole) // 2], "empty": "", "other": "[]", "poor": '{"schema": 1}'}.items():
        (place / f"{name}.json").write_text(text)
        refused(place, 2, tiny.compress("--plan", f"{name}.json"), f"{name}.json")
    refused(place, 2, tiny.compress("--plan", "gone.json"), "gone.json")


def test_a_plan_for_another_model_is_refused(place: Path, tiny: Tiny) -> None:
    plan = place / "plan.json"
    plan.write_text(run_here("compress", "--dry-run", "--json").out)
    refused(place, 2, tiny.compress("--plan", "plan.json"), "another model")


# Images


def test_data_that_is_not_there_is_refused(place: Path, tiny: Tiny) -> None:
    refused(place, 2, tiny.compress("--data", "gone"), "no such file or folder", "gone", ".npz")


def test_data_without_images_is_refused(place: Path, tiny: Tiny) -> None:
    (place / "photos" / "cats").mkdir(parents=True)
    (place / "photos" / "cats" / "readme.txt").write_text("soon")
    refused(place, 2, tiny.compress("--data", "photos"), "no images", "photos")
    np.savez(place / "none.npz", images=images_of(0))
    refused(place, 2, tiny.compress("--data", "none.npz"), "no images", "none.npz")
    with tarfile.open(place / "none.tar", "w"):
        pass
    refused(place, 2, tiny.compress("--data", "none.tar"), "no images", "none.tar")


def test_one_image_cannot_both_calibrate_and_score(place: Path, tiny: Tiny) -> None:
    np.savez(place / "one.npz", images=images_of(1))
    refused(place, 2, tiny.compress("--data", "one.npz"), "1 image is not enough", "one.npz", "--calibration-data")


def test_calibrating_and_scoring_with_the_same_single_image_is_refused(place: Path, tiny: Tiny) -> None:
    for name in ("one.npz", "same.npz"):
        np.savez(place / name, images=images_of(1))
    refused(place, 2, tiny.compress("--data", "one.npz", "--calibration-data", "same.npz"), "--calibration-data")


def test_images_that_are_all_broken_are_refused(place: Path, tiny: Tiny) -> None:
    (place / "photos").mkdir()
    for number in range(3):
        (place / "photos" / f"{number}.jpg").write_bytes(b"not a picture")
    refused(place, 2, tiny.compress("--data", "photos"), "none of the 3 images can be decoded", "photos")


def test_labels_out_of_range_are_refused(place: Path, tiny: Tiny) -> None:
    np.savez(place / "images.npz", images=images_of(20), labels=np.arange(20) % 4 + 1)
    refused(place, 2, tiny.compress("--data", "images.npz"), "labels out of range: 4", "classes 0 to 3", "from 1")
    np.savez(place / "images.npz", images=images_of(20), labels=np.arange(20) - 3)
    refused(place, 2, tiny.compress("--data", "images.npz"), "negative label", "images.npz")


def test_a_model_without_images_of_its_own_needs_some(place: Path, tiny: Tiny) -> None:
    refused(place, 2, ("compress", tiny.net, "--input", "1x8x8"), "images are needed", "--data")


@pytest.mark.slow
def test_a_broken_image_is_skipped_counted_and_named_in_the_report(place: Path, tiny: Tiny) -> None:
    (place / "photos").mkdir()
    for number, pixels in enumerate(images_of(20)):
        Image.fromarray(pixels[..., 0]).save(place / "photos" / f"{number:02}.png")
    (place / "photos" / "bad.png").write_bytes((place / "photos" / "00.png").read_bytes()[:40])
    given = ("--data", "photos", "--out", "run", "--json", *QUICK)
    ran = run_forked(*tiny.compress(*given))
    assert ran.code == 0, ran.err
    assert "warning: 1 broken image" in ran.err
    assert '"bad.png"' in ran.out
    assert "bad.png" in (place / "run" / "report.md").read_text()


# The output folder


def finished_run(folder: Path) -> None:
    """Stands for a run of before: what makes a folder one of ours is its report."""
    folder.mkdir(parents=True)
    (folder / "report.json").write_text('{"schema": 1, "edgeprune_version": "0.1.0"}')
    (folder / "old.onnx").write_text("old")


def test_an_output_folder_that_exists_is_not_touched(place: Path, tiny: Tiny) -> None:
    finished_run(place / "run")
    refused(place, 2, tiny.compress("--out", "run"), "exists", "run", "--overwrite")


@pytest.mark.slow
def test_overwrite_replaces_a_run_as_a_whole(place: Path, tiny: Tiny) -> None:
    finished_run(place / "run")
    ran = run_forked(*tiny.compress("--out", "run", "--overwrite", *QUICK))
    assert ran.code == 0, ran.err
    assert (place / "run" / "pruned-fp32.onnx").is_file()
    assert not (place / "run" / "old.onnx").exists()


def test_overwrite_keeps_the_old_run_when_the_new_one_fails(place: Path, tiny: Tiny) -> None:
    finished_run(place / "run")
    refused(place, 1, tiny.compress("--out", "run", "--overwrite", "--macs", "0.01"), "cannot be reached")


@pytest.mark.parametrize("name", ["thesis.tex", "plan.json", "report.json"])
def test_overwrite_never_replaces_a_folder_that_is_not_a_run(place: Path, tiny: Tiny, name: str) -> None:
    (place / "work").mkdir()
    (place / "work" / name).write_text('{"years": 3}')
    refused(place, 2, tiny.compress("--out", "work", "--overwrite"), "not a run", "work", "--out")


def test_a_link_or_a_file_in_the_way_is_not_followed_or_replaced(place: Path, tiny: Tiny) -> None:
    finished_run(place / "elsewhere")
    (place / "run").symlink_to(place / "elsewhere")
    refused(place, 2, tiny.compress("--out", "run", "--overwrite"), "taken by a file", "run")
    (place / "file").write_text("mine")
    refused(place, 2, tiny.compress("--out", "file", "--overwrite"), "taken by a file", "file")
    refused(place, 2, tiny.compress("--out", "file/run"), "cannot be written", "file")


def test_the_current_folder_is_not_replaced(place: Path, tiny: Tiny) -> None:
    refused(place, 2, tiny.compress("--out", "."), "the current folder", "--out")
    refused(place, 2, tiny.compress("--out", "runs/.."), "the current folder", "--out")


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of 60 kB."""
    disk = place / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_without_write_permission_is_refused(place: Path, tiny: Tiny) -> None:
    (place / "locked").mkdir(mode=0o500)
    refused(place, 2, tiny.compress("--out", "locked/run"), "cannot be written", "locked", "--out")


def test_a_disk_that_may_only_be_read_is_refused(place: Path, tiny: Tiny, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused(place, 2, tiny.compress("--out", "disk/run"), "cannot be written", "disk", "--out")


def test_a_mounted_volume_itself_is_refused_with_a_folder_in_it_named(
    place: Path, tiny: Tiny, small_disk: Path
) -> None:
    refused(place, 2, tiny.compress("--out", "disk"), "mounted volume", "disk/run")


def test_a_full_disk_leaves_nothing_behind(place: Path, tiny: Tiny, small_disk: Path) -> None:
    before = fingerprint(place)
    ran = run_forked(*tiny.compress("--out", "disk/run", *QUICK))
    fault(ran, 2, "the disk is full", "disk/run", "--out")
    assert fingerprint(place) == before


def test_a_file_too_large_for_the_disk_leaves_nothing_behind(place: Path, tiny: Tiny) -> None:
    """A limit on the length of files stands for a disk that fills up in the middle of one."""
    before = fingerprint(place)
    ran = run_forked(*tiny.compress("--out", "runs/deep/run", *QUICK), before=limit_files_to_30_kb)
    fault(ran, 2, "the disk is full", "run", "--out")
    assert fingerprint(place) == before


def limit_files_to_30_kb() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))


# Extras


@pytest.fixture(scope="module")
def without_tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed packages, all but those of the [tflite] extra."""
    found = tmp_path_factory.mktemp("base-install")
    absent = ("litert", "ai_edge", "torchvision", "timm")
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(folder).iterdir():
            if not entry.name.lower().startswith(absent) and not (found / entry.name).exists():
                (found / entry.name).symlink_to(entry)
    return found


def run_without_tflite(packages: Path, *arguments: str) -> Ran:
    start = (
        "import runpy, sys\n"
        "sys.path = [folder for folder in sys.path if not folder.endswith('-packages')]\n"
        f"sys.path += [{str(REPOSITORY)!r}, {str(packages)!r}]\n"
        "sys.argv[0] = 'edgeprune'\n"
        "runpy.run_module('edgeprune', run_name='__main__')\n"
    )
    return run_python(["-S", "-c", start, *arguments])


def test_a_format_whose_extra_is_missing_is_refused_with_the_fix(place: Path, tiny: Tiny, without_tflite: Path) -> None:
    ran = run_without_tflite(without_tflite, *tiny.compress("--formats", "onnx,tflite", "--out", "run"))
    assert ran.code == 2, ran.err
    lines = [line for line in ran.err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "pip install 'edgeprune[tflite]'" in lines[0]
    assert not list(place.iterdir())


def test_a_model_whose_extra_is_missing_is_refused_with_the_fix(place: Path, without_tflite: Path) -> None:
    ran = run_without_tflite(without_tflite, "compress", "torchvision:resnet18", "--data", "x.npz")
    assert ran.code == 2, ran.err
    assert "pip install 'edgeprune[zoo]'" in ran.err
    assert not list(place.iterdir())


@pytest.mark.slow
def test_without_the_extra_the_default_is_onnx_alone_and_the_report_says_so(
    place: Path, tiny: Tiny, without_tflite: Path
) -> None:
    given = ("--out", "run", "--no-bench", "--recover", "none")
    ran = run_without_tflite(without_tflite, *tiny.compress(*given))
    assert ran.code == 0, ran.err
    assert {path.suffix for path in (place / "run").glob("*fp32*")} == {".onnx", ".json"}
    assert "pip install 'edgeprune[tflite]'" in (place / "run" / "report.md").read_text()
    assert "pip install 'edgeprune[tflite]'" in ran.err


# As a user meets them


def test_the_real_program_ends_with_the_same_code_and_message(place: Path) -> None:
    ran = run_program("compress", "resnet65")
    fault(ran, 2, "unknown model 'resnet65'", "Did you mean 'resnet56'?")
    assert ran == run_here("compress", "resnet65")


def test_a_bug_keeps_its_traceback(place: Path, tiny: Tiny) -> None:
    ran = run_forked(*tiny.compress("--dry-run"), before=plant_a_bug)
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert "ZeroDivisionError: a bug" in ran.err


def plant_a_bug() -> None:
    import edgeprune.pipeline

    def bug(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    edgeprune.pipeline.left_whole = bug  # type: ignore[assignment]


def test_every_error_has_an_exit_code_of_the_documented_ones() -> None:
    def all_of(kind: type[EdgepruneError]) -> Iterator[type[EdgepruneError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from all_of(child)

    assert {kind.exit_code for kind in all_of(EdgepruneError)} == {1, 2, 3, 4, 5}
    assert ONE_SCREEN < 24
