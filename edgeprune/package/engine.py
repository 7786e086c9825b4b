"""The user's own container engine, by its command line: which one, with what words, and what its complaints mean."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeprune.bench.faults import recognised
from edgeprune.bench.process import end, start
from edgeprune.errors import DeviceError, EdgepruneError, OutputError, UsageError

ENGINES = ("docker", "podman", "buildah")
"""In the order they are looked for."""
ARCHIVES = ("oci", "docker-archive")
BUILD_SECONDS, SHORT_SECONDS = 1800.0, 60.0
_LAST_LINES = 3


@dataclass(frozen=True)
class Build:
    """What to build.

    Attributes:
        context: the folder with the Dockerfile.
        kind: of the archive that will be made, one of `ARCHIVES`.
        reference: the image's name.
        platform: "linux/arm64/v8".
        parent: the image to build on.
        epoch: the time to state, seconds since 1970.
        labels: of the image.
        offline: pull nothing.
        id_file: where the image's id is written.
    """

    context: Path
    kind: str
    reference: str
    platform: str
    parent: str
    epoch: int
    labels: Mapping[str, str]
    offline: bool
    id_file: Path


def build_words(engine: str, build: Build) -> list[str]:
    """The command that builds an image."""
    labels = [word for key, value in sorted(build.labels.items()) for word in ("--label", f"{key}={value}")]
    own = [f"--platform={build.platform}", f"--tag={build.reference}", f"--iidfile={build.id_file}"]
    arguments = [f"--build-arg=BASE={build.parent}"]
    if engine == "docker":
        arguments.append(f"--build-arg=SOURCE_DATE_EPOCH={build.epoch}")
    else:
        # Only the docker format has HEALTHCHECK; and a random name in it, so that only OCI images repeat to the digest.
        form, pull = "oci" if build.kind == "oci" else "docker", "never" if build.offline else "false"
        own += [f"--format={form}", f"--timestamp={build.epoch}", f"--pull={pull}", "--layers=false"]
        own += ["--identity-label=false"] if engine == "buildah" else []
    command = [engine, "bud" if engine == "buildah" else "build"]
    return [*command, *own, *arguments, *labels, f"--file={build.context / 'Dockerfile'}", str(build.context)]


def save_words(engine: str, reference: str, kind: str, path: Path) -> list[str]:
    """The command that writes an image into a file of one of the kinds `ARCHIVES`."""
    form = "oci-archive" if kind == "oci" else kind
    if engine == "docker":
        return [engine, "save", f"--output={path}", reference]  # from version 25 on, this file is both
    if engine == "podman":
        return [engine, "save", f"--format={form}", f"--output={path}", reference]
    return [engine, "push", reference, f"{form}:{path}:{reference}"]


def push_words(engine: str, reference: str) -> list[str]:
    """The command that sends an image to its registry."""
    return [engine, "push", reference, *([f"docker://{reference}"] if engine == "buildah" else [])]


@contextmanager
def nothing_left(engine: str, reference: str, parent: str) -> Iterator[None]:
    """What a build leaves in the engine's storage is removed if the block fails: the image, and what it was made in.

    An image that had the name before keeps it.
    """
    before, image = _workplaces(engine, parent), _image(engine, reference)
    try:
        yield
    except BaseException:
        with suppress(EdgepruneError):
            made = _image(engine, reference)
            if not image:  # by its name: the same image may have others
                call([engine, "rmi", "--force", reference], SHORT_SECONDS)
            elif made != image:
                call([engine, "tag", image, reference], SHORT_SECONDS)
                call([engine, "rmi", made], SHORT_SECONDS)
        for left in _workplaces(engine, parent) - before:
            with suppress(EdgepruneError):
                call([engine, "rm", *(["--force"] if engine == "podman" else []), left], SHORT_SECONDS)
        raise


def _image(engine: str, reference: str) -> str:
    """The id of the image that has a name; empty where none has."""
    with suppress(EdgepruneError):
        return call([engine, "images", "--quiet", "--no-trunc", reference], SHORT_SECONDS).strip()
    return ""


def _workplaces(engine: str, parent: str) -> set[str]:
    """The containers in which podman and buildah build on an image: one that is ended leaves its own behind."""
    if engine == "docker":
        return set()
    podmans = ["ps", "--all", "--external", "--format={{.Names}}"]
    words = podmans if engine == "podman" else ["containers", "--format={{.ContainerName}}"]
    start = parent.partition("@")[0].rpartition("/")[2].partition(":")[0] + "-working-container"
    with suppress(EdgepruneError):
        return {name for name in call([engine, *words], SHORT_SECONDS).split() if name.startswith(start)}
    return set()


def find(asked: str = "auto", which: Callable[[str], str | None] = shutil.which) -> str:
    """The engine to use: the one asked for, or the first that is installed and answers.

    Raises:
        UsageError: the name is not known.
        DeviceError: it is not installed, or its daemon does not answer.
    """
    if asked not in ("auto", *ENGINES):
        raise UsageError(f"no engine {asked!r}", where="--engine", fix=f"There are: auto, {', '.join(ENGINES)}.")
    refused: list[EdgepruneError] = []
    for name in ENGINES if asked == "auto" else (asked,):
        if which(name) is None:
            continue
        try:
            call([name, "version" if name != "buildah" else "--version"], SHORT_SECONDS)
        except EdgepruneError as error:
            refused.append(error)
        else:
            return name
    if refused:
        raise refused[0]
    raise DeviceError(
        "no container engine is installed" if asked == "auto" else f"{asked} is not installed",
        fix="Install docker, podman or buildah; --output folder needs none.",
    )


def parent_architecture(engine: str, parent: str) -> str | None:
    """The architecture of a base image that is here, "arm64"; None where it is not."""
    form = "{{.OCIv1.Architecture}}" if engine == "buildah" else "{{.Architecture}}"
    middle = ["inspect", "--type=image"] if engine == "buildah" else ["image", "inspect"]
    with suppress(EdgepruneError):
        return call([engine, *middle, "--format", form, parent], SHORT_SECONDS).strip()
    return None


def check_parent(engine: str, parent: str, platform: str, offline: bool) -> None:
    """Refuse a base that would fail later, or make an image that cannot run.

    Raises:
        DeviceError: it is not here and may not be pulled, or is for another architecture.
    """
    wanted, found = platform.split("/")[1], parent_architecture(engine, parent)
    if found is None and offline:
        raise DeviceError(
            f"the base image is not here, and --offline pulls nothing: {parent}",
            fix=f"Where there is a network: {engine} pull --platform={platform} {parent}; or name another with --base.",
        )
    if found not in (None, wanted) and (offline or parent.startswith("localhost/")):
        raise DeviceError(
            f"the base image that is here is for {found}, not {wanted}: {parent}",
            fix=f"{engine} pull --platform={platform} {parent}; or name another with --base.",
        )


def call(argv: Sequence[str], seconds: float) -> str:
    """Run an engine's command to its end; what it started does not outlive it.

    Returns:
        Its standard output.

    Raises:
        EdgepruneError: it failed or took too long, in the user's words where the fault is known.
    """
    with tempfile.TemporaryFile() as log:
        # Attestations hold the time of the build.
        process = start(["env", "BUILDX_NO_DEFAULT_ATTESTATIONS=1", *argv], log)
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{argv[0]} {argv[1]} did not end within {seconds:g} s") from None
        finally:
            end(process)
        log.seek(0)
        complaint = log.read().decode(errors="replace")
    if process.returncode:
        raise fault(argv, complaint)
    return said


def fault(argv: Sequence[str], complaint: str) -> EdgepruneError:
    """The error for a command that failed.

    Args:
        argv: the command.
        complaint: its standard error.
    """
    engine, lines = argv[0], [line.strip() for line in complaint.splitlines() if line.strip()]
    if found := recognised(_FAULTS, lines, str.lower):
        kind = OutputError if "no space" in found.sign else DeviceError
        return kind(found.what.format(engine=engine), where=found.line[:300], fix=found.fix.format(engine=engine))
    return DeviceError(f"{engine} {argv[1]} failed", where=" | ".join(lines[-_LAST_LINES:])[:500])


_FAULTS = (
    ("no space left on device", "the disk is full", "Free some space: {engine} system prune shows what it could give."),
    (
        "cannot connect to the docker daemon",
        "docker is installed, but its daemon is not running",
        "Start it (systemctl start docker), or name another with --engine.",
    ),
    (
        "permission denied while trying to connect",
        "you may not use docker's daemon",
        "Add yourself to the group docker, or name another with --engine.",
    ),
    ("exec format error", "{engine} cannot run programs of the board's architecture here", "See --no-smoke."),
    ("unauthorized", "the registry refuses", "{engine} login REGISTRY"),
    ("authentication required", "the registry refuses", "{engine} login REGISTRY"),
    ("access to the resource is denied", "the registry refuses", "{engine} login REGISTRY"),
    ("denied:", "the registry refuses", "{engine} login REGISTRY"),
    ("no such host", "the registry cannot be reached", "Check the network, or name an image that is here with --base."),
    ("dial tcp", "the registry cannot be reached", "Check the network, or name an image that is here with --base."),
    ("manifest unknown", "the registry does not have this image", "Check the name after --base."),
    ("image not known", "there is no such image here", "Check the name after --base."),
    ("no such image", "there is no such image here", "Check the name after --base."),
)
"""What is in a line of standard error, in small letters; what it means; what to do."""


def machine_of(platform: str) -> str:
    """What uname says on an image's platform: "aarch64" of "linux/arm64/v8"."""
    architecture = platform.split("/")[1]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(architecture, architecture)


def check_emulation(platform: str, machine: str, binfmt: Path = Path("/proc/sys/fs/binfmt_misc")) -> None:
    """Refuse to test an image that this kernel cannot run, before it is built.

    Args:
        platform: of the image.
        machine: this one's, as uname says.
        binfmt: where the kernel lists its emulators.

    Raises:
        DeviceError: there is no emulator for the image's architecture, or containers cannot use it.
    """
    wanted = machine_of(platform)
    if wanted == machine or sys.platform != "linux":  # elsewhere engines bring a kernel of their own
        return
    fix = (
        "apt-get install qemu-user-static binfmt-support, or: docker run --privileged --rm tonistiigi/binfmt "
        f"--install {platform.split('/')[1]}; --no-smoke ships the image untested."
    )
    try:
        text = (binfmt / f"qemu-{wanted}").read_text()
    except OSError:
        text = ""
    if not text.startswith("enabled"):
        raise DeviceError(f"this machine cannot run {wanted} programs, so the image cannot be tested", fix=fix)
    flags = next((line for line in text.splitlines() if line.startswith("flags:")), "")
    if "F" not in flags.partition(":")[2]:
        raise DeviceError(f"this machine's emulator for {wanted} cannot be seen from within containers", fix=fix)
