"""What is in a package, for those who must know: a CycloneDX bill of materials and a list of licences."""

from __future__ import annotations

import uuid
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

from edgeprune import __version__
from edgeprune.files import sha256_of, sha256_of_json
from edgeprune.package.choice import Choice

_NOT_STATED = "not stated"


@dataclass(frozen=True)
class Component:
    """A package that travels along.

    Attributes:
        name: as the index spells it.
        version: of it.
        licence: an SPDX expression, or what else its makers call it; "not stated" if they do not say.
        spdx: whether `licence` is an SPDX expression.
        texts: where in the wheel the licence's text is.
        wheel: the file.
        sha256: of it.
    """

    name: str
    version: str
    licence: str
    spdx: bool
    texts: tuple[str, ...]
    wheel: Path
    sha256: str


def components(wheels: Iterable[Path]) -> tuple[Component, ...]:
    """What the wheels say of themselves, by name."""
    return tuple(sorted(map(_component, wheels), key=lambda one: one.name.lower()))


def requirements(packages: Sequence[Component]) -> str:
    """What `pip install --require-hashes` wants: each package in the one version, with the one hash."""
    return "".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in packages)


def licences(packages: Sequence[Component], choice: Choice) -> str:
    """Who asks what of those who pass the package on, one line each."""
    rows = [
        ("name", "version", "licence", "its text"),
        ("edgeprune (worker)", __version__, "Apache-2.0", "LICENSE"),
        (choice.model, choice.artifact.path, "that of the model and its training images", "ask their makers"),
        *((one.name, one.version, one.licence, _where(one.texts)) for one in packages),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) + "\n"
        for row in rows
    )


def bill_of_materials(packages: Sequence[Component], choice: Choice, epoch: int) -> dict[str, Any]:
    """A CycloneDX 1.6 document (ECMA-424); the same content gives the same document.

    Args:
        packages: what travels along.
        choice: the model.
        epoch: the time to state, seconds since 1970.
    """
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": choice.artifact.path,
        "version": choice.artifact.sha256[:12],
        "hashes": [{"alg": "SHA-256", "content": choice.artifact.sha256}],
    }
    worker = {
        "type": "application",
        "bom-ref": "worker",
        "name": "edgeprune",
        "version": __version__,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    listed = [model, worker, *map(_listed, packages)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, sha256_of_json([listed, epoch])).urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "edgeprune", "version": __version__}]},
            "component": {"type": "application", "bom-ref": "package", "name": choice.model},
        },
        "components": listed,
        "dependencies": [{"ref": "package", "dependsOn": [one["bom-ref"] for one in listed]}],
    }


def _component(wheel: Path) -> Component:
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist() if name.endswith(".dist-info/METADATA")}
        found = PathDistribution(zipfile.Path(archive, f"{folder}/")).metadata
        inside = [name for name in archive.namelist() if name.startswith(f"{folder}/")]
    fields = {name: found[name] for name in found}
    classes = [line.split(" :: ")[-1] for line in found.get_all("Classifier") or () if line.startswith("License ::")]
    # Older wheels hold the whole text in this field; its first line names it.
    plain = (fields.get("License") or "").strip().splitlines()[:1]
    spdx = fields.get("License-Expression")
    texts = tuple(sorted(name for name in inside if _is_licence(name)))
    licence = spdx or ", ".join(classes or plain) or _NOT_STATED
    return Component(found["Name"], found["Version"], licence, bool(spdx), texts, wheel, sha256_of(wheel))


def _is_licence(name: str) -> bool:
    words = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "THIRDPARTY")
    return name.rpartition("/")[2].upper().startswith(words)


def _where(texts: Sequence[str]) -> str:
    if len(texts) < 2:
        return texts[0] if texts else "none in the wheel"
    return f"{texts[0]} and {len(texts) - 1} more beside it"


def _listed(one: Component) -> Mapping[str, Any]:
    address = f"pkg:pypi/{one.name.lower().replace('_', '-')}@{one.version}"
    named = [{"expression": one.licence}] if one.spdx else [{"license": {"name": one.licence}}]
    return {
        "type": "library",
        "bom-ref": address,
        "name": one.name,
        "version": one.version,
        "hashes": [{"alg": "SHA-256", "content": one.sha256}],
        "licenses": [] if one.licence == _NOT_STATED else named,
        "purl": address,
    }
