"""Addresses of links as text."""

from __future__ import annotations

import pytest

from isochrone.link.address import UNIX_PATH_BYTES_MAX, Address, TcpAddress, UnixAddress, parse_address
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
