"""racing: what layers of int8 files take in int8 and in float, and which of two files is faster, asked of the board."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeprune.artifact import Artifact
from edgeprune.bench.by_layer import by_layer
from edgeprune.bench.compare import compare
from edgeprune.bench.profiling import profile
from edgeprune.bench.session import measure
from edgeprune.bench.single import made_up_images, single_files
from edgeprune.bench.slots import slot
from edgeprune.bench.transport import open_device
from edgeprune.bench.trust import doubts
from edgeprune.errors import DeviceError, TrustError, UsageError
from edgeprune.export.race import Lap, Writer
from edgeprune.files import output_error
from edgeprune.journal import Journal
from edgeprune.report.machines import machine_name
from edgeprune.request import Request
from edgeprune.target import Target
from edgeprune.trying import facts_of


class BoardRace:
    """`edgeprune.export.race.Race` on a device.

    Args:
        device: a device string.
        threads: that runtimes use.
        journal: told of each step.
    """

    def __init__(self, device: str, threads: int, journal: Journal) -> None:
        self._device, self._threads, self._journal = device, threads, journal

    def layer_ms(self, form: str, files: Sequence[Writer]) -> list[Mapping[str, float]]:
        """What each layer of each file takes, in ms; see the protocol."""
        with (
            _written(form, files) as (folder, artifacts),
            slot(self._device),
            self._journal.stage("profile") as tick,
            open_device(self._device) as transport,
        ):
            images = made_up_images(artifacts[0].input_shape)
            found, refused = profile(artifacts, folder, images, self._threads, transport=transport, tick=tick)
        if refused:
            raise DeviceError(refused[0].reason, where=self._device, fix=refused[0].fix)
        return [by_layer(one) for one in found]

    def lap(self, form: str, file: Writer, other: Writer) -> Lap:
        """Time two files against each other; see the protocol."""
        with (
            _written(form, (file, other)) as (folder, artifacts),
            slot(self._device),
            self._journal.stage("race") as tick,
            open_device(self._device) as transport,
        ):
            images = made_up_images(artifacts[0].input_shape)
            measured = measure(artifacts, folder, images, (self._threads,), transport=transport, tick=tick)
        fatal = next((doubt for one in measured for doubt in doubts(one) if doubt.fatal), None)
        if fatal:
            raise TrustError(f"the times of the race are not to be trusted ({fatal})", where=self._device)
        found = next(iter(compare(measured)), None)
        if found is None:
            raise TrustError("too few clean rounds were left to say which file is faster", where=self._device)
        return Lap(found.ratio, found.ci95, found.verdict == "faster")


def race_of(request: Request, target: Target, journal: Journal) -> BoardRace | None:
    """Where the layers of a run's int8 files are timed; None where that is not asked for, or the device is emulated.

    Raises:
        DeviceError: the device cannot be reached.
        UsageError: it is of another kind than the board that the files are for.
    """
    if not request.float_where_faster:
        return None
    device = request.device or "local"
    facts = facts_of(device)
    if facts.get("emulated"):
        journal.warn(f"no layer stays in float for the sake of time: {machine_name(facts)}; times there say nothing")
        return None
    if facts.get("machine") != target.arch:
        what = f"layers for {target.name} ({target.arch}) cannot be timed on {machine_name(facts)}"
        fix = (
            "Run it on such a board (compress: or name one, --device ssh://user@host), or take --target host; "
            "or leave --float-where-faster out."
        )
        raise UsageError(what, where=device, fix=fix)
    cores = len(os.sched_getaffinity(0)) if device == "local" else target.cores
    return BoardRace(device, min(target.threads[0], cores), journal)


@contextmanager
def _written(form: str, files: Sequence[Writer]) -> Iterator[tuple[Path, tuple[Artifact, ...]]]:
    """Files in a folder of their own, the first as the baseline."""
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
        folder = Path(name)
        paths = [folder / f"{place}.{form}" for place in range(len(files))]
        for path, write in zip(paths, files, strict=True):
            try:
                write(path)
            except OSError as error:
                raise output_error(error, path) from error
        yield folder, single_files(paths)
