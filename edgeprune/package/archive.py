"""The file an image is shipped in: written by the engine, made to repeat to the byte, read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from edgeprune.errors import DeviceError, OutputError
from edgeprune.package import engine as engines

_ACCIDENTAL = ("container", "container_config")
"""Fields of docker's image configuration that tell of the build, not of the image."""


def save(engine: str, reference: str, kind: str, epoch: int, path: Path) -> None:
    """Write an image into a file.

    Args:
        engine: that holds it.
        reference: the image.
        kind: of `edgeprune.package.engine.ARCHIVES`.
        epoch: the time to state in docker's, seconds since 1970.
        path: the file.

    Raises:
        EdgepruneError: the engine cannot, or the disk is full.
    """
    engines.call(engines.save_words(engine, reference, kind, path), engines.BUILD_SECONDS)
    if kind == "docker-archive":
        settled = path.with_name(f"{path.name}.settled")
        try:
            settle_archive(path, epoch, settled)
            settled.replace(path)
        finally:
            settled.unlink(missing_ok=True)
        return
    with tarfile.open(path) as archive:
        if "oci-layout" not in archive.getnames():
            raise DeviceError(
                "this docker does not write OCI archives",
                fix="Take --output docker-archive, or docker 25 or newer, or podman.",
            )


def settle_archive(path: Path, epoch: int, out: Path) -> None:
    """Write a docker archive anew without the times of its build and the names of the containers it took.

    Layers and what the image does stay as they are ("Docker Image Specification v1.2").

    Args:
        path: what an engine wrote.
        epoch: the time to state, seconds since 1970.
        out: the file to write.
    """
    with tarfile.open(path) as archive, tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as settled:
        (listed,) = _json(archive, "manifest.json")
        config = _settled(_json(archive, listed["Config"]), epoch)
        layers = [f"{digest.removeprefix('sha256:')}.tar" for digest in config["rootfs"]["diff_ids"]]
        for name, own in zip(listed["Layers"], layers, strict=True):
            with _stream(archive, name) as layer:
                _add(settled, own, layer, epoch)
        text = json.dumps(config, sort_keys=True).encode()
        facts = {"Config": f"{sha256(text).hexdigest()}.json", "RepoTags": listed["RepoTags"], "Layers": layers}
        _add(settled, facts["Config"], io.BytesIO(text), epoch)
        _add(settled, "manifest.json", io.BytesIO(json.dumps([facts]).encode()), epoch)


def _settled(config: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    time = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kept = {key: value for key, value in config.items() if key not in _ACCIDENTAL}
    own = {key: value for key, value in config["config"].items() if key not in ("Hostname", "Image")}
    history = [{**entry, "created": time} for entry in config.get("history", ())]
    return {**kept, "config": own, "created": time, "history": history}


def contents(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """What is in an image's archive.

    Returns:
        The digest: of the manifest of an OCI archive, of the configuration of docker's. The layers, lowest first: bytes
        as stored there, and whether that is compressed.

    Raises:
        OutputError: it is no archive of an image.
    """
    try:
        with tarfile.open(path) as archive:
            sizes = {member.name: member.size for member in archive}
            if "index.json" in sizes:
                (found,) = _json(archive, "index.json")["manifests"]
                layers = _json(archive, _blob(found["digest"]))["layers"]
                return found["digest"], [_layer(one["size"], one["mediaType"]) for one in layers]
            (listed,) = _json(archive, "manifest.json")
            digest = f"sha256:{Path(listed['Config']).stem}"
            return digest, [_layer(sizes[name], "tar") for name in listed["Layers"]]
    except (tarfile.TarError, KeyError, ValueError, TypeError) as error:
        raise OutputError(f"not an archive of an image: {error}", where=str(path)) from error


def _layer(size: int, kind: str) -> dict[str, Any]:
    return {"bytes": size, "compressed": kind.endswith(("gzip", "zstd"))}


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(archive: tarfile.TarFile, name: str) -> Any:
    return json.loads(_stream(archive, name).read())


def _stream(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """A file of the archive; where it is a link, what it leads to."""
    stream = archive.extractfile(name)
    if stream is None:
        raise KeyError(f"{name} is no file")
    return stream


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], epoch: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = content.seek(0, io.SEEK_END), epoch
    content.seek(0)
    archive.addfile(member, content)
