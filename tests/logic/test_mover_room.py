"""A mover and the room it has: windows, record sets that wait for a full pool, and what a held commit lets it give up."""

from __future__ import annotations

import pytest

from isochrone.model.errors import RefusedError
from isochrone.mover.mover import Mover
from isochrone.mover.settings import MoverSettings
from isochrone.store.pool import Pool
from support.cores import IDLE_LOG, SECOND_NS, data, form_and_harden, heartbeat, mover_of
from support.store import TRACK, run, tags

SIZE = TRACK + 24


def full(*sources: int) -> tuple[Mover, Pool]:
    """A mover whose pool of 4 tracks is full: one committed, three staged at 10 and hardened."""
    mover, pool = mover_of(*sources, pool_tracks=4)
    for source in sources:
        mover.receive(source, heartbeat(1))
    mover.receive(0, data(5, 0, 1))
    mover.receive(0, data(10, 1, 2, 3, 4))
    for source in sources[1:]:
        mover.receive(source, heartbeat(10))
    form_and_harden(mover, pool, SECOND_NS)
    mover.commit(5)
    assert pool.free_track_count == 0
    return mover, pool


def test_the_window_opens_by_what_was_staged_and_no_further() -> None:
    mover, _ = mover_of(0, 1, settings=MoverSettings(window_bytes=1000))
    assert mover.window_bytes(0) == 1000
    mover.receive(0, data(10, 0, 1))
    assert (mover.window_bytes(0), mover.window_bytes(1)) == (1000 + SIZE, 1000)
    mover.receive(0, heartbeat(20))
    assert mover.window_bytes(0) == 1000 + SIZE


def test_on_a_new_link_the_window_counts_from_zero() -> None:
    mover, _ = mover_of(0, settings=MoverSettings(window_bytes=1000))
    mover.receive(0, data(10, 0, 1))
    mover.restart_window(0)
    assert mover.window_bytes(0) == 1000
    assert mover.sources[0].through_ns == 10


def test_what_finds_the_pool_full_waits_keeps_the_window_shut_and_says_so() -> None:
    mover, _ = full(0)
    window_bytes = mover.window_bytes(0)
    mover.receive(0, data(20, 4, 5))
    assert "free" in mover.full_reason
    assert (mover.window_bytes(0), mover.form_ns) == (window_bytes, 10)
    assert len(mover.sources[0].waiting) == 1


def test_nothing_overtakes_what_waits_not_even_a_promise() -> None:
    mover, _ = full(0)
    mover.receive(0, data(20, 4, 5))
    mover.receive(0, heartbeat(30))
    assert (mover.form_ns, len(mover.sources[0].waiting)) == (10, 2)


def test_what_waits_is_staged_in_order_once_there_is_room() -> None:
    mover, pool = full(0)
    mover.receive(0, data(20, 1, 5))
    mover.receive(0, data(30, 1, 6))
    mover.receive(0, heartbeat(40))
    mover.stage_waiting()
    assert len(mover.sources[0].waiting) == 3
    # Committing replaces nothing here; trimming does.
    pool.volumes["a"].zero(0, TRACK, allocate=False)
    run(pool.sync())
    mover.stage_waiting()
    assert [received.through_ns for received in mover.sources[0].waiting] == [30, 40]
    assert mover.full_reason
    mover.commit(10)
    pool.volumes["a"].zero(2 * TRACK, 2 * TRACK, allocate=False)
    run(pool.sync())
    mover.stage_waiting()
    assert (mover.full_reason, len(mover.sources[0].waiting), mover.form_ns) == ("", 0, 40)
    form_and_harden(mover, pool, 2 * SECOND_NS)
    mover.commit(40)
    assert tags(pool, "a", 4) == [0, 6, 0, 0]


def test_a_waiting_primary_holds_f_and_the_other_goes_on_staging() -> None:
    mover, _ = full(0, 1)
    mover.receive(0, data(20, 4, 5))
    mover.receive(1, heartbeat(50))
    assert (mover.sources[1].through_ns, mover.form_ns) == (50, 10)


def test_what_waited_is_forgotten_with_its_link_for_it_will_be_sent_again() -> None:
    mover, _ = full(0)
    mover.receive(0, data(20, 4, 5))
    mover.restart_window(0)
    assert (len(mover.sources[0].waiting), mover.sources[0].through_ns) == (0, 10)
    mover.stage_waiting()
    assert mover.full_reason == ""


def test_a_record_set_that_contradicts_an_earlier_one_is_refused_and_changes_nothing() -> None:
    mover, pool = mover_of(0)
    mover.receive(0, data(20, 0, 1))
    staged = pool.staged_count(1)
    with pytest.raises(RefusedError):
        mover.receive(0, data(10, 1, 2))
    assert (mover.sources[0].through_ns, pool.staged_count(1)) == (20, staged)


def test_p10_4_while_commits_are_held_superseded_entries_are_given_up_for_room() -> None:
    mover, pool = mover_of(0, pool_tracks=6)
    mover.receive(0, data(10, 0, 1))
    form_and_harden(mover, pool, SECOND_NS)
    mover.commit(10)
    for number in range(5):
        mover.receive(0, data(20 + number, 1, 50 + number))
    form_and_harden(mover, pool, 2 * SECOND_NS)
    mover.receive(0, data(30, 2, 9))
    assert mover.full_reason
    mover.compact(10)
    run(pool.sync())
    mover.stage_waiting()
    assert mover.full_reason == ""
    form_and_harden(mover, pool, 3 * SECOND_NS)
    mover.commit(30)
    assert tags(pool, "a", 3) == [1, 54, 9]


def test_entries_up_to_the_floor_and_past_j_are_not_given_up() -> None:
    mover, pool = mover_of(0)
    mover.receive(0, data(10, 0, 1))
    mover.receive(0, data(20, 0, 2))
    form_and_harden(mover, pool, SECOND_NS)
    mover.receive(0, data(30, 0, 3))
    mover.compact(10)
    assert pool.staged_count(1) == 3
    mover.commit(10)
    assert tags(pool, "a", 1) == [1]


def test_p10_4_at_rest_no_room_is_lost_whatever_was_rewritten() -> None:
    mover, pool = mover_of(0, settings=IDLE_LOG, pool_tracks=32)
    for number in range(1, 60):
        mover.receive(0, data(10 * number, number % 4, number))
        form_and_harden(mover, pool, number * SECOND_NS)
        mover.commit(mover.journal_ns)
    run(pool.sync())
    assert (pool.used_track_count, pool.free_track_count, pool.staged_count(1)) == (4, 28, 0)
    pool.verify()


def test_a_new_stream_does_without_what_waited_for_room_in_the_old_one_and_finds_the_window_open() -> None:
    mover, pool = full(0)
    window_bytes = mover.window_bytes(0)
    mover.receive(0, data(20, 4, 5))
    mover.begin_stream(0)
    assert mover.window_bytes(0) == window_bytes + SIZE
    mover.commit(10)
    run(pool.sync())
    mover.stage_waiting()
    mover.receive(0, heartbeat(30))
    form_and_harden(mover, pool, 2 * SECOND_NS)
    mover.commit(30)
    assert (mover.consistency_ns, tags(pool, "a", 5)) == (30, [1, 2, 3, 4, 0])
