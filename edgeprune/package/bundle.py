"""The bundle: a folder with all it takes to run one model file on a board that has only Python."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import __version__
from edgeprune.bench.reference import host_outputs, tolerance
from edgeprune.bench.session import job_for
from edgeprune.bench.transport import pack_worker
from edgeprune.errors import MissingExtraError, UsageError
from edgeprune.files import sha256_of, write_json, write_text
from edgeprune.package.choice import Choice
from edgeprune.package.inventory import Component, bill_of_materials, licences, requirements
from edgeprune.registry import shipped
from edgeprune.target import Target
from edgeprune.wheels import PACKAGES, Platform
from edgeprune.worker import onboard
from edgeprune.worker.runtimes import RUNTIMES

MARK = onboard.FACTS
"""The document that makes a folder a bundle."""
WHEELS, WORKER, SUMS = "wheels", "edgeprune.pyz", "SHA256SUMS"
BILL, LICENCES = "sbom.cdx.json", "LICENCES.txt"
_INPUTS, _EXPECTED = "inputs.npy", "expected.npy"
_MAIN = "edgeprune.worker.onboard:main"


def packages(choice: Choice) -> tuple[str, ...]:
    """What the file needs on the board: its runtime unless that comes with the board, NumPy, and what reads photos."""
    return (*PACKAGES.get(RUNTIMES[choice.runtime].part_of, ("numpy",)), "pillow")


def epoch_of(choice: Choice) -> int:
    """The time that every file is given, seconds since 1970: $SOURCE_DATE_EPOCH, else when the run was made.

    Raises:
        UsageError: the variable is no time that a zip file can hold.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return int(datetime.fromisoformat(choice.created).timestamp())
    if not text.isdecimal() or not 0 <= int(text) < 1 << 32:
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}", fix="It is a time in whole seconds since 1970, or not set.")
    return int(text)


def write_files(choice: Choice, target: Target, packed: Sequence[Component], folder: Path) -> None:
    """Write what runs on the board, the Python packages left out: model, worker, input and expected output, papers.

    Raises:
        MissingExtraError: the file's runtime is not installed here, so that there is nothing to compare with.
        OutputError: the disk is full, or the folder cannot be written.
    """
    pack_worker(folder / WORKER, _MAIN)
    for path in choice.artifact.files(choice.run):
        there = folder / path.relative_to(choice.run)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, there)
    choice.artifact.save_manifest(folder)
    np.save(folder / _INPUTS, choice.images)
    np.save(folder / _EXPECTED, _expected(choice))
    write_json(folder / MARK, _facts(choice, target))
    write_json(folder / BILL, bill_of_materials(packed, choice, epoch_of(choice)))
    write_text(folder / LICENCES, licences(packed, choice))
    write_text(folder / "LICENSE", shipped("LICENSE").read_text(encoding="utf-8"))


def write_bundle(choice: Choice, target: Target, platform: Platform, packed: Sequence[Component], folder: Path) -> None:
    """Make a folder that holds the wheels a bundle; see `write_files`.

    Args:
        choice: what is packaged.
        target: for which board.
        platform: that the wheels are for.
        packed: what lies in `folder/wheels`, pip itself among it.
        folder: to complete; all its files get the same time and mode.
    """
    write_files(choice, target, packed, folder)
    script = resources.files("edgeprune.package").joinpath("run.sh").read_text(encoding="utf-8")
    python = ".".join(map(str, platform.python))
    write_text(folder / "run.sh", script.replace("@PYTHON@", python).replace("@MACHINE@", platform.machine))
    write_text(folder / "requirements.txt", requirements([one for one in packed if one.name != "pip"]))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(sums))
    settle(folder, epoch_of(choice))


def settle(folder: Path, epoch: int) -> None:
    """Give all files the same time, and modes that do not depend on who made them."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
        os.utime(path, (epoch, epoch))
    folder.chmod(0o755)
    os.utime(folder, (epoch, epoch))


def _expected(choice: Choice) -> np.ndarray:
    found = host_outputs([choice.artifact], choice.run, choice.images)
    if choice.artifact.sha256 not in found:
        raise MissingExtraError("tflite", "computing what the board must compute")
    return found[choice.artifact.sha256]


def _facts(choice: Choice, target: Target) -> dict[str, Any]:
    """What the worker reads on the board; see `edgeprune.worker.onboard`."""
    artifact = choice.artifact
    beside = {"beside": [asdict(one) for one in artifact.beside]} if artifact.beside else {}
    kept = ("path", "sha256", "format", "precision", "role", "layout", "folded", "plan_fingerprint")
    return {
        "schema": onboard.SCHEMA,
        "edgeprune_version": __version__,
        "target": {"name": target.name, "title": target.title, "threads": list(target.threads)},
        "model": choice.model,
        "artifact": {name: getattr(artifact, name) for name in kept} | beside,
        "runtime": choice.runtime,
        "input": choice.input.to_json(),
        "output": artifact.details.get("output", {"scale": None, "zero_point": None}),
        "classes": artifact.details.get("classes", []),
        "inputs": _INPUTS,
        "expected": _EXPECTED,
        "tolerance": tolerance(artifact.precision, accelerator=RUNTIMES[choice.runtime].accelerator),
        "job": job_for((), choice.run),
    }
