"""Where a controller listens: `unix:/run/nbd.sock`, `127.0.0.1:10809`, `[::1]:10809`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from isochrone.model.errors import RefusedError

UNIX_PATH_BYTES_MAX: Final = 107
"""Linux: `sun_path` holds 108 bytes with its closing zero (unix(7))."""

_TCP: Final = re.compile(
    r"(?:tcp:)?(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix stream socket at `path`."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port; port 0 lets the kernel choose one, which the `ready` line then names."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True when only this host can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Return the address that `text` means (`tcp:` before a host is allowed). RefusedError names the forms."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise RefusedError(
                f"{text!r} is not usable; write the full path, as in unix:/run/isochrone/nbd.sock"
            )
        if len(path.encode()) > UNIX_PATH_BYTES_MAX or "\0" in path:
            raise RefusedError(
                f"{text!r} is not usable: a socket path has at most {UNIX_PATH_BYTES_MAX} bytes; "
                "choose a shorter one"
            )
        return UnixAddress(path)
    match = _TCP.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise RefusedError(
            f"{text!r} is not an address; write unix:/path or HOST:PORT, as in 127.0.0.1:10809"
        )
    return TcpAddress(match["six"] or match["host"], int(match["port"]))
