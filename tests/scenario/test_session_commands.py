"""What an operator asks of a session, of real controllers: it is done, or refused in words, and shown as it is."""

from __future__ import annotations

from typing import Any

from isochrone.nbd.client import connect
from isochrone.testing.processes import ControllerProcess, wait_until
from support.site import Replica, Site, replicate

MIB = 1 << 20
BLOCK = 4096
WAIT_S_MAX = 30.0


def write_block(controller: ControllerProcess, volume: str, number: int) -> None:
    with connect(controller.nbd_socket, volume) as client:
        client.write(number * BLOCK, number.to_bytes(8, "big") * (BLOCK // 8))


def wait_mirrored(replica: Replica, volume: str, number: int) -> None:
    """Return when block `number` is in the committed image."""

    def is_there() -> bool:
        with connect(replica.secondary.nbd_socket, volume) as client:
            return client.read(number * BLOCK, 8) == number.to_bytes(8, "big")

    wait_until(is_there, f"block {number} of {volume} is mirrored", deadline_s=WAIT_S_MAX)


def source(replica: Replica) -> dict[str, Any]:
    found: dict[str, Any] = replica.report()["sources"][0]
    return found


def test_settings_of_a_running_session_change_without_a_copy(site: Site) -> None:
    a, s = site.controllers("a", "s")
    a.create_volume("data", 8 * MIB)
    replica = replicate("bank", [(a, "data")], s, group_bytes_max=4 * MIB)
    write_block(a, "data", 1)
    wait_mirrored(replica, "data", 1)
    before = replica.report()
    assert before["settings"]["group_bytes_max"] == 4 * MIB
    assert before["group_count"] >= 1
    assert source(replica)["reconnect_count"] == 0

    s.command("session", "set", "bank", "--compression", "zstd", "--pace-delay-ms-max", "7")
    wait_until(
        lambda: source(replica)["reconnect_count"] == 1 and source(replica)["link_state"] == "UP",
        "the link is up again",
        deadline_s=WAIT_S_MAX,
    )
    write_block(a, "data", 2)
    wait_mirrored(replica, "data", 2)
    after = replica.report()
    assert after["settings"] == {**before["settings"], "compression": "zstd", "pace_delay_ms_max": 7.0}
    assert after["group_count"] > before["group_count"]
    assert after["record_count"] == before["record_count"] + 1
    assert a.get("/v1/captures/bank")["pacing"]["delay_ms_max"] == 7.0
    s.kill()
    s.start()
    assert replica.report()["settings"] == after["settings"]
