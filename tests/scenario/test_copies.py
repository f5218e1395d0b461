"""Point-in-time copies of real controllers: one instant, durable, kept by schedule, safe when the pool is full."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from isochrone.nbd.client import NbdClient, connect
from isochrone.nbd.constants import Errno
from isochrone.nbd.errors import NbdError
from isochrone.testing.processes import ControllerProcess, ProcessError, wait_until
from support.site import Site, replicate

MIB = 1 << 20
BLOCK = 4096
WAIT_S_MAX = 30.0
KILLS = 4


def write_block(client: NbdClient, number: int, value: int) -> None:
    client.write(number * BLOCK, value.to_bytes(8, "big") * (BLOCK // 8))


def read_block(controller: ControllerProcess, volume: str, number: int) -> int:
    with connect(controller.nbd_socket, volume) as client:
        return int.from_bytes(client.read(number * BLOCK, 8), "big")


def copies(controller: ControllerProcess) -> dict[str, dict[str, Any]]:
    return {copy["name"]: copy for copy in controller.get("/v1/copies")["copies"]}


class Counter:
    """An application that writes n to the first volume, and when that is acknowledged n to the next, and so on."""

    def __init__(self, controller: ControllerProcess, volumes: list[str]) -> None:
        self.count = 0
        self._clients = [connect(controller.nbd_socket, volume) for volume in volumes]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for_more(self, count: int) -> None:
        """Return after so many further writes."""
        reached = self.count + count
        wait_until(lambda: self.count > reached, "it writes", deadline_s=WAIT_S_MAX)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        for client in self._clients:
            client.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.count += 1
            for client in self._clients:
                write_block(client, 0, self.count)


def test_no_write_lands_between_two_volumes_of_a_copy(site: Site) -> None:
    (a,) = site.controllers("a")
    volumes = [f"v{number}" for number in range(8)]
    for volume in volumes:
        a.create_volume(volume, MIB)
    counter = Counter(a, volumes)
    try:
        for number in range(20):
            counter.wait_for_more(5)
            a.post("/v1/copies", {"volumes": volumes, "name": f"c{number}"})
    finally:
        counter.stop()
    seen = set()
    for number in range(20):
        counts = [read_block(a, f"{volume}@c{number}", 0) for volume in volumes]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] - counts[-1] <= 1
        seen.add(counts[0])
    assert len(seen) == 20


def test_a_copy_of_secondaries_is_one_instant_too(site: Site) -> None:
    a, s = site.controllers("a", "s")
    volumes = ["data", "wal"]
    for volume in volumes:
        a.create_volume(volume, MIB)
    replica = replicate("bank", [(a, volume) for volume in volumes], s)
    counter = Counter(a, volumes)
    try:
        wait_until(lambda: read_block(s, "wal", 0) > 0, "it is mirrored", deadline_s=WAIT_S_MAX)
        for number in range(10):
            s.post("/v1/copies", {"volumes": volumes, "name": f"c{number}"})
    finally:
        counter.stop()
    for number in range(10):
        first, second = (read_block(s, f"{volume}@c{number}", 0) for volume in volumes)
        assert 0 <= first - second <= 1
    with pytest.raises(ProcessError, match="take the pair out first"):
        s.post("/v1/copies/c0/restore", {})
    assert all(pair["state"] == "DUPLEX" for pair in replica.report()["pairs"])


def test_commands_show_and_undo_what_they_did(site: Site) -> None:
    (a,) = site.controllers("a")
    a.create_volume("db", 8 * MIB)
    with connect(a.nbd_socket, "db") as client:
        write_block(client, 0, 1)
    made = a.command_json("copy", "create", "db", "--name", "mon", "--expires", "7d")
    assert made["hold_ms"] < 1000
    with connect(a.nbd_socket, "db") as client:
        write_block(client, 0, 2)
        with pytest.raises(ProcessError, match=r"process \d+; disconnect it first"):
            a.command("copy", "restore", "mon", "--yes")
    assert a.command_json("copy", "diff", "mon", "db")["changed"] == [{"offset": 0, "length": BLOCK}]
    with connect(a.nbd_socket, "db@mon"), pytest.raises(ProcessError, match=r"db@mon is open over NBD"):
        a.command("copy", "delete", "mon", "--yes")
    with connect(a.nbd_socket, "db@mon") as client, pytest.raises(NbdError) as refused:
        write_block(client, 0, 3)
    assert refused.value.errno is Errno.EPERM
    with pytest.raises(ProcessError, match="has 1 copy and cannot be deleted"):
        a.command("volume", "delete", "db", "--yes")
    a.command("copy", "restore", "mon", "--yes")
    assert read_block(a, "db", 0) == 1
    a.command("copy", "create", "db@mon", "--name", "trial", "--writable")
    with connect(a.nbd_socket, "db-trial") as client:
        write_block(client, 0, 7)
    with pytest.raises(ProcessError, match="delete copy trial first"):
        a.command("copy", "delete", "mon", "--yes")
    assert (read_block(a, "db@mon", 0), read_block(a, "db-trial", 0)) == (1, 7)
    assert "mon" in a.command("copy", "list")
    a.command("copy", "delete", "trial", "--yes")
    a.command("copy", "delete", "mon", "--yes")
    a.command("volume", "delete", "db", "--yes")


def test_a_copy_is_durable_when_it_is_answered_and_lost_writes_are_none_of_its(site: Site) -> None:
    (a,) = site.controllers("a")
    a.create_volume("db", MIB)
    with connect(a.nbd_socket, "db") as client:
        write_block(client, 0, 1)
        a.post("/v1/copies", {"volumes": ["db"], "name": "mon"})
        write_block(client, 0, 2)
        a.kill()
    a.start()
    assert (read_block(a, "db@mon", 0), read_block(a, "db", 0)) == (1, 2)
    assert copies(a)["mon"]["volumes"][0]["exclusive_bytes"] == BLOCK


def overwrite(client: NbdClient, count: int) -> None:
    for number in range(count):
        write_block(client, number, 2)


def test_a_full_pool_says_so_early_refuses_writes_and_is_healed_by_deleting_copies(site: Site) -> None:
    site.expect_log("pool is filling")
    site.expect_log("ENOSPC.*request failed")
    a = site.controller("a", pool_size="8MiB", settings={"pool": {"warn_percent": [50, 75]}})
    a.create_volume("db", 4 * MIB)
    blocks = 4 * MIB // BLOCK
    with connect(a.nbd_socket, "db") as client:
        for number in range(blocks):
            write_block(client, number, 1)
        wait_until(
            lambda: a.get("/v1/pool")["warning_percent"] == 50, "the first level", deadline_s=WAIT_S_MAX
        )
        for name in ("mon", "tue"):
            a.post("/v1/copies", {"volumes": ["db"], "name": name})
        half = blocks // 2
        overwrite(client, half)
        a.post("/v1/copies", {"volumes": ["db"], "name": "wed"})
        with pytest.raises(NbdError) as full:
            overwrite(client, half + 1)
        assert full.value.errno is Errno.ENOSPC
        assert [read_block(a, "db", number) for number in (0, half - 1, half)] == [2, 2, 1]
        assert a.get("/v1/pool")["warning_percent"] == 75
        assert "75 % of it are used" in a.command("status")
        for name in ("wed", "tue", "mon"):
            a.delete(f"/v1/copies/{name}")
        for number in range(blocks):
            write_block(client, number, 9)
    assert read_block(a, "db", blocks - 1) == 9
    wait_until(lambda: a.get("/v1/pool")["warning_percent"] == 50, "it has room again", deadline_s=WAIT_S_MAX)
    levels = [line for line in a.log_lines() if "pool is filling" in line]
    assert ['"level_percent":50' in line.replace(" ", "") for line in levels] == [True, False]


def test_schedules_and_expiry_keep_what_they_should(site: Site) -> None:
    schedule = [{"name": "often", "volumes": ["db"], "every": "1s", "keep": 2}]
    site.expect_log("scheduled copy failed")
    a = site.controller("a", settings={"copy": {"schedule": schedule}})
    failing = a.get("/v1/copies")["schedules"][0]
    assert "no volume 'db'" in failing["failure"]
    assert "schedule often failed" in a.command("status")
    a.create_volume("db", MIB)
    a.kill()
    a.start()
    a.post("/v1/copies", {"volumes": ["db"], "name": "mine", "expires_after_s": 2})
    a.post("/v1/copies", {"volumes": ["db"], "name": "stays"})
    first = set(copies(a))
    wait_until(
        lambda: len(set(copies(a)) - first) >= 2 and "mine" not in copies(a),
        "schedule and expiry do their work",
        deadline_s=WAIT_S_MAX,
    )
    assert "stays" in copies(a)
    wait_until(
        lambda: sum(copy["schedule"] == "often" for copy in copies(a).values()) == 2,
        "two copies stay",
        deadline_s=WAIT_S_MAX,
    )


class Operator:
    """Goes on with changes until the controller is gone; refusals are part of it. `count`: changes answered so far."""

    def __init__(self, controller: ControllerProcess, seed: int) -> None:
        self.count = 0
        self._controller = controller
        self._draw = random.Random(seed)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for(self, count: int) -> None:
        """Return after so many changes."""
        wait_until(lambda: self.count >= count, f"{count} changes", deadline_s=WAIT_S_MAX)

    def wait_ended(self) -> None:
        self._thread.join(WAIT_S_MAX)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                change_at_random(self._controller, self._draw, self.count)
            except ProcessError as error:
                if " 409 " not in error.message:
                    return
            except RuntimeError:  # its HTTP client was closed under it
                return
            self.count += 1


def change_at_random(controller: ControllerProcess, draw: random.Random, number: int) -> None:
    """Make, delete, restore or establish something."""
    names = list(copies(controller))
    volumes = [volume for volume in ("v0", "v1", "v2") if draw.random() < 0.7] or ["v0"]
    match draw.randrange(6):
        case 0 | 1 | 2:
            body = {
                "volumes": volumes,
                "name": f"c{number}-{draw.randrange(1 << 30)}",
                "writable": draw.random() < 0.3,
            }
            controller.post("/v1/copies", body)
        case 3:
            for name in names[8:] or names[:1]:
                controller.delete(f"/v1/copies/{name}")
        case 4 if names:
            controller.post(f"/v1/copies/{draw.choice(names)}/restore", {})
        case _:
            controller.post("/v1/relations", {"source": draw.choice(volumes), "target": "t"})


@pytest.mark.xdist_group("heavy")
def test_a_kill_in_the_middle_of_anything_leaves_it_done_or_not_done(site: Site) -> None:
    (a,) = site.controllers("a")
    for volume in ("v0", "v1", "v2", "t"):
        a.create_volume(volume, MIB)
    for seed in range(KILLS):
        for volume in ("v0", "v1", "v2"):
            with connect(a.nbd_socket, volume) as client:
                for number in range(64):
                    write_block(client, number, seed + 1)
        operator = Operator(a, seed)
        operator.wait_for(random.Random(seed).randint(10, 60))
        a.kill()
        operator.wait_ended()
        checked = a.command_json("pool", "check", str(a.folder / "pool"))
        assert checked["is_clean"], checked
        a.start()
        named = {one["volume"] for copy in copies(a).values() for one in copy["volumes"]}
        for volume in named:
            a.get(f"/v1/volumes/{volume}")
        plain = {one["name"]: one["copy_of"] for one in a.get("/v1/volumes")}
        assert {name for name, source in plain.items() if source is None} == {"v0", "v1", "v2", "t"}
        for copy in copies(a).values():
            values = [read_block(a, one["volume"], 63) for one in copy["volumes"]]
            assert all(1 <= value <= seed + 1 for value in values), copy["name"]
