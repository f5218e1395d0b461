"""What an operator asks of a session, of real controllers: it is done, or refused in words, and shown as it is."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from isochrone.nbd.client import connect
from isochrone.testing.processes import ControllerProcess, ProcessError, wait_until
from support.site import Replica, Site, replicate

MIB = 1 << 20
BLOCK = 4096
WAIT_S_MAX = 30.0
IDLE_LAG_S_MAX = 1.0
"""On a busy machine; 20 ms is usual."""
BLOCKED_LAG_S = 1.5


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


def lags_s(report: dict[str, Any]) -> dict[str, float]:
    return {name: report[name]["lag_ms"] / 1000 for name in ("form", "journal", "consistency")}


def metric(controller: ControllerProcess, name: str) -> float:
    """Return the value of the one series of a metric."""
    transport = httpx.HTTPTransport(uds=controller.api_address.removeprefix("unix:"))
    with httpx.Client(transport=transport, base_url="http://controller") as client:
        lines = client.get("/metrics").text.splitlines()
    (value,) = (line.split()[-1] for line in lines if line.startswith(f"{name}{{"))
    return float(value)


def test_waiting_for_a_pair_that_is_refused_ends_with_the_reason(site: Site) -> None:
    a, s = site.controllers("a", "s")
    for controller, name, size_bytes in ((a, "small", 4), (s, "small", 8), (a, "full", 4), (s, "full", 4)):
        controller.create_volume(name, size_bytes * MIB)
    write_block(s, "full", 1)
    for volume, reason in {
        "none": "no volume 'none' here: create it",
        "small": "secondary volume 'small' has 8388608 bytes, its primary 4194304: resize one",
        "full": "secondary volume 'full' holds data already: name another",
    }.items():
        command = ("session", "create", volume, "--primary", f"a={a.link_address}", "--pair", f"a:{volume}")
        with pytest.raises(ProcessError, match="exit code 4") as failed:
            s.command(*command, "--wait", "--timeout", "30")
        assert f"pair {volume}: {reason}" in failed.value.message


def test_a_pair_that_does_not_fit_holds_up_no_other_and_joins_once_its_secondary_was_deleted(
    site: Site,
) -> None:
    a, s = site.controllers("a", "s")
    for controller, name, size_bytes in ((a, "data", 4), (a, "full", 4), (s, "full", 8)):
        controller.create_volume(name, size_bytes * MIB)
    write_block(a, "full", 3)
    replica = replicate("bank", [(a, "data")], s)
    s.command("session", "add", "bank", "--pair", "a:full")

    def pair(volume: str) -> dict[str, Any]:
        (found,) = (pair for pair in replica.report()["pairs"] if pair["secondary_volume"] == volume)
        return dict(found)

    wait_until(lambda: pair("full")["refused"], "the misfit is told", deadline_s=WAIT_S_MAX)
    write_block(a, "data", 1)
    wait_mirrored(replica, "data", 1)
    assert (pair("full")["state"], pair("data")["state"]) == ("PENDING", "DUPLEX")
    assert "has 8388608 bytes, its primary 4194304" in pair("full")["reason"]
    assert source(replica)["reconnect_count"] == 0
    s.command("volume", "delete", "full", "--yes")
    wait_until(lambda: pair("full")["state"] == "DUPLEX", "the pair has joined", deadline_s=WAIT_S_MAX)
    wait_mirrored(replica, "full", 3)
    with pytest.raises(ProcessError, match="take the pair out first"):
        s.command("volume", "delete", "full", "--yes")


def test_a_secondary_cannot_be_the_primary_of_another_session(site: Site) -> None:
    a, s, t = site.controllers("a", "s", "t")
    a.create_volume("data", 4 * MIB)
    replicate("bank", [(a, "data")], s)
    command = ("session", "create", "far", "--primary", f"s={s.link_address}", "--pair", "s:data")
    with pytest.raises(ProcessError, match="exit code 4") as failed:
        t.command(*command, "--wait", "--timeout", "30")
    assert "it is a secondary of session 'bank' here: end that session first" in failed.value.message
    s.command("session", "recover", "bank", "--yes")
    t.command("session", "delete", "far", "--yes")
    t.command(*command, "--wait", "--timeout", "30")


def test_idle_is_no_lag(site: Site) -> None:
    a, s = site.controllers("a", "s")
    a.create_volume("data", 4 * MIB)
    replica = replicate("bank", [(a, "data")], s)
    begin_s: float = s.get("/v1/status")["controller"]["uptime_s"]

    def idle_for_seconds() -> bool:
        report = replica.report()
        assert max(lags_s(report).values()) < IDLE_LAG_S_MAX
        assert report["blocked_on"] is None
        assert a.get("/v1/captures/bank")["hardened"]["lag_ms"] < 1000 * IDLE_LAG_S_MAX
        uptime_s: float = s.get("/v1/status")["controller"]["uptime_s"]
        return uptime_s > begin_s + 2 * IDLE_LAG_S_MAX

    wait_until(idle_for_seconds, "the session was idle for seconds", deadline_s=WAIT_S_MAX)
    assert metric(s, "isochrone_session_consistency_lag_seconds") < IDLE_LAG_S_MAX
    assert metric(s, "isochrone_session_blocked") == 0


def test_blocked_is_a_lag_that_grows_and_says_why(site: Site) -> None:
    a, s = site.controllers("a", "s")
    a.create_volume("data", 4 * MIB)
    replica = replicate("bank", [(a, "data")], s)
    a.kill()
    wait_until(
        lambda: min(lags_s(replica.report()).values()) > BLOCKED_LAG_S,
        "every time of the session lags",
        deadline_s=WAIT_S_MAX,
    )
    assert "primary a is not streaming" in replica.report()["blocked_on"]
    assert metric(s, "isochrone_session_consistency_lag_seconds") > BLOCKED_LAG_S
    assert metric(s, "isochrone_session_blocked") == 1

    a.start()
    wait_until(
        lambda: max(lags_s(replica.report()).values()) < BLOCKED_LAG_S,
        "the session moves again",
        deadline_s=WAIT_S_MAX,
    )
    s.command("session", "suspend", "bank", "--reason", "maintenance")
    wait_until(
        lambda: min(lags_s(replica.report()).values()) > BLOCKED_LAG_S,
        "a suspended session lags",
        deadline_s=WAIT_S_MAX,
    )
    assert replica.report()["blocked_on"] == "suspended: maintenance"


def test_a_primary_whose_mover_is_gone_shows_a_lag_that_grows(site: Site) -> None:
    a, s = site.controllers("a", "s")
    a.create_volume("data", 4 * MIB)
    replicate("bank", [(a, "data")], s)
    s.kill()
    wait_until(
        lambda: a.get("/v1/captures/bank")["hardened"]["lag_ms"] > 1000 * BLOCKED_LAG_S,
        "what is hardened lags",
        deadline_s=WAIT_S_MAX,
    )
    assert a.get("/v1/captures/bank")["link_state"] == "DOWN"
    assert metric(a, "isochrone_capture_hardened_lag_seconds") > BLOCKED_LAG_S


def test_a_start_that_cannot_trust_its_marks_says_so_once_and_copies(site: Site) -> None:
    a, s = site.controllers("a", "s")
    a.create_volume("data", 4 * MIB)
    replica = replicate("bank", [(a, "data")], s)
    a.kill()
    (marks,) = (a.folder / "pool").glob("changes-*")
    marks.unlink()
    site.expect_log("change marks are not trusted")
    a.start()
    told = [json.loads(line) for line in a.log_lines() if "change marks are not trusted" in line]
    assert [(line["level"], line["sessions"], line["volume_count"]) for line in told] == [
        ("warning", ["bank"], 1)
    ]
    write_block(a, "data", 3)
    wait_mirrored(replica, "data", 3)
    replica.wait_duplex()
