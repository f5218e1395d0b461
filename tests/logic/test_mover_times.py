"""The times of a mover: F is what all primaries have promised, J what is durable, C what is committed; C <= J <= F (S4)."""

from __future__ import annotations

import pytest

from isochrone.mover.mover import Mover
from isochrone.mover.settings import MoverSettings
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk
from support.cores import IDLE_LOG, data, form_and_harden, heartbeat, mover_of
from support.store import TRACK, new_pool, run, tags

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000


def times(mover: Mover) -> tuple[int, int, int]:
    assert mover.consistency_ns <= mover.journal_ns <= mover.form_ns
    return mover.consistency_ns, mover.journal_ns, mover.form_ns


# F


def test_f_is_the_least_promise_of_all_primaries() -> None:
    mover, _ = mover_of(0, 1)
    mover.receive(0, heartbeat(100))
    mover.receive(1, heartbeat(70))
    assert mover.form_ns == 70
    mover.receive(1, heartbeat(130))
    assert mover.form_ns == 100


def test_f_stands_while_one_primary_is_silent() -> None:
    mover, pool = mover_of(0, 1)
    for source in (0, 1):
        mover.receive(source, heartbeat(50))
    for promise in range(60, 100, 10):
        mover.receive(0, heartbeat(promise))
        form_and_harden(mover, pool, promise * MILLISECOND_NS)
        mover.commit(mover.journal_ns)
    assert times(mover) == (50, 50, 50)


def test_an_idle_primary_moves_the_times_by_its_promises_alone() -> None:
    mover, pool = mover_of(0)
    for promise in (100, 200, 300):
        mover.receive(0, heartbeat(promise))
        form_and_harden(mover, pool, promise * MILLISECOND_NS)
        mover.commit(mover.journal_ns)
        assert times(mover) == (promise, promise, promise)


def test_a_promise_that_steps_back_does_not_take_f_back() -> None:
    mover, _ = mover_of(0)
    mover.receive(0, heartbeat(100))
    mover.receive(0, heartbeat(90))
    assert mover.form_ns == 100


def test_a_primary_that_never_answered_holds_nothing_back() -> None:
    mover, _ = mover_of(0, 1)
    mover.receive(0, heartbeat(100))
    assert mover.form_ns == 100


def test_a_late_joiner_does_not_take_j_back_and_f_waits_for_it_from_its_first_promise_on() -> None:
    mover, pool = mover_of(0, 1)
    mover.receive(0, heartbeat(100))
    form_and_harden(mover, pool, 100 * MILLISECOND_NS)
    mover.receive(1, heartbeat(60))
    assert (mover.journal_ns, mover.form_ns) == (100, 100)
    mover.receive(0, heartbeat(200))
    assert mover.form_ns == 100
    mover.receive(1, heartbeat(150))
    assert mover.form_ns == 150


def test_a_late_joiner_is_interlocked_only_when_c_has_passed_what_was_reached_without_it() -> None:
    mover, pool = mover_of(0, 1)
    mover.receive(0, heartbeat(100))
    form_and_harden(mover, pool, 100 * MILLISECOND_NS)
    mover.commit(100)
    assert mover.has_interlocked(0)
    assert not mover.has_interlocked(1)
    mover.receive(1, heartbeat(100))
    assert not mover.has_interlocked(1)
    for source in (0, 1):
        mover.receive(source, heartbeat(101))
    form_and_harden(mover, pool, 200 * MILLISECOND_NS)
    mover.commit(101)
    assert mover.has_interlocked(1)


def test_a_harden_under_way_counts_as_reached_without_the_late_joiner() -> None:
    mover, pool = mover_of(0, 1)
    mover.receive(0, data(100, 0, 1))
    assert mover.form(SECOND_NS)
    mover.receive(1, data(60, 1, 2))
    run(pool.sync())
    mover.hardened()
    mover.commit(100)
    assert mover.consistency_ns == 100
    assert not mover.has_interlocked(1)


def test_to_a_late_joiner_nothing_is_hardened_before_j_counts_it() -> None:
    mover, pool = mover_of(0, 1)
    mover.receive(0, heartbeat(100))
    form_and_harden(mover, pool, 100 * MILLISECOND_NS)
    assert (mover.hardened_ns(0), mover.hardened_ns(1)) == (100, 0)
    mover.receive(1, data(60, 0, 1))
    assert mover.hardened_ns(1) == 0
    mover.receive(0, heartbeat(200))
    mover.receive(1, heartbeat(180))
    assert mover.hardened_ns(1) == 0
    form_and_harden(mover, pool, 200 * MILLISECOND_NS)
    assert (mover.hardened_ns(0), mover.hardened_ns(1)) == (180, 180)


def test_f_no_longer_waits_for_a_primary_that_has_left() -> None:
    mover, _ = mover_of(0, 1)
    mover.receive(0, heartbeat(100))
    mover.receive(1, heartbeat(70))
    mover.remove_source(1)
    assert mover.form_ns == 100
    assert not mover.has_interlocked(1)


def test_without_any_primary_the_times_stand() -> None:
    mover, pool = mover_of()
    assert times(mover) == (0, 0, 0)
    form_and_harden(mover, pool, SECOND_NS)
    assert times(mover) == (0, 0, 0)


# J


def test_j_follows_only_when_the_sync_has_ended() -> None:
    mover, _ = mover_of(0)
    mover.receive(0, data(100, 0, 1))
    assert mover.form(SECOND_NS)
    assert (mover.is_hardening, mover.journal_ns) == (True, 0)
    mover.hardened()
    assert (mover.is_hardening, mover.journal_ns) == (False, 100)


def test_what_comes_while_a_sync_runs_is_not_counted_by_it() -> None:
    mover, pool = mover_of(0)
    mover.receive(0, data(100, 0, 1))
    mover.form(SECOND_NS)
    mover.receive(0, data(200, 1, 2))
    mover.receive(0, heartbeat(300))
    assert not mover.form(2 * SECOND_NS)
    mover.hardened()
    assert times(mover) == (0, 100, 300)
    assert form_and_harden(mover, pool, 3 * SECOND_NS)
    assert mover.journal_ns == 300


def test_a_failed_sync_hardens_nothing_and_leaves_what_was_staged_to_the_next() -> None:
    mover, _ = mover_of(0)
    mover.receive(0, data(100, 0, 1))
    mover.form(SECOND_NS)
    mover.harden_failed()
    assert (mover.journal_ns, mover.is_hardening) == (0, False)
    mover.hardened()
    assert mover.journal_ns == 0
    assert mover.form(2 * SECOND_NS)


def test_a_group_is_closed_at_the_interval_and_no_sooner() -> None:
    mover, _ = mover_of(0, settings=MoverSettings(group_interval_ns=10))
    mover.receive(0, data(100, 0, 1))
    assert mover.form(1000)
    mover.hardened()
    mover.receive(0, data(200, 0, 1))
    assert not mover.form(1009)
    assert mover.form(1010)


def test_a_group_is_closed_early_once_it_holds_enough() -> None:
    mover, _ = mover_of(0, settings=MoverSettings(group_interval_ns=SECOND_NS, group_bytes_max=2 * TRACK))
    mover.receive(0, data(100, 0, 1))
    mover.form(SECOND_NS)
    mover.hardened()
    mover.receive(0, data(200, 0, 1))
    assert not mover.form(SECOND_NS + 1)
    mover.receive(0, data(300, 1, 1))
    assert mover.form(SECOND_NS + 2)


def test_while_no_writes_come_a_sync_is_asked_for_only_now_and_then() -> None:
    mover, pool = mover_of(0)
    asked = 0
    for step in range(1, 301):
        mover.receive(0, heartbeat(step))
        asked += form_and_harden(mover, pool, step * 10 * MILLISECOND_NS)
        assert mover.journal_ns == step
    assert 1 <= asked <= 4


def test_the_times_of_an_idle_session_survive_a_restart_but_for_an_interval() -> None:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk)
    mover = Mover(pool, 1, IDLE_LOG)
    mover.add_source(0)
    for step in range(1, 301):
        mover.receive(0, heartbeat(step))
        form_and_harden(mover, pool, step * 10 * MILLISECOND_NS)
    disk.kill()
    mover = Mover(Pool.open(disk), 1, IDLE_LOG)
    mover.add_source(0)
    assert 199 <= mover.form_ns <= 300


# C


@pytest.mark.parametrize(
    ("limit", "c", "image"), [(99, 99, [0, 0]), (100, 100, [1, 0]), (150, 150, [1, 0]), (999, 200, [1, 2])]
)
def test_a_commit_goes_to_its_limit_and_never_past_j(limit: int, c: int, image: list[int]) -> None:
    mover, pool = mover_of(0)
    mover.receive(0, data(100, 0, 1))
    mover.receive(0, data(200, 1, 2))
    form_and_harden(mover, pool, SECOND_NS)
    mover.receive(0, data(300, 2, 3))
    mover.commit(limit)
    assert mover.consistency_ns == c
    assert tags(pool, "a", 3) == [*image, 0]


def test_nothing_is_committed_before_it_is_hardened() -> None:
    mover, pool = mover_of(0)
    mover.receive(0, data(100, 0, 1))
    mover.form(SECOND_NS)
    mover.commit(100)
    assert (mover.consistency_ns, tags(pool, "a", 1)) == (0, [0])


def test_a_commit_to_an_earlier_time_does_nothing() -> None:
    mover, pool = mover_of(0)
    mover.receive(0, data(100, 0, 1))
    form_and_harden(mover, pool, SECOND_NS)
    mover.commit(100)
    committed = mover.groups_committed
    mover.commit(50)
    mover.commit(100)
    assert (mover.consistency_ns, mover.groups_committed) == (100, committed)


def test_a_restarted_mover_stands_at_the_committed_time_and_what_was_staged() -> None:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk)
    pool.create_volume("a", 16 * TRACK)
    mover = Mover(pool, 1, IDLE_LOG)
    mover.add_source(0)
    mover.receive(0, data(100, 0, 1))
    form_and_harden(mover, pool, SECOND_NS)
    mover.commit(100)
    mover.receive(0, data(200, 1, 2))
    form_and_harden(mover, pool, 2 * SECOND_NS)
    disk.kill()
    pool = Pool.open(disk)
    mover = Mover(pool, 1, IDLE_LOG)
    mover.add_source(0)
    assert times(mover) == (100, 100, 200)
    form_and_harden(mover, pool, 3 * SECOND_NS)
    mover.commit(mover.journal_ns)
    assert (mover.consistency_ns, tags(pool, "a", 2)) == (200, [1, 2])


def test_harden_all_covers_everything_staged_whatever_the_interval() -> None:
    mover, _ = mover_of(0, settings=MoverSettings(group_interval_ns=SECOND_NS))
    mover.receive(0, data(100, 0, 1))
    mover.form(SECOND_NS)
    mover.hardened()
    mover.receive(0, data(200, 0, 1))
    mover.receive(0, heartbeat(250))
    mover.harden_all()
    mover.hardened()
    assert mover.journal_ns == 250


# Counting


def test_records_and_bytes_are_counted_as_they_come() -> None:
    mover, _ = mover_of(0)
    mover.receive(0, data(100, 0, 1, 2))
    mover.receive(0, heartbeat(200))
    assert (mover.records_received, mover.bytes_received) == (1, 24 + 2 * TRACK)


def test_a_primary_with_a_complete_pair_counts_though_a_restart_forgot_its_promises() -> None:
    """Else C would run past its writes while its pair is called complete (promise 1)."""
    _, pool = new_pool(SimDisk(seed=1))
    mover = Mover(pool, 1, IDLE_LOG)
    mover.add_source(0, is_complete=True)
    mover.add_source(1, is_complete=True)
    mover.receive(0, heartbeat(500))
    assert mover.form_ns == 0
    mover.receive(1, heartbeat(300))
    assert mover.form_ns == 300
