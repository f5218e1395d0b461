"""The past of a session with real controllers: images while everything goes on, and recovery to an instant."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from isochrone.nbd.client import connect
from isochrone.testing.processes import ControllerProcess, ProcessError, wait_until
from support.site import Replica, Site, replicate

MIB = 1 << 20
BLOCK = 4096
WAIT_S_MAX = 60.0


def write(controller: ControllerProcess, number: int, text: bytes, volume: str = "data") -> None:
    with connect(controller.nbd_socket, volume) as client:
        client.write(number * BLOCK, text.ljust(BLOCK, b"."))


def content(controller: ControllerProcess, volume: str = "data") -> list[bytes]:
    with connect(controller.nbd_socket, volume) as client:
        return [client.read(number * BLOCK, BLOCK).strip(b".\0") for number in range(8)]


class Bank:
    """Volumes `data` at primary a and `wal` at primary b, mirrored at s, with an hour of history."""

    def __init__(self, site: Site) -> None:
        self.a, self.b, self.s = site.controllers("a", "b", "s")
        self.a.create_volume("data", 8 * MIB)
        self.b.create_volume("wal", 8 * MIB)
        self.replica: Replica = replicate(
            "bank", [(self.a, "data"), (self.b, "wal")], self.s, history_s_max=3600
        )
        wait_until(
            lambda: len(self.history()["volumes"]) == 2, "the history has begun", deadline_s=WAIT_S_MAX
        )

    def history(self) -> dict[str, Any]:
        found: dict[str, Any] = self.s.get("/v1/sessions/bank/history")
        return found

    def write(self, text: bytes) -> None:
        """Write to wal, then to data, as a database does."""
        write(self.b, 0, text, "wal")
        write(self.a, 0, text)

    def mark(self, text: str) -> int:
        found = self.a.command_json("session", "mark", "bank", text)
        assert found["hardened"]
        time_ns: int = found["time"]["time_ns"]
        return time_ns

    def image(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = self.s.command_json("session", "image", "bank", *words)
        return found

    def shown(self, image: str) -> tuple[bytes, bytes]:
        return content(self.s, f"wal~{image}")[0], content(self.s, f"data~{image}")[0]


@pytest.fixture
def bank(site: Site) -> Bank:
    return Bank(site)


def test_an_image_shows_exactly_what_was_written_up_to_an_instant(bank: Bank) -> None:
    instants = {}
    for number in range(1, 4):
        bank.write(b"state %d" % number)
        instants[number] = bank.mark(f"after {number}")
        write(bank.b, 0, b"between", "wal")
    for number, at_ns in instants.items():
        text = b"state %d" % number
        assert bank.image("--as", f"i{number}", "--at", str(at_ns))["time"]["time_ns"] == at_ns
        assert bank.shown(f"i{number}") == (text, text)
    bank.image("--as", "named", "--at", "after 2")
    assert bank.shown("named") == (b"state 2", b"state 2")
    reachable = {one["text"]: one["reachable"] for one in bank.history()["instants"]}
    assert reachable == {"after 1": True, "after 2": True, "after 3": True}


def test_replication_goes_on_while_images_are_made_and_written(bank: Bank) -> None:
    bank.write(b"before")
    bank.mark("before")
    stop, written = threading.Event(), [0]

    def work() -> None:
        with connect(bank.a.nbd_socket, "data") as client:
            while not stop.is_set():
                written[0] += 1
                client.write(5 * BLOCK, written[0].to_bytes(8, "big") * (BLOCK // 8))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(10):
            before = written[0]
            wait_until(lambda: written[0] > before, "writes go on", deadline_s=WAIT_S_MAX)  # noqa: B023
            bank.image("--as", f"then{number}", "--at", "before")
            bank.image("--as", f"now{number}")
            write(bank.s, 0, b"test writes", f"data~then{number}")
    finally:
        stop.set()
        worker.join()
    assert bank.replica.report()["state"] == "ACTIVE"
    wait_until(lambda: content(bank.s)[5] == content(bank.a)[5], "all has arrived", deadline_s=WAIT_S_MAX)
    assert content(bank.s)[0] == b"before"
    assert bank.shown("then0") == (b"before", b"test writes")
    assert bank.shown("then1") == (b"before", b"test writes")
    assert content(bank.s, "data~then0")[5] == b""
    assert bank.shown("now9") == (b"before", b"before")


def test_an_image_can_never_be_mistaken_for_the_secondary(bank: Bank) -> None:
    bank.image("--as", "drill")
    with connect(bank.s.nbd_socket, "data~drill") as client:
        assert "test image drill of session bank at 2" in client.offer.description
        client.write(0, b"x" * BLOCK)
        with pytest.raises(ProcessError, match="exit code 4") as in_use:
            bank.image("--as", "drill", "--discard", "--yes")
    assert "open over NBD" in in_use.value.message
    for refused in (
        ("session", "delete", "bank", "--yes"),
        ("volume", "delete", "data~drill", "--yes"),
        ("session", "add", "bank", "--pair", "a:other=data~drill"),
    ):
        with pytest.raises(ProcessError):
            bank.s.command(*refused)
    assert bank.s.get("/v1/volumes/data~drill")["kind"] == "IMAGE"
    assert "IMAGE" in bank.s.command("volume", "list")
    bank.image("--as", "drill", "--discard", "--yes")
    assert bank.s.command_json("session", "image", "bank", "--list") == []


def test_an_instant_in_a_gap_is_refused_with_the_nearest_two(bank: Bank) -> None:
    bank.write(b"before")
    bank.mark("before")
    bank.s.command("session", "suspend", "bank", "--drain", "--wait", "--timeout", "30")
    bank.write(b"inside")
    with pytest.raises(ProcessError, match="exit code 4") as suspended:
        bank.a.command("session", "mark", "bank", "inside")
    assert "no image of this moment" in suspended.value.message
    inside_ns = bank.s.get("/v1/status")["controller"]["host_time_ns"]
    bank.s.command("session", "resume", "bank")
    bank.replica.wait_duplex()
    bank.mark("after")
    with pytest.raises(ProcessError, match="exit code 4") as refused:
        bank.image("--at", str(inside_ns))
    assert "Nearest with an image" in refused.value.message
    (gap,) = bank.history()["gaps"]
    bank.image("--as", "low", "--at", str(gap["since"]["time_ns"]))
    bank.image("--as", "high", "--at", str(gap["until"]["time_ns"]))
    assert bank.shown("low") == (b"before", b"before")
    assert bank.shown("high") == (b"inside", b"inside")
    with pytest.raises(ProcessError, match="exit code 4") as elsewhere:
        bank.s.command("session", "mark", "bank", "here")
    assert "controller of a primary: a (" in elsewhere.value.message


def test_images_and_history_survive_a_kill_of_their_controller(bank: Bank) -> None:
    bank.write(b"one")
    bank.mark("one")
    bank.write(b"two")
    bank.mark("two")
    bank.image("--as", "kept", "--at", "one")
    bank.s.kill()
    bank.s.start()
    assert bank.shown("kept") == (b"one", b"one")
    bank.image("--as", "again", "--at", "one")
    assert bank.shown("again") == (b"one", b"one")


def test_a_kill_while_images_are_made_leaves_whole_ones_or_none(bank: Bank) -> None:
    for number in range(200):
        write(bank.a, 1 + number % 7, b"%d" % number)
    bank.mark("then")
    stop = threading.Event()

    def make() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                bank.s.post("/v1/sessions/bank/images", {"image": f"i{number}", "instant": "then"})
            except ProcessError:
                return  # it was killed

    maker = threading.Thread(target=make)
    maker.start()
    wait_until(
        lambda: len(bank.s.get("/v1/sessions/bank/images")) >= 3, "some are made", deadline_s=WAIT_S_MAX
    )
    bank.s.kill()
    stop.set()
    maker.join()
    bank.s.start()
    images = bank.s.get("/v1/sessions/bank/images")
    assert len(images) >= 3
    volumes = {volume["name"] for volume in bank.s.get("/v1/volumes")}
    assert {name for name in volumes if "~" in name} == {
        member["volume"] for image in images for member in image["volumes"]
    }
    wanted = content(bank.a)
    for image in images:
        assert content(bank.s, f"data~{image['image']}") == wanted


class Rewound:
    """One primary; blocks 1 to 4 at an instant, others later; the primary is dead and the session recovered to it."""

    def __init__(self, site: Site, *, kill_in_between: bool = False) -> None:
        self.a, self.s = site.controllers("a", "s")
        self.a.create_volume("data", 8 * MIB)
        self.replica = replicate("bank", [(self.a, "data")], self.s, history_s_max=3600)
        for number in range(1, 5):
            write(self.a, number, b"good")
        self.at_ns: int = self.a.command_json("session", "mark", "bank", "good")["time"]["time_ns"]
        for number in (2, 5):
            write(self.a, number, b"damage")
        self.a.command("session", "mark", "bank", "damaged")
        self.a.kill()
        if kill_in_between:
            with pytest.raises(ProcessError):
                self._recover_and_die()
            self.s.start()
        self.answer = self.s.command_json("session", "recover", "bank", "--at", str(self.at_ns), "--yes")

    def _recover_and_die(self) -> None:
        killer = threading.Timer(0.02, self.s.kill)
        killer.start()
        try:
            self.s.post("/v1/sessions/bank/recover", {"at_ns": self.at_ns})
        finally:
            killer.join()
        raise ProcessError("it was quicker than the kill")


GOOD = [b"", b"good", b"good", b"good", b"good", b"", b"", b""]
DAMAGED = [b"", b"good", b"damage", b"good", b"good", b"damage", b"", b""]


@pytest.mark.parametrize("kill_in_between", [False, True])
def test_a_session_is_recovered_to_an_instant_and_what_was_there_is_kept(
    site: Site, kill_in_between: bool
) -> None:
    rewound = Rewound(site, kill_in_between=kill_in_between)
    answer = rewound.answer
    assert (answer["state"], answer["recovered"]["time_ns"]) == ("ENDED", rewound.at_ns)
    assert content(rewound.s) == GOOD
    assert content(rewound.s, f"data@{answer['kept_copy']}") == DAMAGED
    assert answer["kept_copy"] in rewound.s.command(
        "session", "recover", "bank", "--at", str(rewound.at_ns), "--yes"
    )
    assert answer["split"]["last_common"]["time_ns"] == rewound.at_ns
    rewound.s.command("session", "image", "bank", "--as", "other", "--at", "damaged")
    assert content(rewound.s, "data~other") == DAMAGED


def test_after_it_the_recovered_site_can_give_in(site: Site) -> None:
    rewound = Rewound(site)
    write(rewound.s, 7, b"written at s")
    rewound.a.start()
    write(rewound.a, 6, b"written at a")
    wait_until(
        lambda: rewound.replica.report()["split"]["divergence"] == "DIVERGED",
        "both histories are known",
        deadline_s=WAIT_S_MAX,
    )
    rewound.s.command("session", "resync", "bank", "--discard", "secondary", "--yes")
    rewound.replica.wait_duplex()
    kept = [b"", b"good", b"damage", b"good", b"good", b"damage", b"written at a", b""]
    wait_until(lambda: content(rewound.s) == kept, "both are equal", deadline_s=WAIT_S_MAX)
    assert content(rewound.a) == kept


def test_after_it_the_old_primary_can_give_in(site: Site) -> None:
    rewound = Rewound(site)
    write(rewound.s, 7, b"written at s")
    rewound.a.start()
    write(rewound.a, 6, b"written at a")
    wait_until(
        lambda: rewound.replica.report()["split"]["divergence"] == "DIVERGED",
        "both histories are known",
        deadline_s=WAIT_S_MAX,
    )
    s_address = f"s={rewound.s.link_address}"
    rewound.a.command("session", "resync", "bank", "--discard", "primary", "--primary", s_address, "--yes")
    Replica("bank", (rewound.s,), rewound.a).wait_duplex()
    kept = [b"", b"good", b"good", b"good", b"good", b"", b"", b"written at s"]
    wait_until(lambda: content(rewound.a) == kept, "both are equal", deadline_s=WAIT_S_MAX)
    assert content(rewound.s) == kept
