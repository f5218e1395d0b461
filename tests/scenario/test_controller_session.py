"""Sessions between real controllers: whatever is killed or told, the secondary holds one instant of both volumes."""

import os
from collections.abc import Callable

import pytest

from isochrone.nbd.client import NbdClient, connect
from isochrone.nbd.constants import Errno
from isochrone.nbd.errors import NbdError
from isochrone.testing.processes import ControllerProcess, ProcessError, wait_until
from support.site import Replica, Site, replicate

MIB = 1 << 20
BLOCK = 4096
WAIT_S_MAX = 30.0


class Bank:
    """Volumes `data` at primary a and `wal` at primary b, mirrored at s by the session `bank`."""

    def __init__(self, site: Site) -> None:
        self.a, self.b, self.s = site.controllers("a", "b", "s")
        self.a.create_volume("data", 16 * MIB)
        self.b.create_volume("wal", 16 * MIB)
        self.before = os.urandom(4 * MIB)
        with open_volume(self.a, "data") as client:
            client.write(8 * MIB, self.before)
        self.replica: Replica = replicate("bank", [(self.a, "data"), (self.b, "wal")], self.s)

    def write(self, number: int) -> None:
        """Write block `number` of both volumes, wal first: data depends on it."""
        content = number.to_bytes(8, "big") * (BLOCK // 8)
        for controller, volume in ((self.b, "wal"), (self.a, "data")):
            with open_volume(controller, volume) as client:
                client.write(number * BLOCK, content)

    def session(self) -> dict[str, object]:
        return self.replica.report()

    def wait_session(self, condition: Callable[[dict[str, object]], bool], what: str) -> None:
        wait_until(lambda: condition(self.session()), what, deadline_s=WAIT_S_MAX)

    def wait_mirrored(self, number: int) -> None:
        """Return when block `number` of data is in the committed image."""

        def is_there() -> bool:
            with open_volume(self.s, "data") as client:
                return client.read(number * BLOCK, 8) == number.to_bytes(8, "big")

        wait_until(is_there, f"block {number} is mirrored", deadline_s=WAIT_S_MAX)

    def recovered_blocks(self, count: int) -> tuple[int, int]:
        """Return how many of the first `count` blocks (from 1) are in data and in wal; each must be a prefix."""
        return tuple(self._prefix(volume, count) for volume in ("data", "wal"))  # type: ignore[return-value]

    def _prefix(self, volume: str, count: int) -> int:
        with open_volume(self.s, volume) as client:
            heads = [client.read(number * BLOCK, 8) for number in range(1, count + 1)]
        length = next((n for n, head in enumerate(heads) if head == bytes(8)), count)
        assert heads[:length] == [number.to_bytes(8, "big") for number in range(1, length + 1)]
        assert all(head == bytes(8) for head in heads[length:])
        return length


def open_volume(controller: ControllerProcess, name: str) -> NbdClient:
    return connect(controller.nbd_socket, name)


@pytest.fixture
def bank(site: Site) -> Bank:
    return Bank(site)


def test_a_lost_site_is_recovered_to_one_instant_and_does_not_come_back(bank: Bank) -> None:
    for number in range(1, 30):
        bank.write(number)
    bank.replica.lose_primaries()
    bank.replica.recover()
    data, wal = bank.recovered_blocks(29)
    assert data <= wal <= data + 1
    with open_volume(bank.s, "data") as client:
        assert client.read(8 * MIB, 4 * MIB) == bank.before
        client.write(0, b"in service")
    bank.a.start()
    wait_until(
        lambda: bank.a.get("/v1/captures/bank")["state"] == "ENDED", "a is fenced", deadline_s=WAIT_S_MAX
    )
    with open_volume(bank.a, "data") as client, pytest.raises(NbdError) as caught:
        client.write(0, b"too late")
    assert caught.value.errno is Errno.EPERM


def test_a_secondary_is_read_only_while_its_session_runs(bank: Bank) -> None:
    with open_volume(bank.s, "data") as client:
        assert client.read(8 * MIB, 4 * MIB) == bank.before
        with pytest.raises(NbdError) as caught:
            client.write(0, b"x")
        assert caught.value.errno is Errno.EPERM


def test_a_killed_primary_comes_back_and_what_it_marked_is_sent(bank: Bank) -> None:
    bank.write(1)
    bank.a.kill()
    bank.a.start()
    bank.write(2)
    bank.replica.wait_duplex()
    bank.wait_mirrored(2)
    bank.replica.lose_primaries()
    bank.replica.recover()
    assert bank.recovered_blocks(2) == (2, 2)


def test_a_killed_secondary_comes_back_and_goes_on(bank: Bank) -> None:
    bank.write(1)
    bank.wait_mirrored(1)
    bank.s.kill()
    bank.write(2)
    bank.s.start()
    bank.wait_mirrored(2)
    bank.replica.wait_duplex()


def test_a_suspended_session_keeps_its_image_and_catches_up_when_resumed(bank: Bank) -> None:
    bank.write(1)
    bank.wait_mirrored(1)
    bank.s.command("session", "suspend", "bank", "--reason", "maintenance")
    bank.write(2)
    assert bank.session()["state"] == "SUSPENDED"
    assert bank.session()["suspended_reason"] == "maintenance"
    wait_until(
        lambda: bank.a.get("/v1/captures/bank")["state"] == "SUSPENDED", "a is told", deadline_s=WAIT_S_MAX
    )
    with open_volume(bank.s, "data") as client:
        assert client.read(2 * BLOCK, 8) == bytes(8)
    bank.s.command("session", "resume", "bank")
    bank.wait_mirrored(2)
    bank.replica.wait_duplex()


def test_a_planned_switchover_loses_nothing_and_stops_the_primaries(bank: Bank) -> None:
    for number in range(1, 10):
        bank.write(number)
    bank.s.command("session", "recover", "bank", "--drain", "--yes")
    assert bank.session()["state"] == "ENDED"
    assert bank.recovered_blocks(9) == (9, 9)
    with open_volume(bank.b, "wal") as client, pytest.raises(NbdError):
        client.write(0, b"too late")


def test_a_pair_that_leaves_keeps_its_data_and_is_writable(bank: Bank) -> None:
    bank.s.command("session", "remove", "bank", "data")
    bank.wait_session(lambda report: len(report["pairs"]) == 1, "the pair has left")  # type: ignore[arg-type]
    with open_volume(bank.s, "data") as client:
        assert client.read(8 * MIB, 4 * MIB) == bank.before
        client.write(0, b"simplex")
    bank.a.create_volume("more", 8 * MIB)
    bank.s.command("session", "add", "bank", "--pair", "a:more")
    bank.replica.wait_duplex()


def test_a_deleted_session_is_forgotten_on_both_sides(bank: Bank) -> None:
    bank.s.command("session", "delete", "bank", "--yes")
    assert bank.s.get("/v1/sessions") == []
    assert bank.a.get("/v1/captures") == []
    assert bank.b.get("/v1/captures") == []
    with open_volume(bank.s, "data") as client:
        client.write(0, b"simplex")
    bank.s.command("volume", "delete", "data", "--yes")


def test_volumes_of_a_session_are_not_deleted_or_taken_twice(bank: Bank) -> None:
    for controller, volume in ((bank.a, "data"), (bank.s, "data")):
        with pytest.raises(ProcessError, match="exit code 4"):
            controller.command("volume", "delete", volume, "--yes")
    with pytest.raises(ProcessError, match="exit code 4"):
        bank.s.command(
            "session", "create", "other", "--primary", f"a={bank.a.link_address}", "--pair", "a:data"
        )
