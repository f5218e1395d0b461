"""Addresses of sockets as text."""

from __future__ import annotations

import pytest

from isochrone.model.addresses import (
    UNIX_PATH_BYTES_MAX,
    Address,
    TcpAddress,
    UnixAddress,
    parse_address,
    parse_peer_address,
)
from isochrone.model.errors import RefusedError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:127.0.0.1:7074", TcpAddress("127.0.0.1", 7074)),
        ("tcp:db-1.site_b.example.org:1", TcpAddress("db-1.site_b.example.org", 1)),
        ("tcp:localhost:0", TcpAddress("localhost", 0)),
        ("tcp:[::1]:65535", TcpAddress("::1", 65535)),
        ("tcp:[fe80::1%eth0]:7074", TcpAddress("fe80::1%eth0", 7074)),
        ("unix:/run/isochrone/a link.sock", UnixAddress("/run/isochrone/a link.sock")),
        ("unix:/" + "x" * (UNIX_PATH_BYTES_MAX - 1), UnixAddress("/" + "x" * (UNIX_PATH_BYTES_MAX - 1))),
    ],
)
def test_an_address_is_parsed_and_printed_as_it_was_written(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:7074",
        "tcp",
        "tcp:",
        "tcp:host",
        "tcp:host:",
        "tcp::7074",
        "tcp:host:port",
        "tcp:host:65536",
        "tcp:host:-1",
        "tcp:host:٣",
        "tcp:host:123456789",
        "tcp:::1:7074",
        "tcp:[::1]",
        "tcp:[127.0.0.1]:7074",
        "tcp:[]:7074",
        "tcp:[fe80::1%a/b]:7074",
        "tcp:[fe80::1%" + "e" * 300 + "]:7074",
        "tcp:ho st:7074",
        "tcp:-host:7074",
        "tcp:" + "h" * 300 + ":1",
        "tcp://host:7074",
        "TCP:host:7074",
        "http://host:7074",
        "unix:",
        "unix:relative.sock",
        "unix:/folder/",
        "unix:/a\0b",
        "unix:/" + "x" * UNIX_PATH_BYTES_MAX,
        "unix:/" + "é" * 54,
    ],
)
def test_a_malformed_address_is_refused_with_a_cure(text: str) -> None:
    with pytest.raises(RefusedError, match=r"write|use|choose"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:10.0.0.1:7481", "tcp:10.0.0.1:7481"),
        ("site-b.example:7481", "tcp:site-b.example:7481"),
        ("tcp:[fd00::1]:7481", "tcp:[fd00::1]:7481"),
        ("[::1]:7481", "tcp:[::1]:7481"),
        ("unix:/run/isochrone/link.sock", "unix:/run/isochrone/link.sock"),
    ],
)
def test_an_address_to_dial_needs_no_scheme_for_tcp(text: str, address: str) -> None:
    assert str(parse_peer_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:0",
        "host:65536",
        "host:port",
        "unix:relative",
        "http://h:1",
        "h:1\n",
        "a b:1",
        "h:1" * 200,
    ],
)
def test_what_cannot_be_dialled_is_no_address(text: str) -> None:
    with pytest.raises(RefusedError, match=r"write|use"):
        parse_peer_address(text)
