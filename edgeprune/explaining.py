"""explaining: why cut files are not faster, asked of the runtimes, kept beside the times and told in the report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.compare import Comparison
from edgeprune.bench.explain import explanations
from edgeprune.bench.profiling import PROFILES_NAME, profile
from edgeprune.bench.transport import Transport
from edgeprune.explanation import Explanation
from edgeprune.profile import Profile, append_profiles, load_profiles
from edgeprune.progress import Tick
from edgeprune.report.machines import machine_name


def explained(folder: Path, artifacts: Sequence[Artifact]) -> tuple[Explanation, ...]:
    """Why the cut files are not faster, machine by machine, by the newest profile of every file in a run folder."""
    path, files = folder / PROFILES_NAME, {one.sha256 for one in artifacts}
    newest: dict[str, dict[tuple[str, str, str, int], Profile]] = {}
    for one in load_profiles(path) if path.exists() else ():
        if one.artifact in files:
            its = newest.setdefault(machine_name(one.device), {})
            its[one.artifact, one.role, one.runtime, one.threads] = one
    return tuple(
        replace(told, device=machine) for machine, its in newest.items() for told in explanations(tuple(its.values()))
    )


def ask_why(
    artifacts: Sequence[Artifact],
    folder: Path,
    images: np.ndarray,
    slow: Collection[Comparison],
    transport: Transport,
    tick: Tick,
) -> None:
    """Profile the cut files that are not surely faster, beside their uncut ones, where they were found to be so.

    Args:
        artifacts: of the run.
        folder: of the run; profiles are appended there.
        images: that they were timed with, float32 [k, C, H, W].
        slow: the comparisons to explain.
        transport: the device, entered.
        tick: told of each file.
    """
    for runtime, threads in sorted({(one.runtime, one.threads) for one in slow}):
        paths = {one.candidate for one in slow if (one.runtime, one.threads) == (runtime, threads)}
        formats = {one.format for one in artifacts if one.path in paths}
        wanted = [one for one in artifacts if one.format in formats]
        found, _ = profile(wanted, folder, images, threads, transport=transport, runtimes=(runtime,), tick=tick)
        append_profiles(folder / PROFILES_NAME, found)
