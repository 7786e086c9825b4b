"""Which device the user means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeprune.errors import UsageError

_SSH = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*)|\[(?P<six>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
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


def parse_device(text: str) -> LocalDevice | SshDevice:
    """Read a device string: "local" or "ssh://[user@]host[:port]".

    Only letters, digits, dots, hyphens and underscores name a host or a user, and neither begins with a hyphen: nothing
    in the string can be taken for an option of ssh or for a command.

    Raises:
        UsageError: it is neither.
    """
    if text == "local":
        return LocalDevice()
    match = _SSH.fullmatch(text)
    port = int(match["port"] or 0) if match else 0
    if not match or port > 65535 or (match["port"] and not port):
        raise UsageError(
            f"{text!r} is not a device", fix="A device is 'local' or 'ssh://[user@]host[:port]', as ssh://pi@rpi.local."
        )
    return SshDevice(match["host"] or match["six"], match["user"] or "", port)
