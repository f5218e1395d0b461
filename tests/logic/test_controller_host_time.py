"""Host time is one per boot, and no stamp is given out twice."""

import json
import threading
from pathlib import Path

import pytest

from isochrone.controller.host_time import (
    RENEW_AHEAD_NS,
    RESERVE_NS,
    SECOND_NS,
    START_WAIT_NS_MAX,
    HostTime,
    StampMark,
    StampReserve,
    check_clock_error,
    decode_host_time,
    decode_mark,
    format_time,
    propose_host_time,
    start_wait_ns,
)
from isochrone.controller.host_time_file import agree_on_host_time, host_time_path
from isochrone.model.errors import ConflictError, DamagedError, RefusedError

BOOT = "f61b3f26-5b0b-4b5e-a7fb-2a8e8cf0c6a4"
NOW = 1_900_000_000 * SECOND_NS
THIS_BOOT = HostTime(BOOT, NOW)


def agree(folder: Path, *, wall_ns: int = NOW, boot_id: str = BOOT) -> HostTime:
    return agree_on_host_time(folder, boot_id, lambda: 1000, lambda: wall_ns)


def test_host_time_starts_at_wall_time() -> None:
    assert propose_host_time(BOOT, 500, NOW) == HostTime(BOOT, NOW - 500)


def test_the_first_controller_of_a_boot_decides_and_a_stepped_clock_changes_nothing(tmp_path: Path) -> None:
    first = agree(tmp_path)
    assert agree(tmp_path, wall_ns=NOW - 3600 * SECOND_NS) == first


def test_an_earlier_boot_is_not_taken_over(tmp_path: Path) -> None:
    agree(tmp_path, boot_id="an-earlier-boot")
    assert agree(tmp_path, wall_ns=NOW + 5).offset_ns == NOW + 5 - 1000
    assert [path.name for path in tmp_path.iterdir()] == [f"host-time.{BOOT}"]


def test_many_that_come_at_once_agree(tmp_path: Path) -> None:
    count = 8
    together = threading.Barrier(count)
    found: list[HostTime] = []

    def come(number: int) -> None:
        together.wait()
        found.append(agree(tmp_path, wall_ns=NOW + number))

    threads = [threading.Thread(target=come, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == count
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"[]",
        b"{}",
        b"x" * 4096,
        json.dumps({"version": 2, "boot_id": BOOT, "offset_ns": NOW}).encode(),
        json.dumps({"version": 1, "boot_id": "other", "offset_ns": NOW}).encode(),
        json.dumps({"version": 1, "boot_id": BOOT, "offset_ns": -NOW}).encode(),
        json.dumps({"version": 1, "boot_id": BOOT, "offset_ns": 1 << 63}).encode(),
        json.dumps({"version": 1, "boot_id": BOOT, "offset_ns": True}).encode(),
    ],
)
def test_a_file_that_is_not_an_agreement_of_this_boot_is_refused(tmp_path: Path, content: bytes) -> None:
    path = host_time_path(tmp_path, BOOT)
    path.write_bytes(content)
    with pytest.raises(RefusedError, match="remove the file"):
        agree(tmp_path)


def test_a_folder_that_cannot_be_used_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match=r"controller\.runtime_dir: .*/file"):
        agree(tmp_path / "file")


def test_the_agreement_reads_back_as_written() -> None:
    assert decode_host_time(THIS_BOOT.encode(), boot_id=BOOT, monotonic_ns=0, path="p") == THIS_BOOT


def test_the_mark_reads_back_as_written_and_garbage_is_damage() -> None:
    mark = StampMark(THIS_BOOT, NOW)
    assert decode_mark(mark.encode()) == mark
    with pytest.raises(DamagedError):
        decode_mark(b'{"version": 1, "boot_id": "x"}')


def test_nothing_waits_in_the_boot_that_set_the_mark() -> None:
    mark = StampMark(THIS_BOOT, NOW + RESERVE_NS)
    assert start_wait_ns(mark, THIS_BOOT, NOW, path="p") == 0
    assert start_wait_ns(None, THIS_BOOT, NOW, path="p") == 0


def test_another_host_time_waits_until_it_has_passed_the_mark() -> None:
    mark = StampMark(HostTime("earlier", 5), NOW + RESERVE_NS)
    wait_ns = start_wait_ns(mark, THIS_BOOT, NOW, path="p")
    assert start_wait_ns(mark, THIS_BOOT, NOW + wait_ns, path="p") == 0
    assert start_wait_ns(mark, THIS_BOOT, NOW + wait_ns - 1, path="p") == 1


def test_a_clock_far_behind_the_mark_is_refused_with_the_cure() -> None:
    mark = StampMark(HostTime("earlier", 5), NOW + START_WAIT_NS_MAX + 1)
    with pytest.raises(ConflictError, match="the clock was set back") as caught:
        start_wait_ns(mark, THIS_BOOT, NOW, path="/run/x/host-time.b")
    assert "/run/x/host-time.b" in caught.value.message


def test_a_reserve_is_renewed_long_before_it_is_used_up() -> None:
    reserve = StampReserve(THIS_BOOT)
    assert reserve.is_due(NOW)
    mark = reserve.next_mark(NOW)
    reserve.set_durable(mark)
    assert not reserve.is_due(NOW)
    due_ns = NOW + RESERVE_NS - RENEW_AHEAD_NS + 1
    assert reserve.is_due(due_ns)
    assert not reserve.is_used_up(mark.through_ns)
    assert reserve.is_used_up(mark.through_ns + 1)


def test_nothing_waits_after_a_clean_stop() -> None:
    mark = StampReserve(HostTime("earlier", 5)).final_mark(NOW)
    assert start_wait_ns(mark, THIS_BOOT, NOW + 1, path="p") == 0


def test_a_clock_that_is_off_by_more_than_the_configured_error_is_refused() -> None:
    check_clock_error(NOW, NOW + SECOND_NS, 0, path="p")
    check_clock_error(NOW, NOW + SECOND_NS, SECOND_NS, path="p")
    with pytest.raises(ConflictError, match="clock_error_ms"):
        check_clock_error(NOW, NOW + SECOND_NS + 1, SECOND_NS, path="p")


def test_times_are_written_for_people() -> None:
    assert format_time(1_250_000_000) == "1970-01-01 00:00:01.250 UTC"
