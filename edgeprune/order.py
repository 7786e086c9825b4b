"""Order: what `bench` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import UsageError
from edgeprune.registry import unknown
from edgeprune.stats import MIN_ROUNDS
from edgeprune.wheels import wheels_in
from edgeprune.worker.runtimes import RUNTIMES

LEAST_SUSTAINED_S = 30.0
"""Enough for some rounds of blocks of a second each; boards take minutes to become hot."""


@dataclass(frozen=True)
class Order:
    """What to measure, and how.

    Attributes:
        files: one run folder, or model files of which the first is the baseline.
        devices: "local", "ssh://...", "docker://..." or "podman://..."; those on several machines work at once.
        runtimes: to measure in: each file in those of them that read its format; empty for each format's default.
        threads: thread counts; empty for 1 and as many as this machine has cores (4 at most), on a board for 1 and 4.
        rounds: blocks of each file; None for the default.
        minutes: how long to measure on each device, instead.
        sustained_s: instead, how long to keep each device under load until it is hot; None for an ordinary bench.
        energy: watch each device's power afterwards.
        gate: the lower end of each speed-up's interval must be at least this; None for no such demand.
        profile: ask the runtimes afterwards what each operator takes, at the first thread count.
        set_up: put runtimes on the boards first.
        wheels: a folder of wheels, or a bundle, to take these from; None to download them.
        collect: measure nothing, but fetch what a board finished after its connection was lost.
        clean: remove from the boards what was put there.
        out: where to keep the samples of single files and a report of them; None for nowhere.
        seed: of the order within rounds.
        command: what the user typed, for the report.
    """

    files: tuple[Path, ...]
    devices: tuple[str, ...] = ("local",)
    runtimes: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    rounds: int | None = None
    minutes: float | None = None
    sustained_s: float | None = None
    energy: bool = False
    gate: float | None = None
    profile: bool = False
    set_up: bool = False
    wheels: Path | None = None
    collect: bool = False
    clean: bool = False
    out: Path | None = None
    seed: int = 0
    command: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            UsageError: which option, and what it may be.
        """
        if not self.files and not (self.set_up or self.clean):
            raise UsageError("nothing to measure", fix="Name a run folder, or model files: the first is the baseline.")
        if self.wheels:
            if not self.set_up:
                raise UsageError("--wheels says what --setup puts on the board", fix="Add --setup, or leave it out.")
            wheels_in(self.wheels)
        if self.collect and not all(name.startswith("ssh://") for name in self.devices):
            raise UsageError("--collect is for boards", fix="Name the board: --device ssh://user@host")
        for name in self.runtimes:
            if name not in RUNTIMES:
                raise unknown("--runtime", name, RUNTIMES)
        if self.rounds is not None and self.minutes is not None:
            raise UsageError("--blocks and --minutes exclude each other", fix="Give one of them.")
        if self.sustained_s is not None:
            self._check_sustained()
        if self.rounds is not None and self.rounds < MIN_ROUNDS:
            raise UsageError(
                f"--blocks must be at least {MIN_ROUNDS}, got {self.rounds}", fix="Fewer cannot show any difference."
            )
        for option, value in (("--minutes", self.minutes), ("--gate", self.gate)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{option} must be above 0, got {value}", fix=f"For example: {option} 1.3")
        if any(count < 1 for count in self.threads):
            raise UsageError("--threads must be whole numbers above 0", fix="For example: --threads 1,4")

    def _check_sustained(self) -> None:
        if self.rounds is not None or self.minutes is not None:
            raise UsageError("--sustained says how long; --blocks and --minutes do, too", fix="Give one of them.")
        if self.energy:
            raise UsageError("--energy watches an ordinary bench, not sustained load", fix="Run one after the other.")
        if len(self.threads) > 1 or len(self.runtimes) > 1:
            raise UsageError(
                "--sustained heats the board for one setting: what came second would start hot",
                fix="Name one of --threads and one --runtime, and let the board cool down before the next.",
            )
        assert self.sustained_s is not None
        if not LEAST_SUSTAINED_S <= self.sustained_s < float("inf"):
            raise UsageError(f"--sustained must be at least {LEAST_SUSTAINED_S:g}s", fix="For example: --sustained 10m")
