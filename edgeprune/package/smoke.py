"""The smoke test: does the image compute what the host computes? Under an emulator it is never timed."""

from __future__ import annotations

import json
import platform as this
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgeprune.errors import DeviceError, EdgepruneError, ParityError
from edgeprune.package.engine import SHORT_SECONDS, call, fault, machine_of
from edgeprune.worker.onboard import DIFFERS

SECONDS = 300.0
"""A start takes some seconds under an emulator; a crash there may hang."""
QEMU_CPU = "cortex-a72"
"""Without it QEMU takes every instruction it knows for granted; NumPy's SVE kernels then gave NaN (QEMU 7.2)."""
WORDS = "functional under emulation, not timed"
_CHECK = ("check", "--json")


def cpuinfo() -> str:
    """/proc/cpuinfo of a Cortex-A72: with the x86 host's own, ONNX Runtime and LiteRT crash under QEMU."""
    fields = {
        "BogoMIPS": "108.00",
        "Features": "fp asimd evtstrm crc32 cpuid",
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": "0xd08",
        "CPU revision": "3",
    }
    text = "".join(f"{key}\t: {value}\n" for key, value in fields.items())
    return "\n".join(f"processor\t: {core}\n{text}" for core in range(4))


def run_words(engine: str, reference: str, platform: str, name: str, seen: Path | None) -> list[str]:
    """The command that tests an image as it should be run: no network, no writable root, not as root.

    Args:
        engine: docker or podman.
        reference: the image.
        platform: of it.
        name: of the container.
        seen: what it shall see as /proc/cpuinfo; None where nothing is emulated.
    """
    fixed = ["--rm", "--init", "--pull=never", "--network=none", "--read-only", "--cap-drop=ALL", f"--name={name}"]
    faked = [f"--env=QEMU_CPU={QEMU_CPU}", f"--volume={seen}:/proc/cpuinfo:ro"] if seen else []
    return [engine, "run", *fixed, f"--platform={platform}", *faked, reference, *_CHECK]


def chroot_words(root: str, config: Mapping[str, Any]) -> list[str]:
    """The same without an engine that runs: in the image's root folder, as its user, with its variables.

    Args:
        root: the folder.
        config: the image's, as the OCI specification names its fields.
    """
    variables = [*config["Env"], f"QEMU_CPU={QEMU_CPU}"]
    user = ["chroot", f"--userspec={config['User']}", root]
    return [*user, "/usr/bin/env", "-i", *variables, *config["Entrypoint"], *_CHECK]


def smoke(engine: str, reference: str, platform: str, scratch: Path) -> dict[str, Any]:
    """Run an image's own check.

    Args:
        engine: that holds the image.
        reference: the image.
        platform: of it.
        scratch: a folder for what the container is shown.

    Returns:
        What `check` printed, and `emulated` and `said`.

    Raises:
        ParityError: the image computes something else than the host.
        DeviceError: it does not run.
    """
    emulated = machine_of(platform) != this.machine()
    if engine == "buildah":
        with _mounted(reference) as root:
            said = _answer(chroot_words(root, _config(reference)), reference)
    else:
        seen, name = scratch / "cpuinfo", f"edgeprune-{secrets.token_hex(6)}"
        seen.write_text(cpuinfo())
        try:
            said = _answer(run_words(engine, reference, platform, name, seen if emulated else None), reference)
        finally:
            with suppress(EdgepruneError):  # usually it is gone
                call([engine, "rm", "--force", name], SHORT_SECONDS)
    return {**said, "emulated": emulated, "said": WORDS if emulated else "functional"}


def _answer(argv: Sequence[str], reference: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            ["timeout", "--kill-after=5", f"{SECONDS:g}", *argv],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise DeviceError(f"cannot start the image: {error}", where=reference) from error
    if done.returncode == DIFFERS:
        raise ParityError("the image does not compute what the host computes", where=f"{reference}: {done.stdout}")
    if done.returncode == 124:
        raise DeviceError(f"the image did not answer within {SECONDS:g} s", where=reference)
    if done.returncode:
        why = fault(argv, done.stderr)
        why.where = f"{reference}: {why.where}"
        raise why
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document


@contextmanager
def _mounted(reference: str) -> Iterator[str]:
    container = call(["buildah", "from", "--pull-never", reference], SHORT_SECONDS).strip()
    try:
        yield call(["buildah", "mount", container], SHORT_SECONDS).strip()
    finally:
        call(["buildah", "rm", container], SHORT_SECONDS)


def _config(reference: str) -> dict[str, Any]:
    said = json.loads(call(["buildah", "inspect", "--type=image", reference], SHORT_SECONDS))
    config: dict[str, Any] = said["OCIv1"]["config"]
    return config
