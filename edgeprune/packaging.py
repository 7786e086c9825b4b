"""From a run to what is carried to the board: choose, fetch, write."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeprune.errors import OutputError, UsageError
from edgeprune.files import write_json
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.package.bundle import MARK, WHEELS, packages, write_bundle
from edgeprune.package.choice import Choice, choose
from edgeprune.package.engine import ARCHIVES
from edgeprune.package.image import ROOT, ImageOrder, make_image, settled, write_context
from edgeprune.package.inventory import Component, components
from edgeprune.report.document import Report
from edgeprune.runfolder import check_free, staged
from edgeprune.target import Target, load_target
from edgeprune.wheels import DEFAULT_PYTHON, Platform, download, platform_with, wheels_in
from edgeprune.worker.runtimes import RUNTIMES

SCHEMA = 1
OUTPUTS = ("folder", *ARCHIVES, "context")
"""A bundle, an image's file in one of two formats, the folder an image is built from."""
_PLACES = {"folder": "bundle", "oci": "image.oci.tar", "docker-archive": "image.docker.tar", "context": "context"}


@dataclass(frozen=True)
class PackageOrder:
    """What is asked for.

    Attributes:
        run: a finished run folder.
        target: the board; None for the one the run was made for.
        artifact: the file's name; None for the pruned one in the format that the target prefers.
        runtime: to execute it in on the board; None for the file's format's own.
        python: version of the board's Python.
        output: of `OUTPUTS`.
        out: the folder or file to make; None for one in the run folder.
        wheels: a folder of wheels, or a bundle, to take them from instead of an index.
        overwrite: replace a bundle or file that exists.
        image: what is asked for of an image; its kind is `output`.
    """

    run: Path
    target: str | None = None
    artifact: str | None = None
    runtime: str | None = None
    python: str = DEFAULT_PYTHON
    output: str = "folder"
    out: Path | None = None
    wheels: Path | None = None
    overwrite: bool = False
    image: ImageOrder = field(default_factory=lambda: ImageOrder("oci"))

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: an option is wrong, or two exclude each other.
        """
        if self.output not in OUTPUTS:
            raise UsageError(f"no output {self.output!r}", where="--output", fix=f"There are: {', '.join(OUTPUTS)}.")
        if self.image.push and self.output not in ARCHIVES:
            raise UsageError("only an image can be pushed", where="--push", fix="Add --output oci.")
        if self.wheels:
            wheels_in(self.wheels)
        if self.image.offline and not self.wheels:
            raise UsageError(
                "--offline asks no index, so the wheels must be here",
                where="--offline",
                fix="Name their folder with --wheels: a bundle will do.",
            )

    def place(self) -> Path:
        """The folder or file to make."""
        return self.out or self.run / _PLACES[self.output]


@dataclass(frozen=True)
class Packaged:
    """What was made.

    Attributes:
        place: the bundle, the context, or the image's file.
        artifact: the file's name.
        target: the board's.
        packages: "name==version" each.
        bytes: of all files.
        image: of an image, see `edgeprune.package.image.make_image`; else None.
    """

    place: Path
    artifact: str
    target: str
    packages: tuple[str, ...]
    bytes: int
    image: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON document."""
        return {"schema": SCHEMA, **vars(self), "place": str(self.place), "packages": list(self.packages)}


def package(order: PackageOrder, listener: Listener | None = None) -> Packaged:
    """Make a bundle or an image for a board from one file of a run.

    Of an image, what is known is kept in the run folder, too, as `package.json`.

    Raises:
        EdgepruneError: see `edgeprune.errors`; nothing is left half-made.
    """
    order.check()
    journal = Journal(listener or Nobody())
    report = Report.load(order.run / "report.json")
    target = load_target(order.target or report.target.name)
    choice = choose(order.run, report, target, order.artifact, order.runtime)
    system = platform_with(target.arch, order.python)
    if order.output in ARCHIVES:
        return _image(order, choice, target, system, journal)
    check_free(order.place(), order.overwrite, MARK if order.output == "folder" else f"app/{ROOT}/{MARK}")
    with staged(order.place()) as work:
        if order.output == "folder":
            packed = _packed([*packages(choice), "pip"], system, target, order, work / WHEELS, journal)
            with journal.stage("bundle"):
                write_bundle(choice, target, system, packed, work)
            return _packaged(order, choice, target, packed, _size(work))
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
            packed = _packed(packages(choice), system, target, order, Path(scratch), journal)
            with journal.stage("context"):
                write_context(choice, target, packed, work)
            return _packaged(order, choice, target, packed, _size(work))


def _image(order: PackageOrder, choice: Choice, target: Target, system: Platform, journal: Journal) -> Packaged:
    out = order.place()
    if out.exists() and (out.is_dir() or not order.overwrite):
        raise OutputError(
            "the output exists", where=str(out), fix="Name another with --out, or replace it with --overwrite."
        )
    asked = order.image
    if asked.smoke and RUNTIMES[choice.runtime].accelerator:
        journal.warn(f"the image is not tested here: {choice.runtime} needs the board's own hardware")
        asked = replace(asked, smoke=False)
    asked = settled(asked, target, order.python, out)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        packed = _packed(packages(choice), system, target, order, Path(scratch), journal)
        image = make_image(asked, choice, target, packed, out, journal)
        made = _packaged(order, choice, target, packed, out.stat().st_size, image)
    write_json(order.run / "package.json", made.to_json())
    return made


def _packed(
    names: Sequence[str], system: Platform, target: Target, order: PackageOrder, folder: Path, journal: Journal
) -> tuple[Component, ...]:
    folder.mkdir(exist_ok=True)
    with journal.stage(f"wheels for {system}"):
        return components(download(system, names, folder, target.name, order.wheels))


def _packaged(
    order: PackageOrder,
    choice: Choice,
    target: Target,
    packed: Sequence[Component],
    size: int,
    image: Mapping[str, Any] | None = None,
) -> Packaged:
    inside = tuple(f"{one.name}=={one.version}" for one in packed)
    return Packaged(order.place(), choice.artifact.path, target.name, inside, size, image)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
