"""From a run to what is carried to the board: choose, fetch, write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.package.bundle import MARK, WHEELS, packages, write_bundle
from edgeprune.package.choice import choose
from edgeprune.package.inventory import components
from edgeprune.report.document import Report
from edgeprune.runfolder import check_free, staged
from edgeprune.target import load_target
from edgeprune.wheels import DEFAULT_PYTHON, download, platform_with

SCHEMA = 1


@dataclass(frozen=True)
class PackageOrder:
    """What is asked for.

    Attributes:
        run: a finished run folder.
        target: the board; None for the one the run was made for.
        artifact: the file's name; None for the pruned one in the format that the target prefers.
        python: version of the board's Python.
        out: the folder to make; None for `bundle` in the run folder.
        wheels: a folder to take the wheels from instead of an index.
        overwrite: replace a bundle that exists.
    """

    run: Path
    target: str | None = None
    artifact: str | None = None
    python: str = DEFAULT_PYTHON
    out: Path | None = None
    wheels: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Packaged:
    """What was made.

    Attributes:
        folder: the bundle.
        artifact: the file's name.
        target: the board's.
        packages: "name==version" each.
        bytes: of all files.
        warnings: what the board's file says a user must know.
    """

    folder: Path
    artifact: str
    target: str
    packages: tuple[str, ...]
    bytes: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON document."""
        return {"schema": SCHEMA, **vars(self), "folder": str(self.folder), "packages": list(self.packages)}


def package(order: PackageOrder, listener: Listener | None = None) -> Packaged:
    """Make a bundle for a board from one file of a run.

    Raises:
        EdgepruneError: see `edgeprune.errors`; nothing is left half-made.
    """
    journal = Journal(listener or Nobody())
    target = load_target(order.target or Report.load(order.run / "report.json").target.name)
    choice = choose(order.run, target, order.artifact)
    system = platform_with(target.arch, order.python)
    out = order.out or order.run / "bundle"
    check_free(out, order.overwrite, MARK)
    if order.wheels and not order.wheels.is_dir():
        raise UsageError("no such folder", where=str(order.wheels), fix="Name a folder of wheels with --wheels.")
    with staged(out) as work:
        (work / WHEELS).mkdir()
        with journal.stage(f"wheels for {system}"):
            wheels = download(system, [*packages(choice), "pip"], work / WHEELS, target.name, order.wheels)
        with journal.stage("bundle"):
            write_bundle(choice, target, system, wheels, work)
        inside = tuple(f"{one.name}=={one.version}" for one in components(wheels))
        size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    return Packaged(out, choice.artifact.path, target.name, inside, size, target.warnings)
