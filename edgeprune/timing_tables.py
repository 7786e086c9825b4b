"""What the timing commands found, drawn for the terminal; each draws the JSON document it could print instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from edgeprune.profile_tables import print_profiles
from edgeprune.report.energy import energy_of
from edgeprune.report.headline import threads
from edgeprune.report.heat import minutes, result
from edgeprune.report.numbers import change, scaled, significant, speed_up
from edgeprune.report.plain import from_plain
from edgeprune.report.render.terminal import fitted
from edgeprune.report.table import Column, Table
from edgeprune.report.tables import ENERGY_COLUMNS, energy_cells, energy_note
from edgeprune.sustained import Sustained
from edgeprune.terminal import print_json, table

_BENCH = (
    Column("artifact"),
    Column("runtime", minor=True),
    Column("threads", number=True, short="thr"),
    Column("size", number=True, minor=True),
    Column("p50 ms", number=True),
    Column("p90 ms", number=True, minor=True),
    Column("p99 ms", number=True),
    Column("speed-up [95 %]", number=True),
    Column("detectable", number=True, minor=True),
    Column("verdict"),
    Column("parity", minor=True),
)
_ACROSS = (
    Column("A"),
    Column("B", minor=True),
    Column("runtime", minor=True),
    Column("threads", number=True, short="thr"),
    Column("A / B [95 %]", number=True),
    Column("detectable", number=True),
    Column("B is"),
)


def print_bench(document: Mapping[str, Any], as_json: bool) -> None:
    """Print what `edgeprune.benching.bench` found; of an emulator, no time."""
    if as_json:
        print_json(document)
        return
    console = Console(highlight=False)
    for device in document["devices"]:
        trust = "OK" if device["trust"] == "ok" else device["trust"]
        title = f"{device['device']} ({_machine(device)})  trust: {trust}"
        rows = () if device["sustained"] else tuple(map(_timed, device["rows"]))
        console.print(fitted(Table("bench", title, "", _BENCH, rows)) if rows else title)
        for one in device["sustained"]:
            _print_heat(console, from_plain(Sustained, one))
        _print_slow(console, device["rows"])
        _print_energy(console, device["rows"])
        for doubt in device["doubts"]:
            of = f"{doubt['measurements']} of {len(device['rows'])} measurements"
            line = f"{doubt['reason']}: {doubt['said']} ({of}). {doubt['remedy']}"
            console.print(escape(line), style="red" if doubt["fatal"] else "yellow", soft_wrap=True)
    print_profiles(document, console)
    if document["gate"]:
        console.print(f"gate {document['gate']['asked']:g}x: {'met' if document['gate']['met'] else 'not met'}")


def _print_slow(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Say of which files nobody should expect that they are faster."""
    slow = [
        f"{Path(row['artifact']).name} ({row['runtime']}, {threads(row['threads'])})"
        for row in rows
        if row["speed_up"] and row["speed_up"]["verdict"] != "faster"
    ]
    if slow:
        told = f"Not recommended, as not surely faster than the first file: {', '.join(slow)}"
        console.print(escape(told), style="yellow", soft_wrap=True)


def _print_energy(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    told = [(row, found) for row in rows if (found := energy_of(row["energy"] or {}))]
    drawn = [
        (Path(row["artifact"]).name, row["runtime"], str(row["threads"]), *energy_cells(found))
        for row, found in told
        if not found.unavailable
    ]
    if drawn:
        console.print(fitted(Table("energy", "Energy", "", ENERGY_COLUMNS, tuple(drawn))))
    for line in dict.fromkeys(energy_note(found) for _, found in told):
        console.print(escape(f"Energy: {line}"), soft_wrap=True)


def _print_heat(console: Console, one: Sustained) -> None:
    one = replace(one, files=tuple(replace(file, artifact=Path(file.artifact).name) for file in one.files))
    setting = f"{one.runtime}, {threads(one.threads)}"
    for drawn in (result(one, "result", setting), minutes(one, "minutes", setting)):
        console.print(fitted(drawn))
        console.print(drawn.note, soft_wrap=True, end="\n" if drawn.note else "")


def print_across(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print comparisons of two stored runs."""
    if as_json:
        print_json({"schema": 1, "comparisons": list(rows)})
        return
    console = Console(highlight=False)
    drawn = tuple(
        (
            row["first"],
            row["second"],
            row["runtime"],
            str(row["threads"]),
            speed_up(row["ratio"], tuple(row["ci95"])),
            change(row["detectable"]),
            row["verdict"] + (" (MIXED)" if row["mixed"] else ""),
        )
        for row in rows
    )
    console.print(fitted(Table("across", "A against B", "", _ACROSS, drawn)))
    told = ["Not side by side: what changed between the two runs is in these ratios too."]
    told += [line for row in rows for line in (*row["differs"], *row["doubts"])]
    for line in dict.fromkeys(told):
        console.print(escape(line), style="yellow", soft_wrap=True)


def print_findings(found: Mapping[str, Sequence[Mapping[str, Any]]], as_json: bool) -> None:
    """Print what `edgeprune.bench.doctor` found on each device."""
    if as_json:
        print_json({"schema": 1, "devices": found})
        return
    console = Console(highlight=False)
    for device, rows in found.items():
        console.print(f"[bold]{escape(device)}[/]")
        drawn = [{"what": row["what"], "": row["state"], "found": row["value"], "do": row["fix"]} for row in rows]
        console.print(table(drawn))


def _timed(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of a bench: its times, or that it works where times mean nothing."""
    pair, parity, functional = row["speed_up"], row["parity"], row.get("functional", False)
    verdict = pair["verdict"] if pair else "reference" if row["reference"] else "-"
    return (
        Path(row["artifact"]).name,
        f"{row['runtime']} {row['runtime_version']}{_elsewhere(row['placement'])}",
        str(row["threads"]),
        scaled(row["bytes"], "B"),
        *("-" if functional else significant(row[f"{name}_ms"]) for name in ("p50", "p90", "p99")),
        speed_up(pair["ratio"], tuple(pair["ci95"])) if pair else "1x" if row["reference"] else "-",
        change(pair["detectable"]) if pair else "-",
        _works(row) if functional else verdict,
        f"max|d| {parity['max_abs']:.1e} {'PASS' if parity['passed'] else 'FAIL'}" if parity else "-",
    )


def _elsewhere(placement: Mapping[str, float]) -> str:
    """What the runtime did not execute where it was asked to."""
    if len(placement) < 2:
        return ""
    shares = sorted(placement.items(), key=lambda place: -place[1])
    return " (" + ", ".join(f"{share:.0%} {name.removesuffix('ExecutionProvider')}" for name, share in shares) + ")"


def _works(row: Mapping[str, Any]) -> str:
    """What may be said where times mean nothing; of an output that differs, a doubt says more."""
    return "functional, output as here" if (row["device_parity"] or {}).get("passed") else "functional"


def _machine(device: Mapping[str, Any]) -> str:
    """A device in a line: board, cores and clock, governor, temperature and throttle bits before and after."""
    facts, end = device["facts"], device["at_end"]
    start = facts.get("at_start", {})
    clock = f"x{facts['max_frequency_mhz'] / 1000:.2f} GHz" if "max_frequency_mhz" in facts else " cores"
    parts = [facts.get("model") or facts.get("cpu"), f"{facts['cores']}{clock}" if "cores" in facts else None]
    parts += [facts.get("governor"), "EMULATED" if facts.get("emulated") else None]
    if "temperature_c" in start and "temperature_c" in end:
        parts.append(f"{start['temperature_c']:.0f}->{end['temperature_c']:.0f} C")
    parts.append(f"throttle 0x{end['throttled']:x}" if "throttled" in end else None)
    return ", ".join(part for part in parts if part) or "a machine that does not name itself"
