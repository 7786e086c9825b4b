"""The command line of a packaged model, on the board: `report` (the default), `check` and `infer PHOTO`.

It finds what it needs in the folder of the zip file it is in; what that is stands in `bundle.json` there, written by
`edgeprune.package`. Needs numpy, the file's runtime and, for photos, Pillow.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.worker import sensors

SCHEMA = 1
"""Of `bundle.json` and of the documents that are printed."""
FACTS = "bundle.json"
OK, USAGE, UNTRUSTED, DIFFERS = 0, 2, 4, 5
"""Exit codes, those of edgeprune's own command line."""
_BEST = 5
_COMMANDS = ("report", "check", "infer")


class BundleError(Exception):
    """The bundle or what was asked of it is not as it must be; one sentence."""


class Bundle:
    """What was packaged.

    Args:
        folder: where it lies.

    Raises:
        BundleError: a file is missing or is not the one that was packaged.
    """

    def __init__(self, folder: Path) -> None:
        from edgeprune.worker import infer

        self.folder = folder
        try:
            self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            strange = infer.altered(self.model, self.facts["artifact"])
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(f"cannot read the bundle in {folder}: {error}") from None
        if strange:
            raise BundleError(f"{strange.name} is not the file that was packaged: copy the bundle anew")

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / str(self.facts["artifact"]["path"])

    @property
    def inputs(self) -> Path:
        """Real images as the model wants them: .npy, float32 [k, C, H, W]."""
        return self.folder / str(self.facts["inputs"])

    def output(self, images: Any) -> Any:
        """The first output for one image, float32 [1, C, H, W], computed with one thread; and the runtime's version."""
        import numpy as np

        from edgeprune.worker.loaded import arranged
        from edgeprune.worker.runtimes import RUNTIMES

        images = arranged(images, self.facts["artifact"]["layout"], self.facts["artifact"]["folded"])
        loaded = RUNTIMES[self.facts["runtime"]].load(str(self.model), 1)
        return np.asarray(loaded.run(loaded.prepare(images)), np.float64).ravel(), loaded.version


def main() -> None:
    """Do what the command line says, and exit."""
    words = sys.argv[1:]
    if words == ["--serve"]:  # a process that `report` starts to measure in
        from edgeprune.worker.serve import serve

        sys.exit(serve())
    if not words or (words[0] not in _COMMANDS and words[0] not in ("-h", "--help")):
        words.insert(0, "report")
    try:
        sys.exit(_answer(_parser().parse_args(words), Path(sys.argv[0]).resolve().parent))
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE)


def check(bundle: Bundle) -> dict[str, Any]:
    """Compute the packaged image and compare it with what the host computed.

    Returns:
        runtime, runtime_version; passed; max_rel, the largest difference as a share of the largest value.
    """
    import numpy as np

    output, version = bundle.output(np.load(bundle.inputs)[:1])
    expected = np.load(bundle.folder / bundle.facts["expected"])
    found = {"runtime": bundle.facts["runtime"], "runtime_version": version}
    if output.shape != expected.shape or not np.isfinite(output).all():
        return {**found, "passed": False, "max_rel": None}
    difference = float(np.abs(output - expected).max() / (np.abs(expected).max() or 1.0))
    return {**found, "passed": difference <= bundle.facts["tolerance"], "max_rel": difference}


def best(bundle: Bundle, photo_file: Path) -> list[dict[str, Any]]:
    """The highest values of the first output for a photo, highest first: class, value, and name where it has one.

    Raises:
        BundleError: it is no photo.
    """
    from edgeprune.worker import infer

    wanted = bundle.facts["input"]
    try:
        pixels = infer.decode(photo_file.read_bytes(), tuple(wanted["shape"]))
    except ModuleNotFoundError as error:
        raise BundleError(f"{error.name} is not installed") from None
    except Exception as error:  # Pillow's decoders raise nearly every kind for a broken file
        raise BundleError(f"cannot read {photo_file} as a photo: {error}") from None
    output, _ = bundle.output(infer.normalise(pixels[None], wanted["mean"], wanted["std"]))
    sink = bundle.facts["output"]
    return infer.best(infer.meant(output, sink["scale"], sink["zero_point"]), _BEST, bundle.facts["classes"])


def report(bundle: Bundle, threads: list[int], blocks: int) -> dict[str, Any]:
    """The check, and the times of this machine; under an emulator the check alone.

    Raises:
        BundleError: the file cannot be measured.
    """
    device = sensors.facts(sensors.Board())
    document = {"schema": SCHEMA, "artifact": bundle.facts["artifact"], "target": bundle.facts["target"]}
    document.update({"device": device, "check": check(bundle), "rows": []})
    if not device.get("emulated"):
        document["rows"] = _measured(bundle, threads, blocks)
    return document


def _measured(bundle: Bundle, threads: list[int], blocks: int) -> list[dict[str, Any]]:
    from edgeprune.worker import conduct
    from edgeprune.worker.latency import row

    entry = {
        "path": str(bundle.model),
        "runtime": bundle.facts["runtime"],
        "layout": bundle.facts["artifact"]["layout"],
        "folded": bundle.facts["artifact"]["folded"],
    }
    events: list[Mapping[str, Any]] = []
    job = {
        **bundle.facts["job"],
        "entries": [{"id": str(count), "threads": count, **entry} for count in threads],
        "inputs": str(bundle.inputs),
        "rounds": blocks,
        "repeats": blocks // 2,
    }
    if conduct.conduct(job, events.append):
        raise BundleError(f"{bundle.model.name} cannot be measured: {events[-1]['reason']}")
    at_start = events[0]["device"]["at_start"]
    by_threads = {count: [one for one in events if one.get("entry") == str(count)] for count in threads}
    return [row(count, [one for one in its if one["event"] == "block"], at_start) for count, its in by_threads.items()]


def _answer(asked: argparse.Namespace, folder: Path) -> int:
    bundle = Bundle(folder)
    if asked.command == "infer":
        from edgeprune.worker import infer

        found = best(bundle, asked.photo)
        _print(
            {"schema": SCHEMA, "best": found},
            asked.json,
            infer.lines(found),
        )
        return OK
    if asked.command == "check":
        checked = check(bundle)
        _print({"schema": SCHEMA, **checked}, asked.json, [_said_of_check(bundle, checked)])
        return OK if checked["passed"] else DIFFERS
    told = report(bundle, asked.threads or _own_threads(bundle), asked.blocks)
    _print(told, asked.json, _lines(bundle, told))
    if not told["check"]["passed"]:
        return DIFFERS
    return OK if told["rows"] and all(one["trusted"] for one in told["rows"]) else UNTRUSTED


def _lines(bundle: Bundle, told: Mapping[str, Any]) -> list[str]:
    device = told["device"]
    words = [device.get("model"), device.get("cpu"), f"{device['cores']} cores" if "cores" in device else None]
    lines = [", ".join(word for word in words if word) or "this machine", _said_of_check(bundle, told["check"])]
    if device.get("emulated"):
        return [*lines, f"emulated ({device['emulated_by']}): functional, not timed"]
    lines.append("threads   p50 ms   p90 ms   p99 ms  95 % of p50 (blocks)")
    for one in told["rows"]:
        low, high = one["p50_ci95_ms"] or (float("nan"), float("nan"))
        times = "".join(f"{one[name]:9.4g}" for name in ("p50_ms", "p90_ms", "p99_ms"))
        lines.append(f"{one['threads']:7}{times}  {low:.4g} to {high:.4g} ({one['blocks']})")
    for one in told["rows"]:
        lost = "left out" if one["trusted"] else "too many: NOT TRUSTWORTHY"
        lines += [
            f"threads {one['threads']}: {reason} in {count} blocks, {lost}" for reason, count in one["tainted"].items()
        ]
    return lines


def _said_of_check(bundle: Bundle, checked: Mapping[str, Any]) -> str:
    name = f"{bundle.model.name} in {checked['runtime']} {checked['runtime_version']}"
    if checked["passed"]:
        return f"{name}: computes what the host computes (largest difference {checked['max_rel']:.1e})"
    return f"{name}: DOES NOT COMPUTE WHAT THE HOST COMPUTES (largest difference {checked['max_rel']})"


def _print(document: Mapping[str, Any], as_json: bool, lines: list[str]) -> None:
    print(json.dumps(document) if as_json else "\n".join(lines))


def _own_threads(bundle: Bundle) -> list[int]:
    """The target's thread counts that this machine has cores for."""
    cores = len(os.sched_getaffinity(0))
    return [count for count in bundle.facts["target"]["threads"] if count <= cores] or [cores]


def _counts(text: str) -> list[int]:
    counts = sorted({int(word) for word in text.split(",")})
    if counts[0] < 1:
        raise ValueError
    return counts


def _parser() -> argparse.ArgumentParser:
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print a JSON document")
    parser = argparse.ArgumentParser(prog="edgeprune", description="A model packaged by edgeprune.")
    commands = parser.add_subparsers(dest="command", required=True)
    timed = commands.add_parser("report", parents=[as_json], help="the latency on this machine (the default)")
    timed.add_argument("--threads", type=_counts, metavar="1,4", help="thread counts")
    timed.add_argument("--blocks", type=int, default=16, help="of times for each thread count")
    commands.add_parser("check", parents=[as_json], help="does it compute what the host computed?")
    photo = commands.add_parser("infer", parents=[as_json], help="the five highest classes of a photo")
    photo.add_argument("photo", type=Path)
    return parser
