"""Is a device fit to be measured on? What is installed, what its sensors say, and what to do about each."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeprune.artifact import RUNTIME_OF_FORMAT
from edgeprune.bench.device import how_to_install
from edgeprune.bench.session import device_facts
from edgeprune.bench.transport import Transport
from edgeprune.bench.trust import HOT_START_C, Reason
from edgeprune.wheels import package_of
from edgeprune.worker.taint import BUSY_CORES

State = Literal["ok", "warning", "missing"]

_LEAST_FREE_BYTES = 500_000_000
"""What a virtual environment with both runtimes and a run's files need on a board."""
_MOST_PRESSURE = 1.0  # % of the time
_PRESSED = "Processes wait for memory: stop other programs, or the times are those of the swap."
_ASK = """
import json, os, platform, shutil
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in ("numpy", "onnxruntime", "ai-edge-litert"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
providers = []
if "onnxruntime" in found:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime
    providers = onnxruntime.get_available_providers()
free = shutil.disk_usage(os.path.expanduser("~")).free
print(json.dumps({"python": platform.python_version(), "packages": found, "free_bytes": free,
                  "providers": providers}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: its name.
        state: "ok", "warning" (measuring is possible) or "missing" (it is not there).
        value: what was found.
        fix: what to do; empty where nothing needs to be done.
    """

    what: str
    state: State
    value: str
    fix: str = ""


def examine(transport: Transport) -> tuple[Finding, ...]:
    """Look at a device.

    Args:
        transport: the device, entered.

    Raises:
        DeviceError: it cannot be reached, or has no Python with numpy.
    """
    with closing(transport.run([transport.python, "-c", _ASK])) as lines:
        told = json.loads("".join(lines))
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        facts = device_facts(transport, Path(scratch))
    return (*_software(told, transport), *_hardware(facts), *_state(facts))


def _software(told: Mapping[str, Any], transport: Transport) -> list[Finding]:
    found = [Finding("python", "ok", told["python"])]
    for runtime in RUNTIME_OF_FORMAT.values():
        package = package_of(runtime)
        tflite_here = transport.name == "local" and runtime == "litert"
        fix = "pip install 'edgeprune[tflite]'" if tflite_here else how_to_install(package, transport.name)
        version = told["packages"].get(package)
        found.append(Finding(runtime, "ok", version) if version else Finding(runtime, "missing", "not installed", fix))
    if told["providers"]:
        found.append(Finding("onnxruntime providers", "ok", ", ".join(told["providers"])))
    free = told["free_bytes"]
    roomy = free >= _LEAST_FREE_BYTES
    fix = "" if roomy else "Free some space: runtimes and model files need about half a GB."
    found.append(Finding("free disk", "ok" if roomy else "warning", f"{free / 1e9:.1f} GB", fix))
    return found


def _hardware(facts: Mapping[str, Any]) -> list[Finding]:
    names = ("model", "revision", "cpu", "machine", "system", "kernel", "firmware", "power_mode")
    found = [Finding(name, "ok", str(facts[name])) for name in names if name in facts]
    if facts.get("emulated"):
        found.append(Finding("emulated", "warning", facts["emulated_by"], Reason.EMULATED.value.remedy))
    return found


def _state(facts: Mapping[str, Any]) -> list[Finding]:
    """The sensors; one that does not answer is named, with what is lost by it."""
    now = facts.get("at_start", {})
    governor, hot = facts.get("governor"), now.get("temperature_c", 0.0) >= HOT_START_C
    bits, load = now.get("throttled"), now.get("load_average", 0.0)
    busy = load > BUSY_CORES * max(1, facts.get("cores", 1))
    remedies = {reason: reason.value.remedy for reason in Reason}
    kind = Reason.UNDER_VOLTAGE if (bits or 0) & 0x10001 else Reason.THROTTLED
    clocks, pressure = now.get("frequencies_mhz"), now.get("memory_pressure")
    return [
        _sensor("governor", governor, governor not in (None, "performance"), remedies[Reason.GOVERNOR]),
        _sensor("temperature", _unit(now.get("temperature_c"), "C"), hot, remedies[Reason.HOT_START]),
        _sensor("clocks", ", ".join(f"{clock:.0f}" for clock in clocks) + " MHz" if clocks else None, False, ""),
        _sensor("throttle bits", None if bits is None else f"0x{bits:x}", bool(bits), remedies[kind]),
        _sensor("load", None if "load_average" not in now else f"{load:.2f}", busy, remedies[Reason.BUSY]),
        _power(facts.get("power", {})),
        _sensor("memory pressure", _unit(pressure, "%"), (pressure or 0.0) > _MOST_PRESSURE, _PRESSED),
        _sensor("memory available", _unit(now.get("memory_available_bytes"), "MB", 1e-6), False, ""),
    ]


def _power(told: Mapping[str, str]) -> Finding:
    if "source" in told:
        return Finding("power", "ok", told["source"])
    return Finding("power", "missing", "no meter", told.get("unavailable", ""))


def _sensor(what: str, value: str | None, doubtful: bool, remedy: str) -> Finding:
    if value is None:
        return Finding(what, "missing", "no answer", "This device does not tell; it cannot be watched during a run.")
    return Finding(what, "warning" if doubtful else "ok", value, remedy if doubtful else "")


def _unit(value: float | None, unit: str, factor: float = 1.0) -> str | None:
    return None if value is None else f"{value * factor:.0f} {unit}"
