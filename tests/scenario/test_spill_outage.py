"""An outage whose writes exceed memory by far: real controllers catch up from the spill, without a resync."""

from __future__ import annotations

import time
from random import Random
from typing import Any

from isochrone.nbd.client import connect
from isochrone.testing.processes import ControllerProcess, wait_until
from support.site import Site, replicate

MIB = 1 << 20
BLOCK = 4096
VOLUME_BYTES = 32 * MIB
MEMORY_BYTES = 16 * MIB
OUTAGE_BYTES = 160 * MIB
DEPTH = 32
WAIT_S_MAX = 60.0


def write_randomly(primary: ControllerProcess, count: int, seed: int) -> float:
    """Write `count` random blocks at depth DEPTH; returns MB/s."""
    rng = Random(seed)
    begun_s = time.monotonic()
    with connect(primary.nbd_socket, "data") as client:
        for number in range(count):
            content = number.to_bytes(8, "big") * (BLOCK // 8)
            client.submit_write(rng.randrange(VOLUME_BYTES // BLOCK) * BLOCK, content)
            while client.in_flight >= DEPTH:
                client.poll()
        client.drain()
    return count * BLOCK / 1e6 / (time.monotonic() - begun_s)


def content(controller: ControllerProcess) -> bytes:
    with connect(controller.nbd_socket, "data") as client:
        return b"".join(client.read(offset, MIB) for offset in range(0, VOLUME_BYTES, MIB))


def capture(primary: ControllerProcess) -> dict[str, Any]:
    (report,) = primary.get("/v1/status")["captures"]
    return dict(report)


def spill_files(primary: ControllerProcess) -> list[str]:
    return [path.name for path in (primary.folder / "pool").iterdir() if path.name.startswith("spill-")]


def test_an_outage_far_beyond_memory_is_caught_up_from_the_spill_without_a_resync(site: Site) -> None:
    site.expect_log("link closed|cannot be reached|link lost")
    primary = site.controller(
        "a", settings={"capture": {"side_file_max": MEMORY_BYTES, "spill_max": 512 * MIB}}
    )
    secondary = site.controller("s", pool_size="2GiB")
    primary.create_volume("data", VOLUME_BYTES)
    replica = replicate("bank", [(primary, "data")], secondary)
    before = replica.report()
    secondary.kill()
    rate = write_randomly(primary, OUTAGE_BYTES // BLOCK, seed=1)
    held = capture(primary)
    print(
        f"{OUTAGE_BYTES >> 20} MiB in 4 KiB writes at {rate:.0f} MB/s; {held['spill']['spilled_bytes'] >> 20} MiB spilled"
    )
    assert held["state"] == "ACTIVE", held["suspended_reason"]
    assert held["side_file_bytes"] > OUTAGE_BYTES
    assert held["spill"]["spilled_bytes"] > OUTAGE_BYTES - MEMORY_BYTES
    assert len(spill_files(primary)) >= 2

    begun_s = time.monotonic()
    secondary.start()
    times: list[int] = []

    def is_caught_up() -> bool:
        report = replica.report()
        (pair,) = report["pairs"]
        assert pair["state"] == "DUPLEX", pair  # a resync would say COPY
        assert not pair["tracks_remaining"]
        times.append(report["consistency"]["time_ns"])
        return bool(capture(primary)["side_file_bytes"] == 0)

    wait_until(is_caught_up, "the secondary has caught up", deadline_s=WAIT_S_MAX)
    print(f"caught up in {time.monotonic() - begun_s:.1f} s, C seen at {len(set(times))} times")
    assert times == sorted(times)
    assert len(set(times)) >= 3
    after = replica.report()
    assert after["sources"][0]["received_bytes"] >= OUTAGE_BYTES
    assert before["name"] == after["name"]
    wait_until(lambda: not spill_files(primary), "the spill's files are gone", deadline_s=WAIT_S_MAX)
    assert content(secondary) == content(primary)
