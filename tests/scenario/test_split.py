"""Both sites took writes after a recovery, with real controllers: both histories are told, and either side can give in."""

from __future__ import annotations

from typing import Any

import pytest

from isochrone.nbd.client import connect
from isochrone.testing.processes import ControllerProcess, ProcessError, wait_until
from support.site import Replica, Site, replicate

MIB = 1 << 20
BLOCK = 4096
WAIT_S_MAX = 60.0


def write(controller: ControllerProcess, number: int, text: bytes) -> None:
    with connect(controller.nbd_socket, "data") as client:
        client.write(number * BLOCK, text.ljust(BLOCK, b"."))


def content(controller: ControllerProcess) -> list[bytes]:
    with connect(controller.nbd_socket, "data") as client:
        return [client.read(number * BLOCK, BLOCK).strip(b".\0") for number in range(8)]


def diverged(site: Site) -> tuple[ControllerProcess, ControllerProcess, Replica]:
    """Blocks 0 to 2 are common; then "a" wrote 1 and 5, "s" wrote 2 and 5, and both know that they were split."""
    a, s = site.controllers("a", "s")
    a.create_volume("data", 8 * MIB)
    replica = replicate("bank", [(a, "data")], s)
    for number in range(3):
        write(a, number, b"common")
    replica.wait_duplex()
    wait_until(lambda: content(s)[:3] == [b"common"] * 3, "the blocks are there", deadline_s=WAIT_S_MAX)
    a.kill()
    replica.recover()
    for number in (2, 5):
        write(s, number, b"written at s")
    s.kill()
    a.start()
    for number in (1, 5):
        write(a, number, b"written at a")
    s.start()
    wait_until(
        lambda: replica.report()["split"]["divergence"] == "DIVERGED",
        "the divergence is known",
        deadline_s=WAIT_S_MAX,
    )
    return a, s, replica


def sides(split: dict[str, Any]) -> dict[str, tuple[bool, int]]:
    return {side["name"]: (side["wrote"], side["volumes"][0]["track_count"]) for side in split["sides"]}


def test_a_split_is_shown_with_both_histories_and_nobody_chooses(site: Site) -> None:
    a, s, replica = diverged(site)
    split = replica.report()["split"]
    found = sides(split)
    assert found["s"] == (True, 2)
    assert found["a"][0]
    assert 2 <= found["a"][1] <= 4, "marks are a superset: the common blocks may not have been pruned"
    assert sides(a.get("/v1/captures/bank")["split"]) == {"a": found["a"]}
    shown = s.command("session", "show", "bank")
    assert "DIVERGED: both sides wrote since" in shown
    assert "last common time" in shown
    assert "session resync bank --discard secondary" in shown
    for controller in (a, s):
        with pytest.raises(ProcessError, match="exit code 2") as failed:
            controller.command("session", "resync", "bank")
        assert "--discard primary or --discard secondary" in failed.value.message
    with pytest.raises(ProcessError, match="exit code 4"):
        a.command("session", "resync", "bank", "--discard", "secondary", "--yes")
    with pytest.raises(ProcessError, match="exit code 4"):
        s.command("session", "resync", "bank", "--discard", "primary", "--yes")
    assert (content(a)[5], content(s)[5]) == (b"written at a", b"written at s")


def test_the_recovered_site_gives_in(site: Site) -> None:
    a, s, replica = diverged(site)
    with connect(s.nbd_socket, "data"), pytest.raises(ProcessError, match="exit code 4") as failed:
        s.command("session", "resync", "bank", "--discard", "secondary", "--yes")
    assert "is open over NBD" in failed.value.message
    s.command("session", "resync", "bank", "--discard", "secondary", "--yes")
    replica.wait_duplex()
    kept = [b"common", b"written at a", b"common", b"", b"", b"written at a", b"", b""]
    wait_until(lambda: content(s) == kept, "the image is the primary's", deadline_s=WAIT_S_MAX)
    assert content(a) == kept
    write(a, 7, b"and on it goes")
    wait_until(lambda: content(s)[7] == b"and on it goes", "writes arrive", deadline_s=WAIT_S_MAX)
    assert replica.report()["epoch"] == 3


def test_the_old_primary_gives_in_and_the_direction_turns_round(site: Site) -> None:
    a, s, _ = diverged(site)
    s_address = f"s={s.link_address}"
    a.command("session", "resync", "bank", "--discard", "primary", "--primary", s_address, "--yes")
    turned = Replica("bank", (s,), a)
    turned.wait_duplex()
    kept = [b"common", b"common", b"written at s", b"", b"", b"written at s", b"", b""]
    wait_until(lambda: content(a) == kept, "the image is the recovered site's", deadline_s=WAIT_S_MAX)
    assert content(s) == kept
    assert s.get("/v1/sessions") == []
    assert s.get("/v1/captures/bank")["state"] == "ACTIVE"
    assert a.get("/v1/captures") == []
    write(s, 7, b"and on it goes")
    wait_until(lambda: content(a)[7] == b"and on it goes", "writes arrive", deadline_s=WAIT_S_MAX)

    # Home again: a planned switchover back, and round once more without a split.
    assert turned.recover(drain=True)
    write(a, 6, b"home")
    wait_until(
        lambda: turned.report()["split"]["divergence"] == "SECONDARY",
        "only the recovered site wrote",
        deadline_s=WAIT_S_MAX,
    )
    a_address = f"a={a.link_address}"
    s.command("session", "resync", "bank", "--discard", "primary", "--primary", a_address, "--yes")
    Replica("bank", (a,), s).wait_duplex()
    wait_until(lambda: content(s) == content(a), "both are equal", deadline_s=WAIT_S_MAX)
    assert content(s)[6:] == [b"home", b"and on it goes"]
