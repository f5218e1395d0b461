"""What faults are done to, and what a fault is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from isochrone.testing.processes import ControllerProcess, kill_together
from soak.loads import Load, VersionLoad
from soak.sites import WEST, Sites
from support.faulty_device import FaultyDevice

SHORT_S: Final = (0.3, 1.5)


@dataclass(slots=True)
class Stage:
    """What faults are done to.

    Attributes:
        frail: the device of east's last primary.
        versions: the application of that primary, the only one.
        proofs: what was verified, by kind, with counts.
        link_bytes_per_s: of the link to west in good times; None for as fast as it goes.
    """

    sites: Sites
    loads: Sequence[Load]
    random: random.Random
    frail: FaultyDevice
    versions: VersionLoad
    proofs: dict[str, int] = field(default_factory=dict)
    link_bytes_per_s: int | None = None

    def set_link(self, bytes_per_s: int | None) -> None:
        """Give the link another rate for good times: on a slow one, resyncs last long enough to be met by faults."""
        self.link_bytes_per_s = bytes_per_s
        self.restore_link()

    def restore_link(self) -> None:
        """Give the link its rate for good times back."""
        if self.link_bytes_per_s is None:
            self.sites.network.unlimit_rate()
        else:
            self.sites.network.limit_rate(WEST, self.link_bytes_per_s)

    def a_primary(self) -> ControllerProcess:
        """One of east's controllers."""
        return self.random.choice(self.sites.east)

    def pause(self, range_s: tuple[float, float]) -> float:
        """Let some time pass; return the seconds."""
        seconds = self.random.uniform(*range_s)
        self.sites.pass_time(seconds)
        return seconds

    def lose(self, *lost: ControllerProcess) -> None:
        """SIGKILL primaries, and what cannot live without them."""
        kill_together(lost)
        for load in self.loads:
            load.primaries_lost(lost)

    def regain(self, *lost: ControllerProcess) -> None:
        """Start primaries and their applications again."""
        for controller in lost:
            controller.launch()
        for controller in lost:
            controller.wait_ready()
        for load in self.loads:
            load.start()

    def prove(self, controller: ControllerProcess, recovered_ns: int, loads: Sequence[Load]) -> str:
        """Check images of a time; return what was proved."""
        proved = [load.check(controller, recovered_ns) for load in loads]
        for load in loads:
            kind = type(load).__name__.removesuffix("Load").lower()
            self.proofs[kind] = self.proofs.get(kind, 0) + 1
        return ", ".join(proved)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        do: does it all; returns what was done, for the report.
        expects: regular expressions of WARN and ERROR lines that it may bring about.
        needs_rest: it begins only when the session is DUPLEX.
    """

    name: str
    do: Callable[[Stage], str]
    expects: tuple[str, ...] = ()
    needs_rest: bool = False
