"""A network of our own between controllers: each in a network namespace, all around one router that can lose packets.

::

    east-1 10.231.1.2 ---\\
    east-2 10.231.2.2 ---- router ---- west 10.231.3.2

A packet is lost without a word (no reset, no ICMP), as where a cable or a tunnel is cut, and for each direction by
itself. No address is reachable from outside of the namespaces, and nothing outside from them.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from support.programs import ProgramError, run

LINK_PORT: Final = 7481
_ROUTER: Final = "router"
_BURST_BYTES: Final = 64 << 10
_QUEUE_MS: Final = 50


def require_network() -> None:
    """Skip the test, with the reason, where network namespaces cannot be made."""
    reason = network_forbidden()
    if reason:
        pytest.skip(reason)


@functools.cache
def network_forbidden() -> str:
    """Return why network namespaces cannot be made here, "" when they can."""
    if os.geteuid() != 0:
        return "network namespaces are made as root only"
    try:
        with running_network("a"):
            return ""
    except ProgramError as error:
        return f"this machine does not allow network namespaces: {error}"


class Network:
    """The network of some hosts; `running_network` makes and removes it."""

    def __init__(self, *hosts: str) -> None:
        self._hosts = hosts
        self._prefix = f"iso-{os.getpid()}-"
        self._blocked: set[tuple[str, str]] = set()
        self._limited: set[str] = set()

    def address(self, host: str) -> str:
        """IPv4 address of `host`."""
        return f"10.231.{self._number(host)}.2"

    def link_address(self, host: str) -> str:
        """What a controller on `host` is told to listen on for movers."""
        return f"tcp:{self.address(host)}:{LINK_PORT}"

    def command_prefix(self, host: str) -> tuple[str, ...]:
        """What to put before a command so that it runs on `host`."""
        return ("nsenter", f"--net=/run/netns/{self._prefix}{host}", "--")

    def block(self, sender: str, receiver: str) -> None:
        """Lose every packet that `sender` sends to `receiver`, from now on."""
        if (sender, receiver) not in self._blocked:
            self._rule("add", sender, receiver)
            self._blocked.add((sender, receiver))

    def cut(self, one: str, other: str) -> None:
        """Lose every packet between two hosts."""
        self.block(one, other)
        self.block(other, one)

    def heal(self) -> None:
        """Lose nothing any more."""
        for sender, receiver in list(self._blocked):
            self._rule("del", sender, receiver)
            self._blocked.discard((sender, receiver))

    def limit_rate(self, receiver: str, bytes_per_s: int) -> None:
        """Let through only so much to `receiver`, with a short queue, until `unlimit_rate`."""
        limits = ["rate", f"{bytes_per_s}bps", "burst", str(_BURST_BYTES), "latency", f"{_QUEUE_MS}ms"]
        verb = "replace" if receiver in self._limited else "add"
        self._on_router("tc", "qdisc", verb, "dev", self._device(receiver), "root", "tbf", *limits)
        self._limited.add(receiver)

    def unlimit_rate(self) -> None:
        """As fast as it goes, to everybody."""
        for receiver in list(self._limited):
            self._on_router("tc", "qdisc", "del", "dev", self._device(receiver), "root")
            self._limited.discard(receiver)

    def make(self) -> None:
        """Make the namespaces and the ways between them."""
        for name in (_ROUTER, *self._hosts):
            run("ip", "netns", "add", self._prefix + name)
            run("ip", "-n", self._prefix + name, "link", "set", "lo", "up")
        for host in self._hosts:
            number, device = self._number(host), self._device(host)
            ends = ["netns", self._prefix + host, "type", "veth", "peer", "name", device]
            run("ip", "link", "add", "up0", *ends, "netns", self._prefix + _ROUTER)
            for name, end, place in ((host, "up0", 2), (_ROUTER, device, 1)):
                where = ["ip", "-n", self._prefix + name]
                run(*where, "address", "add", f"10.231.{number}.{place}/24", "dev", end)
                run(*where, "link", "set", end, "up")
            run("ip", "-n", self._prefix + host, "route", "add", "default", "via", f"10.231.{number}.1")
        self._on_router("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")

    def remove(self) -> None:
        """Remove what there is of it; processes in it must have ended, or keep their namespace alive."""
        for name in (*self._hosts, _ROUTER):
            if Path(f"/run/netns/{self._prefix}{name}").exists():
                run("ip", "netns", "delete", self._prefix + name)

    def _number(self, host: str) -> int:
        return self._hosts.index(host) + 1

    def _device(self, host: str) -> str:
        return f"to{self._number(host)}"

    def _rule(self, verb: str, sender: str, receiver: str) -> None:
        where = ["iif", self._device(sender), "to", self.address(receiver)]
        run("ip", "-n", self._prefix + _ROUTER, "rule", verb, *where, "blackhole")

    def _on_router(self, *words: str) -> None:
        run(*self.command_prefix(_ROUTER), *words)


@contextlib.contextmanager
def running_network(*hosts: str) -> Iterator[Network]:
    """A network of `hosts`, removed at the end. Raises ProgramError where the machine forbids it."""
    network = Network(*hosts)
    try:
        network.make()
        yield network
    finally:
        network.remove()


def isolated(*, binds: Sequence[tuple[Path, Path]] = ()) -> tuple[str, ...]:
    """Return a command prefix: the command reaches nobody, and sees each (seen, place) of `binds` at `place`, it alone."""
    script = 'while [ -n "$1" ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'
    words = [str(path) for pair in binds for path in pair]
    return ("unshare", "--mount", "--net", "--", "sh", "-e", "-c", script, "sh", *words, "")
