"""What the machine says of itself. A sensor that is not there is absent from the answer; nothing is ever made up.

All reading goes through a `Reader`, so that the output of a board one does not have can be replayed. Sources: the
Linux kernel's Documentation/ABI (thermal and cpufreq in sysfs) and Documentation/accounting/psi.rst, proc_stat(5),
proc_meminfo(5); Raspberry Pi
documentation, `vcgencmd get_throttled`; NVIDIA Jetson Linux Developer Guide, "Power Model Configuration", `nvpmodel`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgeprune.worker.emulation import emulator

_CPUFREQ = "/sys/devices/system/cpu/cpu{}/cpufreq/{}"
_ARM_CORES = {  # implementer 0x41; the part number is in the "Main ID Register" section of each core's manual
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd42": "Cortex-A78AE",
}
_MOST_ZONES = 16
_COMMAND_SECONDS = 2.0


class Reader(Protocol):
    """How the machine is asked."""

    def read(self, path: str) -> str | None:
        """A file's text; None where it cannot be read."""

    def run(self, argv: Sequence[str]) -> str | None:
        """A command's standard output; None where it is not there or fails."""


class Board:
    """The machine this runs on."""

    def read(self, path: str) -> str | None:
        """A file's text; None where it cannot be read."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def run(self, argv: Sequence[str]) -> str | None:
        """A command's standard output; None where it is not there, fails, or takes over two seconds."""
        if shutil.which(argv[0]) is None:
            return None
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=True, stdin=subprocess.DEVNULL
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return done.stdout


class Recording:
    """A machine recorded before: file and command texts by name."""

    def __init__(self, files: Mapping[str, str], commands: Mapping[str, str]) -> None:
        self._files, self._commands = files, commands

    def read(self, path: str) -> str | None:
        """The recorded text of a file."""
        return self._files.get(path)

    def run(self, argv: Sequence[str]) -> str | None:
        """The recorded output of a command, found by its words joined with spaces."""
        return self._commands.get(" ".join(argv))


def facts(reader: Reader) -> dict[str, Any]:
    """What does not change while the machine runs.

    Returns:
        Of these, those the machine gives: machine, model, cpu, cores, kernel, system, governor, max_frequency_mhz,
        memory_bytes, revision (a Raspberry Pi's code of board, maker and memory), firmware (a Raspberry Pi's, or the
        release of a Jetson's L4T), power_mode (a Jetson's, as `nvpmodel -q` names it); only under an emulator
        `emulated`, which is true, and `emulated_by`, what shows it.
    """
    cpuinfo = reader.read("/proc/cpuinfo") or ""
    found: dict[str, Any] = {
        "machine": _text(reader.run(("uname", "-m"))),
        "model": _text(reader.read("/proc/device-tree/model")) or _field(cpuinfo, "Model"),
        "cpu": _ARM_CORES.get(_field(cpuinfo, "CPU part") or "") or _field(cpuinfo, "model name"),
        "cores": len(re.findall(r"(?m)^processor\s*:", cpuinfo)),
        "kernel": _text(reader.read("/proc/sys/kernel/osrelease")),
        "system": _system(reader),
        "governor": _text(reader.read(_CPUFREQ.format(0, "scaling_governor"))),
        "max_frequency_mhz": _number(reader.read(_CPUFREQ.format(0, "cpuinfo_max_freq")), 1e-3),
        "memory_bytes": _meminfo(reader, "MemTotal"),
        "revision": _field(cpuinfo, "Revision"),
        "firmware": _firmware(reader),
        "power_mode": _power_mode(reader),
    }
    trace = emulator(found["machine"] or "", cpuinfo, found["model"] or "", reader.read)
    found |= {"emulated": trace is not None, "emulated_by": trace}
    return {key: value for key, value in found.items() if value}


def readings(reader: Reader) -> dict[str, Any]:
    """What changes while the machine works.

    Returns:
        Of these, those the machine gives: temperature_c, frequencies_mhz (one a core), throttled (the bits of `vcgencmd
        get_throttled`), memory_available_bytes, load_average (of the last minute), memory_pressure (in what share of
        the last ten seconds, in %, some process waited for memory).
    """
    found = {
        "temperature_c": _temperature(reader),
        "frequencies_mhz": _frequencies(reader) or None,
        "throttled": _throttled(reader),
        "memory_available_bytes": _meminfo(reader, "MemAvailable"),
        "memory_pressure": _pressure(reader),
        "load_average": _number((reader.read("/proc/loadavg") or "").partition(" ")[0]),
    }
    return {key: value for key, value in found.items() if value is not None}


def busy_cpu_seconds(reader: Reader) -> float | None:
    """CPU seconds since boot, of all cores, not spent idling; what a virtual machine's host took counts as spent."""
    first = (reader.read("/proc/stat") or "").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu" or not all(word.isdecimal() for word in first[1:9]):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(ticks) for ticks in first[1:9])
    return float(user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _text(raw: str | None) -> str | None:
    """A text without the NUL that ends device-tree strings."""
    return raw.replace("\0", "").strip() or None if raw else None


def _field(text: str, name: str) -> str | None:
    """The first `name : value` of /proc/cpuinfo; case counts, for `model` is another field than `Model`."""
    match = re.search(rf"(?m)^{re.escape(name)}[ \t]*:[ \t]*(\S.*)$", text)
    return match.group(1).strip() if match else None


def _number(raw: str | None, factor: float = 1.0) -> float | None:
    """A decimal number times a factor, rounded to three places; None where it is none."""
    match = re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", (raw or "").strip(), re.ASCII)
    return round(float(match.group()) * factor, 3) if match else None


def _system(reader: Reader) -> str | None:
    match = re.search(r'(?m)^PRETTY_NAME="?([^"\n]+)"?$', reader.read("/etc/os-release") or "")
    return match.group(1) if match else None


def _firmware(reader: Reader) -> str | None:
    """The date and hash `vcgencmd version` tells, or the release in /etc/nv_tegra_release."""
    told = reader.run(("vcgencmd", "version")) or ""
    match = re.search(r"(?m)\A(\w{3} +\d{1,2} \d{4}|\d{4}/\d\d/\d\d)\b[\s\S]*^version (\w+)", told, re.ASCII)
    if match:
        return f"{match.group(1)} {match.group(2)}"
    match = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", reader.read("/etc/nv_tegra_release") or "", re.ASCII)
    return f"L4T {match.group(1)}.{match.group(2)}" if match else None


def _pressure(reader: Reader) -> float | None:
    match = re.match(r"some avg10=(\d{1,3}\.\d{1,4}) ", reader.read("/proc/pressure/memory") or "", re.ASCII)
    return float(match.group(1)) if match else None


def _power_mode(reader: Reader) -> str | None:
    match = re.search(r"(?m)^NV Power Mode: (\S.*)$", reader.run(("nvpmodel", "-q")) or "")
    return match.group(1).strip() if match else None


def _meminfo(reader: Reader, name: str) -> int | None:
    match = re.search(rf"(?m)^{name}:\s+(\d{{1,15}}) kB$", reader.read("/proc/meminfo") or "", re.ASCII)
    return int(match.group(1)) * 1024 if match else None


def _temperature(reader: Reader) -> float | None:
    """Of the thermal zones that name the CPU the hottest, else the first zone."""
    zones: list[tuple[bool, float]] = []
    for number in range(_MOST_ZONES):
        folder = f"/sys/class/thermal/thermal_zone{number}"
        kind = reader.read(f"{folder}/type")
        if kind is None:
            break
        celsius = _number(reader.read(f"{folder}/temp"), 1e-3)
        # Zones that are switched off answer with 0, negative or absurd values.
        if celsius is not None and 0 < celsius < 150:
            zones.append(("cpu" in kind.lower() or kind.strip() == "x86_pkg_temp", celsius))
    named = [celsius for is_cpu, celsius in zones if is_cpu] or [celsius for _, celsius in zones[:1]]
    return max(named, default=None)


def _frequencies(reader: Reader) -> list[float]:
    """The current clock of each core in MHz, until the first core that does not say."""
    found: list[float] = []
    while True:
        frequency = _number(reader.read(_CPUFREQ.format(len(found), "scaling_cur_freq")), 1e-3)
        if frequency is None:
            return found
        found.append(frequency)


def _throttled(reader: Reader) -> int | None:
    """The firmware's bits; not those of sysfs, which can be 0 while the firmware throttles (raspberrypi/linux#2367)."""
    match = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", _text(reader.run(("vcgencmd", "get_throttled"))) or "")
    return int(match.group(1), 16) if match else None
