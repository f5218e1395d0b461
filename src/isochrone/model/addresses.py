"""Where a socket listens or is dialled: `tcp:127.0.0.1:7074`, `tcp:[::1]:7074`, `unix:/run/isochrone.sock`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from isochrone.model.errors import RefusedError

UNIX_PATH_BYTES_MAX: Final = 107
"""Longest path of a unix socket on Linux (sun_path is 108 bytes with its closing zero)."""

HOST_LENGTH_MAX: Final = 253
_TCP: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_SCOPE: Final = re.compile(r"[A-Za-z0-9_.-]*")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_CURE: Final = "write tcp:HOST:PORT (tcp:127.0.0.1:7074, tcp:[::1]:7074) or unix:/PATH"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name, IPv4 or IPv6 address (without brackets) and a port; port 0 listens on any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The absolute path of a unix stream socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Return the address that `text` means; `str()` gives it back. Raises RefusedError with the cure."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "tcp":
        return _parse_tcp(text, rest)
    if colon and scheme == "unix":
        return _parse_unix(text, rest)
    raise RefusedError(f"{text[:200]!r} is not an address: {_CURE}")


def parse_peer_address(text: str) -> Address:
    """Return the address to dial that `text` means; `tcp:` may be left out. Raises RefusedError with the cure."""
    address = parse_address(text if text.startswith(("tcp:", "unix:")) else f"tcp:{text}")
    if isinstance(address, TcpAddress) and address.port == 0:
        raise RefusedError(f"nothing can be reached at port 0 of {text[:200]!r}: use the port it listens on")
    return address


def _parse_tcp(text: str, rest: str) -> TcpAddress:
    match = _TCP.fullmatch(rest)
    if match is None:
        raise RefusedError(f"{text[:200]!r} is not a TCP address: {_CURE}; an IPv6 address needs brackets")
    port = int(match["port"])
    if port > 65535:
        raise RefusedError(f"port {port} of {text[:200]!r} does not exist: use 1 to 65535")
    if match["ipv6"] is not None:
        return TcpAddress(_check_ipv6(text, match["ipv6"]), port)
    host = match["host"]
    if len(host) > HOST_LENGTH_MAX or not _HOST.fullmatch(host):
        raise RefusedError(f"{text[:200]!r} has no usable host name: {_CURE}")
    return TcpAddress(host, port)


def _check_ipv6(text: str, host: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError as error:
        raise RefusedError(f"{text[:200]!r} has no IPv6 address in its brackets: {_CURE}") from error
    if len(host) > HOST_LENGTH_MAX or not _SCOPE.fullmatch(host.partition("%")[2]):
        raise RefusedError(f"{text[:200]!r} names no network interface after '%': {_CURE}")
    return host


def _parse_unix(text: str, path: str) -> UnixAddress:
    if not path.startswith("/") or "\0" in path or path.endswith("/"):
        raise RefusedError(
            f"{text[:200]!r} is not a unix address: write unix: and an absolute path to a file"
        )
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_BYTES_MAX:
        raise RefusedError(
            f"the socket path {path[:200]!r} is over the {UNIX_PATH_BYTES_MAX} bytes that Linux allows: "
            "choose a shorter one, for example under /run"
        )
    return UnixAddress(path)
