"""Which device the user means."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Literal

from edgeprune.errors import UsageError

_SSH = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*)|\[(?P<six>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)
_IMAGE = re.compile(  # as the distribution specification's reference grammar has it
    r"(?P<engine>docker|podman)://(?P<image>"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?)",
    re.ASCII,
)


@dataclass(frozen=True)
class LocalDevice:
    """This machine."""

    def __str__(self) -> str:
        return "local"


@dataclass(frozen=True)
class SshDevice:
    """A board that `ssh` reaches.

    Attributes:
        host: a name, an address, or a `Host` of the user's ssh configuration.
        user: empty: what the configuration says.
        port: 0: what the configuration says.
    """

    host: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return "ssh://" + (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


@dataclass(frozen=True)
class ContainerDevice:
    """A container on this machine.

    Attributes:
        engine: the program that runs it.
        image: a reference to one that is already here.
    """

    engine: Literal["docker", "podman"]
    image: str

    def __str__(self) -> str:
        return f"{self.engine}://{self.image}"


Device = LocalDevice | SshDevice | ContainerDevice


def parse_device(text: str) -> Device:
    """Read a device string: "local", "ssh://[user@]host[:port]", "docker://IMAGE" or "podman://IMAGE".

    Only letters, digits, dots, hyphens and underscores name a host or a user, an image is named as registries do, and
    none of them begins with a hyphen: nothing in the string can be taken for an option or for a command.

    Raises:
        UsageError: it is none of these.
    """
    if text == "local":
        return LocalDevice()
    image = _IMAGE.fullmatch(text)
    if image:
        return ContainerDevice("docker" if image["engine"] == "docker" else "podman", image["image"])
    match = _SSH.fullmatch(text)
    port = int(match["port"] or 0) if match else 0
    if not match or port > 65535 or (match["port"] and not port):
        raise UsageError(
            f"{text!r} is not a device",
            fix="A device is 'local', 'ssh://[user@]host[:port]' as in ssh://pi@rpi.local, 'docker://IMAGE' or "
            "'podman://IMAGE'.",
        )
    return SshDevice(match["host"] or match["six"], match["user"] or "", port)


def how_to_install(package: str, name: str) -> str:
    """What the user does to get a package onto a device.

    Args:
        package: as pip calls it.
        name: a device string.
    """
    device = parse_device(name)
    if isinstance(device, SshDevice):
        return f"edgeprune bench --setup --device {name}"
    if isinstance(device, ContainerDevice):
        return f"Add it to the image, in its Dockerfile: RUN pip install {package}"
    return f"{sys.executable} -m pip install {package}"
