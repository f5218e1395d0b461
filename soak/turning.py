"""Splits of a session with one primary: both sites write, and either side's writes are given up.

Such a session can turn round; the soak's own has several primaries and cannot. So each of these makes one of its own, over
a volume that nobody else uses, beside everything that goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from isochrone.model.split import Divergence, Side
from isochrone.nbd.client import connect
from isochrone.testing.processes import ControllerProcess, wait_until
from soak.sites import SETTLE_S_MAX, WEST, Place, SoakError
from soak.stage import Fault, Stage

SESSION: Final = "turn"
VOLUME: Final = "turn"
SIZE_BYTES: Final = 8 << 20
BLOCK_BYTES: Final = 8192
WRITES: Final = 40


@dataclass(slots=True)
class Turning:
    """The session.

    Attributes:
        primary, secondary: as the direction is now.
    """

    stage: Stage
    primary: ControllerProcess
    secondary: ControllerProcess

    def report(self) -> dict[str, Any]:
        """Return the session as its mover sees it."""
        report: dict[str, Any] = self.secondary.get(f"/v1/sessions/{SESSION}")
        return report

    def create(self) -> None:
        """Begin with some content; return when it is DUPLEX."""
        self.primary.create_volume(VOLUME, SIZE_BYTES)
        self.write(self.primary)
        request = {
            "name": SESSION,
            "primaries": [self._reached_at(self.primary)],
            "pairs": [
                {"primary": self.primary.name, "primary_volume": VOLUME, "secondary_volume": VOLUME},
            ],
        }
        self.secondary.post("/v1/sessions", request)
        self.settle()

    def delete(self) -> None:
        """Leave nothing behind."""
        self.secondary.delete(f"/v1/sessions/{SESSION}")
        wait_until(self._is_gone, "the session is gone", deadline_s=SETTLE_S_MAX)
        for controller in (self.primary, self.secondary):
            controller.delete(f"/v1/volumes/{VOLUME}")

    def _is_gone(self) -> bool:
        sessions = [report["name"] for report in self.secondary.get("/v1/sessions")]
        captures = [report["name"] for report in self.primary.get("/v1/captures")]
        return SESSION not in (*sessions, *captures)

    @staticmethod
    def _reached_at(controller: ControllerProcess) -> dict[str, str]:
        return {"name": controller.name, "address": controller.link_address}

    def write(self, controller: ControllerProcess) -> None:
        """Overwrite some blocks at a site."""
        with connect(controller.nbd_socket, VOLUME) as client:
            for _ in range(WRITES):
                offset = self.stage.random.randrange(SIZE_BYTES // BLOCK_BYTES) * BLOCK_BYTES
                client.write(offset, self.stage.random.randbytes(BLOCK_BYTES))

    def content(self, controller: ControllerProcess) -> bytes:
        """Return what a site serves."""
        return self.stage.sites.image(controller, Place(controller, VOLUME, SIZE_BYTES))

    def settle(self) -> None:
        """Wait until the pair is DUPLEX and both sites hold the same, nobody writing."""

        def is_settled() -> bool:
            report = self.report()
            if report["state"] == "SUSPENDED":
                self.secondary.post(f"/v1/sessions/{SESSION}/resume", {})
                return False
            return all(pair["state"] == "DUPLEX" for pair in report["pairs"]) and not report["blocked_on"]

        wait_until(is_settled, "the pair is DUPLEX", deadline_s=SETTLE_S_MAX)
        wait_until(
            lambda: self.content(self.primary) == self.content(self.secondary),
            "both sites hold the same",
            deadline_s=SETTLE_S_MAX,
        )

    def recover(self, *, drain: bool = False) -> None:
        """Bring the secondary into service."""
        self.secondary.post(f"/v1/sessions/{SESSION}/recover", {"drain": drain})
        wait_until(lambda: self.report()["state"] == "ENDED", "the session is ENDED", deadline_s=SETTLE_S_MAX)

    def split(self) -> None:
        """The link is cut, the secondary recovered, both sites write, and know of each other again."""
        network = self.stage.sites.network
        east = self.primary.name if self.primary.name != WEST else self.secondary.name
        network.cut(east, WEST)
        try:
            self.recover()
            self.write(self.secondary)
            self.write(self.primary)
        finally:
            network.heal()
        wait_until(
            lambda: self.report()["split"]["divergence"] == Divergence.DIVERGED,
            "the session says that it is DIVERGED",
            deadline_s=SETTLE_S_MAX,
        )

    def discard(self, side: Side) -> None:
        """Give a side's writes up; the other's content is what both have in the end."""
        if side is Side.SECONDARY:
            kept = self.content(self.primary)
            self.secondary.post(f"/v1/sessions/{SESSION}/resync", {"discard": side})
        else:
            kept = self.content(self.secondary)
            request = {"discard": side, "primary": self._reached_at(self.secondary)}
            self.primary.post(f"/v1/sessions/{SESSION}/resync", request)
            self.primary, self.secondary = self.secondary, self.primary
        self.settle()
        if self.content(self.secondary) != kept:
            raise SoakError(f"after the {side}'s writes were given up, the other's are not what is there")


def _turn(side: Side) -> str:
    return f"{side}'s writes given up after a split"


def _begin(stage: Stage) -> Turning:
    turning = Turning(stage, stage.sites.east[-1], stage.sites.west)
    turning.create()
    return turning


def _discard_secondary(stage: Stage) -> str:
    turning = _begin(stage)
    turning.split()
    turning.discard(Side.SECONDARY)
    turning.write(turning.primary)
    turning.settle()
    turning.delete()
    return "both sites equal, in the old direction"


def _discard_primary(stage: Stage) -> str:
    """There and back: after the direction has turned round, a planned switchover and a turn lead home again."""
    turning = _begin(stage)
    turning.split()
    turning.discard(Side.PRIMARY)
    turning.write(turning.primary)
    turning.settle()
    turning.recover(drain=True)
    turning.write(turning.secondary)
    wait_until(
        lambda: turning.report()["split"]["divergence"] == Divergence.SECONDARY,
        "the session says that only the recovered site wrote",
        deadline_s=SETTLE_S_MAX,
    )
    turning.discard(Side.PRIMARY)
    if turning.secondary is not stage.sites.west:
        raise SoakError("two turns do not lead home")
    turning.delete()
    return "turned round, and back by a planned switchover"


_SPLIT: Final = (
    r"was recovered at .* under epoch.*request failed",
    r"request failed.*was recovered at",
)
TURNS: Final = (
    Fault(_turn(Side.SECONDARY), _discard_secondary, _SPLIT, needs_rest=True),
    Fault(_turn(Side.PRIMARY), _discard_primary, _SPLIT, needs_rest=True),
)
