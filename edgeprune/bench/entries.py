"""What is measured in one run: which file, in which runtime, with how many threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.artifact import Artifact
from edgeprune.worker.runtimes import RUNTIMES


@dataclass(frozen=True)
class Entry:
    """What the worker calls by an id."""

    id: str
    artifact: Artifact
    runtime: str
    threads: int


def entries(artifacts: Sequence[Artifact], runtimes: Sequence[str], threads: Sequence[int]) -> list[Entry]:
    """Every artifact in each of its runtimes at every thread count.

    What computes elsewhere than on the CPU is measured at the first thread count alone. A file that is given twice is
    measured twice, side by side.

    Args:
        artifacts: the files.
        runtimes: see `runtimes_of`.
        threads: thread counts.
    """
    found: dict[str, Entry] = {}
    asked = (
        (artifact, runtime, count)
        for count in threads
        for artifact in artifacts
        for runtime in runtimes_of(artifact, runtimes)
        if count == threads[0] or not RUNTIMES[runtime].accelerator
    )
    for artifact, runtime, count in asked:
        name, copies = f"{artifact.path}@{count}", 1
        while name in found:
            copies += 1
            name = f"{artifact.path}@{count}#{copies}"
        found[name] = Entry(name, artifact, runtime, count)
    return list(found.values())


def runtimes_of(artifact: Artifact, named: Sequence[str]) -> tuple[str, ...]:
    """The runtimes to measure an artifact in: those named that read its format, or where none is named its default."""
    return tuple(name for name in named if RUNTIMES[name].format == artifact.format) if named else (artifact.runtime,)
