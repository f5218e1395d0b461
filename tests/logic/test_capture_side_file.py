"""The side file counts each batch once; a backlog keeps order, forgets the hardened and resends what a peer lacks."""

from __future__ import annotations

import pytest

from isochrone.capture.backlog import Backlog
from isochrone.capture.side_file import SideFile
from support.cores import batch
from support.store import TRACK

SIZE = TRACK + 24
"""Bytes of a batch of one track."""


def filled(*times: int, bytes_max: int = 1 << 20) -> tuple[SideFile, Backlog]:
    side_file = SideFile(bytes_max)
    backlog = Backlog(side_file)
    for time_ns in times:
        side_file.enter(batch(time_ns, 1), (backlog,))
    return side_file, backlog


def times_of(backlog: Backlog, bytes_max: int = 1 << 30) -> list[int]:
    return [b.last_time_ns for b in backlog.take_unsent(bytes_max)]


def test_a_batch_shared_by_two_sessions_is_counted_once_until_both_have_hardened_it() -> None:
    side_file = SideFile(1 << 20)
    one, two = Backlog(side_file), Backlog(side_file)
    side_file.enter(batch(10, 1), (one, two))
    assert (side_file.used_bytes, one.held_bytes, two.held_bytes) == (SIZE, SIZE, SIZE)
    one.take_unsent(SIZE)
    one.drop_hardened(10)
    assert (side_file.used_bytes, one.held_bytes, two.held_bytes) == (SIZE, 0, SIZE)
    two.take_unsent(SIZE)
    two.drop_hardened(10)
    assert side_file.used_bytes == 0


def test_a_batch_shared_by_two_sessions_leaves_when_both_have_suspended() -> None:
    side_file = SideFile(1 << 20)
    one, two = Backlog(side_file), Backlog(side_file)
    side_file.enter(batch(10, 1), (one, two))
    one.clear()
    assert side_file.used_bytes == SIZE
    two.clear()
    assert side_file.used_bytes == 0


def test_batches_leave_in_the_order_they_came_and_are_not_sent_twice() -> None:
    _, backlog = filled(10, 20, 30)
    assert times_of(backlog, 2 * SIZE) == [10, 20]
    assert times_of(backlog) == [30]
    assert times_of(backlog) == []
    assert (backlog.unsent_bytes, len(backlog)) == (0, 3)


@pytest.mark.parametrize(
    ("bytes_max", "count"), [(0, 1), (SIZE - 1, 1), (SIZE, 1), (2 * SIZE - 1, 1), (2 * SIZE, 2)]
)
def test_a_set_keeps_to_its_size_but_a_first_batch_travels_whole(bytes_max: int, count: int) -> None:
    _, backlog = filled(10, 20, 30)
    assert len(backlog.take_unsent(bytes_max)) == count
    assert backlog.unsent_bytes == (3 - count) * SIZE


def test_hardened_batches_are_dropped_and_the_last_of_them_remembered() -> None:
    side_file, backlog = filled(10, 20, 30)
    backlog.take_unsent(1 << 30)
    backlog.drop_hardened(25)
    assert (len(backlog), backlog.sent_count, backlog.dropped_through_ns) == (1, 1, 20)
    assert side_file.used_bytes == backlog.held_bytes == SIZE


def test_a_batch_is_kept_until_its_last_record_is_hardened() -> None:
    side_file = SideFile(1 << 20)
    backlog = Backlog(side_file)
    side_file.enter(batch(10, 1, last_time_ns=20), (backlog,))
    backlog.take_unsent(1 << 30)
    backlog.drop_hardened(19)
    assert len(backlog) == 1
    backlog.drop_hardened(20)
    assert (len(backlog), side_file.used_bytes) == (0, 0)


def test_what_was_not_sent_is_never_dropped_however_late_the_hardened_time() -> None:
    _, backlog = filled(10, 20)
    backlog.take_unsent(SIZE)
    backlog.drop_hardened(99)
    assert (len(backlog), backlog.unsent_bytes, backlog.dropped_through_ns) == (1, SIZE, 10)
    assert times_of(backlog) == [20]


@pytest.mark.parametrize(
    ("received", "resent"), [(0, [10, 20, 30]), (10, [20, 30]), (15, [20, 30]), (30, []), (99, [])]
)
def test_a_peer_that_comes_back_is_sent_exactly_what_it_lacks(received: int, resent: list[int]) -> None:
    _, backlog = filled(10, 20, 30)
    backlog.take_unsent(1 << 30)
    backlog.rewind(received)
    assert backlog.unsent_bytes == len(resent) * SIZE
    assert times_of(backlog) == resent


def test_a_peer_may_have_received_more_than_was_counted_as_sent() -> None:
    _, backlog = filled(10, 20, 30)
    backlog.rewind(20)
    assert times_of(backlog) == [30]


def test_the_side_file_is_full_only_beyond_its_limit() -> None:
    side_file, _ = filled(10, bytes_max=SIZE)
    assert not side_file.is_full
    side_file, _ = filled(10, 20, bytes_max=SIZE)
    assert side_file.is_full


def test_images_are_counted_apart_as_they_come_and_go() -> None:
    side_file = SideFile(1 << 20)
    backlog = Backlog(side_file)
    side_file.enter(batch(10, 1), (backlog,), is_image=True)
    side_file.enter(batch(20, 1), (backlog,))
    assert (backlog.image_bytes, backlog.held_bytes) == (SIZE, 2 * SIZE)
    backlog.take_unsent(1 << 30)
    backlog.drop_hardened(10)
    assert (backlog.image_bytes, backlog.held_bytes) == (0, SIZE)
    side_file.enter(batch(30, 1), (backlog,), is_image=True)
    backlog.clear()
    assert (backlog.image_bytes, backlog.held_bytes, backlog.unsent_bytes, len(backlog)) == (0, 0, 0, 0)


def test_a_cleared_backlog_has_dropped_nothing_of_the_stream_to_come() -> None:
    _, backlog = filled(10)
    backlog.take_unsent(1 << 30)
    backlog.drop_hardened(10)
    backlog.clear()
    assert (backlog.dropped_through_ns, backlog.sent_count) == (0, 0)
