"""The image: the same files as in a bundle, the wheels unpacked, on a base that has Python."""

from __future__ import annotations

import os
import platform as this
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune import __version__
from edgeprune.errors import DeviceError, UsageError
from edgeprune.files import sha256_of, writing
from edgeprune.journal import Journal
from edgeprune.package import engine as engines
from edgeprune.package.archive import contents, save
from edgeprune.package.bundle import epoch_of, settle, write_files
from edgeprune.package.choice import Choice
from edgeprune.package.inventory import Component
from edgeprune.package.smoke import smoke
from edgeprune.registry import shipped
from edgeprune.target import Target
from edgeprune.worker.install import unpack

PARENTS: Mapping[str, str] = {
    version: f"docker.io/library/python:{version}-slim" for version in ("3.9", "3.10", "3.11", "3.12", "3.13")
}
"""Version of Python -> the base, where none is named. Name one with its digest to be sure what it holds."""
ROOT = "opt/edgeprune"
"""Where all of it lies in the image; in the context, too: a folder that an engine makes has the time of the day."""
_REFERENCE = re.compile(r"[a-z0-9][a-z0-9._:/-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?", re.ASCII)


@dataclass(frozen=True)
class ImageOrder:
    """What is asked for of an image.

    Attributes:
        kind: of `edgeprune.package.engine.ARCHIVES`.
        engine: a name of `edgeprune.package.engine.ENGINES`, or "auto".
        parent: the image to build on; None for `PARENTS`.
        offline: pull nothing.
        push: the name under which it is sent to its registry; None for not at all.
        smoke: test it before it is shipped.
    """

    kind: str
    engine: str = "auto"
    parent: str | None = None
    offline: bool = False
    push: str | None = None
    smoke: bool = True


def write_context(choice: Choice, target: Target, packed: Sequence[Component], folder: Path) -> None:
    """Write the folder an image is built from: `docker/`'s files, and two trees to copy over its root folder.

    Args:
        choice: what is packaged.
        target: for which board.
        packed: to unpack.
        folder: an empty one.
    """
    for name in ("Dockerfile", ".dockerignore", "docker-bake.hcl", "compose.yaml"):
        shutil.copyfile(shipped("docker") / name, folder / name)
    site, app = folder / "packages" / ROOT / "site", folder / "app" / ROOT
    for place in (site, app):
        place.mkdir(parents=True)
    unpack([one.wheel for one in packed], site)
    write_files(choice, target, packed, app)
    settle(folder, epoch_of(choice))


def reference_of(choice: Choice, target: Target) -> str:
    """The image's name, where none is given."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{choice.model}-{target.name}".lower()).strip("-")
    return f"localhost/edgeprune/{name}:{choice.artifact.sha256[:12]}"


def labels_of(choice: Choice, target: Target, parent: str) -> dict[str, str]:
    """The image's labels: the OCI specification's, and ours."""
    return {
        "org.opencontainers.image.title": f"{choice.model} for {target.title}",
        "org.opencontainers.image.version": choice.artifact.sha256[:12],
        "org.opencontainers.image.base.name": parent,
        "edgeprune.version": __version__,
        "edgeprune.target": target.name,
        "edgeprune.artifact": choice.artifact.path,
        "edgeprune.artifact.sha256": choice.artifact.sha256,
        "edgeprune.plan": choice.artifact.plan_fingerprint or "",
    }


def make_image(
    order: ImageOrder, choice: Choice, target: Target, packed: Sequence[Component], out: Path, journal: Journal
) -> dict[str, Any]:
    """Build an image, test it, write it into a file.

    Args:
        order: what is asked for, as `settled` gives it.
        choice: what is packaged.
        target: for which board.
        packed: for its Python.
        out: the file.
        journal: told of each step.

    Returns:
        engine, reference, id, base, archive with sha256 and bytes, digest and layers of `contents`, smoke; see
        `edgeprune.package.smoke`.

    Raises:
        EdgepruneError: see `edgeprune.errors`; neither image nor file is left.
    """
    engine, parent, reference = order.engine, order.parent or "", order.push or reference_of(choice, target)
    if "@sha256:" not in parent:
        journal.warn(f"the base {parent} is not named by its digest: it may be another one tomorrow")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        context, id_file = Path(scratch) / "context", Path(scratch) / "id"
        context.mkdir()
        write_context(choice, target, packed, context)
        build = engines.Build(
            context=context,
            kind=order.kind,
            reference=reference,
            platform=target.container_platform,
            parent=parent,
            epoch=epoch_of(choice),
            labels=labels_of(choice, target, parent),
            offline=order.offline,
            id_file=id_file,
        )
        made = _shipped(order, build, out, journal)
    facts = {"engine": engine, "reference": reference, "base": parent, "archive": str(out)}
    return {**facts, "sha256": sha256_of(out), "bytes": out.stat().st_size, **made}


def _shipped(order: ImageOrder, build: engines.Build, out: Path, journal: Journal) -> dict[str, Any]:
    """Build, test, write and push."""
    engine, tested = order.engine, None
    with engines.nothing_left(engine, build.reference, build.parent):
        with journal.stage(f"build by {engine}"):
            engines.call(engines.build_words(engine, build), engines.BUILD_SECONDS)
        if order.smoke:
            with journal.stage("smoke test"):
                tested = smoke(engine, build.reference, build.platform, build.context.parent)
        with writing(out) as temporary:
            with journal.stage("archive"):
                save(engine, build.reference, order.kind, build.epoch, temporary)
                digest, layers = contents(temporary)
            if order.push:
                with journal.stage("push"):
                    engines.call(engines.push_words(engine, build.reference), engines.BUILD_SECONDS)
        return {"id": build.id_file.read_text().strip(), "digest": digest, "layers": layers, "smoke": tested}


def settled(order: ImageOrder, target: Target, python: str, out: Path) -> ImageOrder:
    """The order with engine and base decided, once nothing that can be known before speaks against building.

    Raises:
        UsageError: a name is not one.
        DeviceError: no engine, no base, or the image could not be tested here.
    """
    for option, name in (("--base", order.parent), ("--push", order.push)):
        if name is not None and not _REFERENCE.fullmatch(name.partition("@sha256:")[0]):
            raise UsageError(f"{name!r} does not name an image", where=option, fix="As registry.example/name:tag.")
    if ":" in str(out):
        raise UsageError("the file's name holds a colon, which engines read as a tag", where=str(out), fix="Use --out.")
    engine = engines.find(order.engine)
    if order.smoke:
        engines.check_emulation(target.container_platform, this.machine())
        if engine == "buildah" and os.getuid() != 0:
            raise DeviceError(
                "testing an image that buildah made needs root", fix="Use podman, or ship it untested with --no-smoke."
            )
    parent = order.parent or PARENTS[python]
    engines.check_parent(engine, parent, target.container_platform, order.offline)
    return replace(order, engine=engine, parent=parent)
