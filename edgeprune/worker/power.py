"""What power a machine draws, where it can say so, and the energy of an inference from it.

A meter is read at a fixed rate in a pass of its own, after the timed blocks: reading takes time on the board (a call of
`vcgencmd` some ten milliseconds), which must not fall into a timed call. Sources: Documentation/hwmon/ina3221.rst and
Documentation/power/powercap/powercap.rst of the Linux kernel; NVIDIA Jetson Linux Developer Guide, "INA3221"; Raspberry
Pi documentation, `vcgencmd pmic_read_adc`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from edgeprune.worker.sensors import Reader

IDLE_SECONDS, LOAD_SECONDS = 3.0, 5.0
"""How long the idle machine is watched, and each file; our own choice: tens of readings of the slowest meter."""
SETTLE_SECONDS = 0.5
"""Readings of the first moments of a load do not count: meters average over some tenths of a second."""

_WHOLE_BOARD = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN", "VIN")  # rails of Jetsons that feed all others
_OLD_DRIVER = "/sys/bus/i2c/drivers/ina3221x/{}-004{}/iio:device{}/"  # JetPack 4: a rail's power in mW
_PMIC = re.compile(r"^\s*(\w+)_([AV])(?: \w+\(\d+\))?=(\d{1,3}(?:\.\d{1,12})?)[AV]\s*$", re.ASCII | re.MULTILINE)
_PMIC_SLOPE, _PMIC_OFFSET_W = 1.1451, 0.5879
"""The board's input over the sum of its PMIC's rails, a fit to a meter at the plug (github.com/jfikar/RPi5-power): what
USB devices draw is not in it."""


@dataclass(frozen=True)
class Meter:
    """Where power can be read.

    Attributes:
        source: its name ("ina3221:VDD_IN").
        covers: what draws that power.
        interval_s: between two readings.
        read: watts since the reading before, or now; None if it does not answer.
    """

    source: str
    covers: str
    interval_s: float
    read: Callable[[], float | None]


def meter(reader: Reader, model: str = "", clock: Callable[[], float] = time.monotonic) -> Meter | str:
    """The machine's meter, or in a sentence why it has none.

    Args:
        reader: how the machine is asked.
        model: of the board, as it names itself.
        clock: seconds, monotonic.
    """
    for found in (_ina3221(reader), _old_ina3221(reader), _pmic(reader)):
        if found:
            return found
    rapl = _rapl(reader, clock)
    if rapl:
        return rapl
    if re.match(r"Raspberry Pi ([1-4]|Zero|Compute Module [1-4])", model):
        return f"{model.partition(' Rev')[0]} has no sensor of its current; use a meter at the plug"
    return "the kernel shows no power sensor of this machine"


def energy(meter: Meter, idle_w: float, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Watch the meter while a file runs.

    Args:
        meter: to read.
        idle_w: what the machine draws without it.
        run: times calls for `LOAD_SECONDS` and returns `samples_ns`.

    Returns:
        source, covers, idle_w, load_w, calls, readings, joules (of one inference, with the idle machine's power) and
        joules_above_idle; or `unavailable`, why not.
    """
    begin = time.monotonic()
    with _watched(meter, SETTLE_SECONDS) as seen:
        samples = run()["samples_ns"]
    each = (time.monotonic() - begin) / len(samples)
    if not seen:
        return {"unavailable": f"{meter.source} did not answer"}
    load_w = fmean(seen)
    told = {"source": meter.source, "covers": meter.covers, "idle_w": round(idle_w, 4), "load_w": round(load_w, 4)}
    energies = {"joules": load_w * each, "joules_above_idle": (load_w - idle_w) * each}
    return {**told, "calls": len(samples), "readings": len(seen), **energies}


def energies(
    reader: Reader, model: str, runs: Mapping[str, Callable[[], dict[str, Any]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The idle machine is watched first, then each file: its name and what `energy` says of it.

    Args:
        reader: how the machine is asked.
        model: of the board, as it names itself.
        runs: for each file, what times its calls for `LOAD_SECONDS`.
    """
    found = meter(reader, model)
    idle_w = idle(found) if isinstance(found, Meter) else None
    for name, run in runs.items():
        if isinstance(found, str) or idle_w is None:
            yield name, {"unavailable": found if isinstance(found, str) else f"{found.source} does not answer"}
        else:
            yield name, energy(found, idle_w, run)


def idle(meter: Meter) -> float | None:
    """The mean power of the machine while nothing of ours runs; None if the meter does not answer."""
    with _watched(meter, 0.0) as seen:
        time.sleep(IDLE_SECONDS)
    return fmean(seen) if seen else None


def watts_of_pmic(told: str) -> float | None:
    """The sum of the rails of which `pmic_read_adc` tells both current and voltage; None where it tells of none."""
    rails: dict[str, dict[str, float]] = {}
    for name, unit, value in _PMIC.findall(told):
        rails.setdefault(name, {})[unit] = float(value)
    whole = [rail["A"] * rail["V"] for rail in rails.values() if len(rail) == 2]
    return _PMIC_SLOPE * sum(whole) + _PMIC_OFFSET_W if whole else None


@contextmanager
def _watched(meter: Meter, settle_s: float) -> Iterator[list[float]]:
    """Readings of the meter, taken in a thread until the block ends."""
    seen: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        ended.wait(settle_s)
        meter.read()  # a counter's first reading has nothing before it
        while not ended.wait(meter.interval_s):
            watts = meter.read()
            if watts is not None:
                seen.append(watts)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _ina3221(reader: Reader) -> Meter | None:
    """The mainline driver: millivolts and milliamperes of up to three rails, each with a label."""
    for chip in range(16):
        folder = f"/sys/class/hwmon/hwmon{chip}/"
        if (reader.read(folder + "name") or "").strip() != "ina3221":
            continue
        for rail in (1, 2, 3):
            label = (reader.read(f"{folder}in{rail}_label") or "").strip()
            paths = f"{folder}in{rail}_input", f"{folder}curr{rail}_input"
            if label in _WHOLE_BOARD and _product(reader, paths) is not None:
                return Meter(f"ina3221:{label}", "the whole board", 0.1, partial(_product, reader, paths))
    return None


def _old_ina3221(reader: Reader) -> Meter | None:
    """The driver of JetPack 4."""
    for bus in range(8):
        for address in (0, 1):
            for device in (0, 1):
                folder = _OLD_DRIVER.format(bus, address, device)
                for rail in (0, 1, 2):
                    label = (reader.read(f"{folder}rail_name_{rail}") or "").strip()
                    path = f"{folder}in_power{rail}_input"
                    if label in _WHOLE_BOARD and _milli(reader, path) is not None:
                        return Meter(f"ina3221:{label}", "the whole board", 0.1, partial(_milli, reader, path))
    return None


def _pmic(reader: Reader) -> Meter | None:
    def read() -> float | None:
        return watts_of_pmic(reader.run(("vcgencmd", "pmic_read_adc")) or "")

    if read() is None:
        return None
    return Meter("pmic_adc", "the board without its USB devices, by a fit to the PMIC's rails", 0.5, read)


def _rapl(reader: Reader, clock: Callable[[], float]) -> Meter | str | None:
    """The energy counters of x86 processors, all packages."""
    folders = [f"/sys/class/powercap/intel-rapl:{number}/" for number in range(8)]
    packages = [folder for folder in folders if (reader.read(folder + "name") or "").startswith("package")]
    if not packages:
        return None
    if any(_whole(reader.read(folder + "energy_uj")) is None for folder in packages):
        return f"only root may read {packages[0]}energy_uj"
    ranges = [_whole(reader.read(folder + "max_energy_range_uj")) for folder in packages]
    last: list[tuple[float, list[int | None]]] = []

    def read() -> float | None:
        now = clock(), [_whole(reader.read(folder + "energy_uj")) for folder in packages]
        before, last[:] = list(last), [now]
        return _power(before[0], now, ranges) if before else None

    covers = "processor packages with all their cores and caches; no board, disk or fan"
    return Meter("rapl:package", covers, 0.1, read)


def _power(
    before: tuple[float, Sequence[int | None]], now: tuple[float, Sequence[int | None]], ranges: Sequence[int | None]
) -> float | None:
    """Mean watts between two readings of microjoule counters that begin at 0 again after their range."""
    joules = 0.0
    for at, span in enumerate(ranges):
        old, new = before[1][at], now[1][at]
        if old is None or new is None or (new < old and span is None):
            return None
        joules += ((new - old) if new >= old else (new - old + (span or 0))) * 1e-6
    seconds = now[0] - before[0]
    return joules / seconds if seconds > 0 and joules >= 0 else None


def _product(reader: Reader, paths: Sequence[str]) -> float | None:
    millivolts, milliamperes = (_whole(reader.read(path)) for path in paths)
    return None if millivolts is None or milliamperes is None else millivolts * milliamperes * 1e-6


def _milli(reader: Reader, path: str) -> float | None:
    value = _whole(reader.read(path))
    return None if value is None else value * 1e-3


def _whole(raw: str | None) -> int | None:
    """A whole number of at most 15 digits; None where it is none."""
    match = re.fullmatch(r"\d{1,15}", (raw or "").strip(), re.ASCII)
    return int(match.group()) if match else None
