"""Suspending real sessions by command: at a time, drained, cancelled, over a kill, and single pairs."""

from __future__ import annotations

from typing import Any

import pytest

from isochrone.nbd.client import connect
from isochrone.testing.processes import ControllerProcess, ProcessError, wait_until
from support.site import Replica, Site, replicate

MIB = 1 << 20
BLOCK = 4096
WAIT_S_MAX = 30.0


class Bank:
    """Volume `data` at primary a and `wal` at primary b, mirrored at s."""

    def __init__(self, site: Site) -> None:
        self.a, self.b, self.s = site.controllers("a", "b", "s")
        self.a.create_volume("data", 8 * MIB)
        self.b.create_volume("wal", 8 * MIB)
        self.replica: Replica = replicate("bank", [(self.a, "data"), (self.b, "wal")], self.s)

    def write(self, number: int) -> None:
        """Write block `number` of both volumes."""
        for controller, volume in ((self.b, "wal"), (self.a, "data")):
            with connect(controller.nbd_socket, volume) as client:
                client.write(number * BLOCK, number.to_bytes(8, "big") * (BLOCK // 8))

    def blocks(self, volume: str) -> list[int]:
        """Return which of the blocks 1 to 9 the committed image has."""
        with connect(self.s.nbd_socket, volume) as client:
            return [n for n in range(1, 10) if client.read(n * BLOCK, 8) == n.to_bytes(8, "big")]

    def wait_blocks(self, volume: str, blocks: list[int]) -> None:
        wait_until(lambda: self.blocks(volume) == blocks, f"{volume} has {blocks}", deadline_s=WAIT_S_MAX)

    def suspend(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = self.s.command_json("session", "suspend", "bank", *words)
        return found

    def pair(self, volume: str) -> dict[str, Any]:
        pairs: list[dict[str, Any]] = self.replica.report()["pairs"]
        return next(pair for pair in pairs if pair["secondary_volume"] == volume)


@pytest.fixture
def bank(site: Site) -> Bank:
    return Bank(site)


def test_a_drained_session_has_everything_acknowledged_before_the_command_and_nothing_later(
    bank: Bank,
) -> None:
    bank.write(1)
    report = bank.suspend("--drain", "--wait", "--timeout", "30")
    bank.write(2)
    assert (report["state"], report["suspended_cause"]) == ("SUSPENDED", "command")
    assert (bank.blocks("data"), bank.blocks("wal")) == ([1], [1])
    assert report["consistency"]["wall"] in bank.s.command("session", "show", "bank")
    bank.s.command("session", "resume", "bank")
    bank.wait_blocks("data", [1, 2])
    bank.replica.wait_duplex()


def test_a_pending_suspension_outlives_a_kill_of_its_mover_and_can_be_cancelled(bank: Bank) -> None:
    assert bank.suspend("--at", "+1h")["suspend_at"]
    bank.s.kill()
    bank.s.start()
    assert bank.replica.report()["pending_command"].startswith("suspend: at ")
    bank.suspend("--cancel")
    assert bank.replica.report()["suspend_at"] is None
    bank.write(1)
    bank.wait_blocks("data", [1])


def test_a_time_that_has_passed_is_refused_in_words(bank: Bank) -> None:
    with pytest.raises(ProcessError, match="time already passed"):
        bank.suspend("--at", "2020-01-01T00:00:00Z")
    assert bank.replica.report()["state"] == "ACTIVE"


def test_one_pair_stays_behind_over_a_kill_of_its_primary_and_comes_back_whole(bank: Bank) -> None:
    bank.write(1)
    bank.suspend("--pair", "wal", "--drain")
    wait_until(lambda: bank.pair("wal")["state"] == "SUSPENDED", "wal is suspended", deadline_s=WAIT_S_MAX)
    bank.write(2)
    bank.wait_blocks("data", [1, 2])
    bank.b.kill()
    bank.b.start()
    bank.write(3)
    bank.wait_blocks("data", [1, 2, 3])
    assert (bank.blocks("wal"), bank.pair("wal")["state"]) == ([1], "SUSPENDED")
    assert bank.pair("wal")["image"]["wall"] < bank.replica.report()["consistency"]["wall"]
    with pytest.raises(ProcessError, match="--incomplete"):
        bank.s.command("session", "recover", "bank", "--yes")
    bank.s.command("session", "resume", "bank", "--pair", "wal")
    bank.wait_blocks("wal", [1, 2, 3])
    bank.replica.wait_duplex()
    assert bank.replica.report()["image_complete"]


def test_primaries_know_that_a_command_suspended_them(bank: Bank) -> None:
    bank.suspend("--at", "+1s", "--wait", "--timeout", "30")
    controllers: list[ControllerProcess] = [bank.a, bank.b]
    for controller in controllers:
        wait_until(
            lambda controller=controller: controller.get("/v1/captures/bank")["suspended_cause"] == "command",  # type: ignore[misc]
            "the primary is suspended",
            deadline_s=WAIT_S_MAX,
        )
