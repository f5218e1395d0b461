"""The history of a session: images of every past instant, what gives the oldest part up, and what ends it."""

from __future__ import annotations

import pytest

from isochrone.model.errors import ConflictError, NotFoundError, PoolFullError, RefusedError
from isochrone.model.records import RecordKind
from isochrone.model.volume_kind import VolumeKind
from isochrone.store import history_keeper
from isochrone.store.check import check_pool
from isochrone.store.disk import Disk
from isochrone.store.history_keeper import HistoryGivenUp
from isochrone.store.page_slots import PageSlots
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk
from support.history import SESSION, image, made, put, put_zeros, rewound, shown, shown_at
from support.store import TRACK, new_pool, records, run, tags, tracks

A, B = 1, 2


def pool_with_history(*, track_count: int = 128, volume_tracks: int = 8) -> tuple[Disk, Pool]:
    """Volumes a and b, committed through 10 (a shows 1 in its first track), and kept from there."""
    disk, pool = new_pool(track_count=track_count)
    pool.create_volume("a", volume_tracks * TRACK)
    pool.create_volume("b", volume_tracks * TRACK)
    put(pool, 10, A, 0, 1)
    pool.commit(SESSION, 10)
    pool.history_begin(SESSION, [A, B])
    return disk, pool


def reopened(disk: Disk, pool: Pool) -> Pool:
    """The pool after its process died."""
    assert isinstance(disk, SimDisk)
    disk.kill()
    assert not check_pool(disk).problems
    return Pool.open(disk)


def test_an_image_shows_exactly_what_was_committed_up_to_its_time() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    put(pool, 30, A, 0, 3, 33)
    pool.commit(SESSION, 30)
    put_zeros(pool, 40, A, 0, 1)
    put(pool, 50, B, 7, 9)
    pool.commit(SESSION, 60)
    assert [shown_at(pool, at, A)[:2] for at in (10, 19, 20, 29, 30, 39, 40, 60)] == [
        [1, 0],
        [1, 0],
        [2, 0],
        [2, 0],
        [3, 33],
        [3, 33],
        [0, 33],
        [0, 33],
    ]
    assert [shown_at(pool, at, B)[7] for at in (49, 50)] == [0, 9]
    assert tags(pool, "a", 2) == [0, 33]
    pool.verify()


def test_all_volumes_of_an_image_are_of_one_instant_and_can_be_written() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 1, 5)
    put(pool, 30, B, 1, 6)
    pool.commit(SESSION, 30)
    first, second = image(pool, 20, {A: "a~t", B: "b~t"}, VolumeKind.IMAGE)
    assert (first.name, second.name, first.kind) == ("a~t", "b~t", VolumeKind.IMAGE)
    assert (shown(first)[1], shown(second)[1]) == (5, 0)
    first.write(TRACK, tracks(77))
    assert (tags(pool, "a", 2)[1], shown_at(pool, 20, A)[1]) == (5, 5)
    pool.verify()


def test_an_instant_outside_the_history_is_refused() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    pool.commit(SESSION, 20)
    for at_ns in (9, 21):
        with pytest.raises(RefusedError, match="from 10 to 20"):
            pool.history_image(SESSION, at_ns, {A: "t"}, VolumeKind.COPY)
    with pytest.raises(NotFoundError):
        pool.history_image(SESSION + 1, 10, {A: "t"}, VolumeKind.COPY)
    with pytest.raises(ConflictError):
        pool.history_image(SESSION, 10, {A: "b"}, VolumeKind.COPY)


def test_releasing_moves_the_first_instant_and_gives_replaced_tracks_back() -> None:
    _, pool = pool_with_history()
    for time_ns in (20, 30, 40):
        put(pool, time_ns, A, 0, time_ns)
    pool.commit(SESSION, 40)
    assert pool.used_track_count == 4
    done = pool.history_release(SESSION, 30)
    assert (done.first_ns, done.record_count, done.freed_track_count, done.is_done) == (30, 2, 2, True)
    assert [shown_at(pool, at, A)[0] for at in (30, 39, 40)] == [30, 30, 40]
    with pytest.raises(RefusedError):
        shown_at(pool, 29, A)
    run(pool.sync())
    assert pool.free_track_count == 126
    pool.verify()


def test_a_release_takes_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_keeper, "HISTORY_STEP_RECORD_COUNT_MAX", 3)
    _, pool = pool_with_history()
    for time_ns in range(20, 30):
        put(pool, time_ns, A, 0, time_ns)
        pool.commit(SESSION, time_ns)
    steps = [pool.history_release(SESSION, 99) for _ in range(4)]
    assert [(step.first_ns, step.record_count, step.is_done) for step in steps] == [
        (22, 3, False),
        (25, 3, False),
        (28, 3, False),
        (29, 1, True),
    ]
    assert tags(pool, "a", 1) == [29]
    pool.verify()


def test_a_volume_that_leaves_is_kept_until_the_window_has_passed() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    pool.commit(SESSION, 20)
    pool.history_end(SESSION, A)
    pool.delete_volume("a")
    put(pool, 30, B, 0, 3)
    pool.commit(SESSION, 30)
    assert shown_at(pool, 20, A)[0] == 2
    with pytest.raises(RefusedError, match="was not kept then"):
        shown_at(pool, 21, A)
    pool.history_release(SESSION, 20)
    stats = pool.history(SESSION)
    assert stats is not None
    assert [(stay.number, stay.from_ns, stay.until_ns) for stay in stats.volumes] == [(B, 10, None)]
    pool.verify()


def test_a_volume_that_comes_back_has_two_stays() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    pool.commit(SESSION, 20)
    pool.history_end(SESSION, A)
    pool.volumes["a"].write(0, tracks(99))
    pool.commit(SESSION, 30)
    pool.history_begin(SESSION, [A])
    put(pool, 40, A, 0, 4)
    pool.commit(SESSION, 40)
    assert [shown_at(pool, at, A)[0] for at in (15, 20, 30, 40)] == [1, 2, 99, 4]
    with pytest.raises(RefusedError):
        shown_at(pool, 25, A)
    pool.verify()


def test_a_volume_that_gets_another_size_is_not_kept_any_more() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 7, 2)
    pool.commit(SESSION, 20)
    pool.resize_volume("a", 4 * TRACK)
    assert shown_at(pool, 20, A)[7] == 2
    pool.commit(SESSION, 30)
    with pytest.raises(RefusedError):
        shown_at(pool, 30, A)
    pool.verify()


def test_dropping_a_history_gives_everything_back_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_keeper, "HISTORY_STEP_RECORD_COUNT_MAX", 2)
    _, pool = pool_with_history()
    for time_ns in range(20, 25):
        put(pool, time_ns, A, 0, time_ns)
    pool.commit(SESSION, 24)
    pool.history_drop(SESSION)
    assert (pool.histories, pool.history(SESSION)) == ((), None)
    pool.verify()
    for _ in range(4):
        run(pool.sync())
    assert pool.free_track_count == 127
    assert tags(pool, "a", 1) == [24]
    pool.verify()


def test_a_history_outlives_its_session() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    pool.commit(SESSION, 20)
    pool.end_session(SESSION)
    pool.volumes["a"].write(0, tracks(50))
    assert [shown_at(pool, at, A)[0] for at in (19, 20)] == [1, 2]
    assert tags(pool, "a", 1) == [50]
    pool.verify()


def test_late_records_are_in_every_image_from_their_time_on() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    pool.commit(SESSION, 40)
    put(pool, 30, B, 3, 3, source=1)
    put(pool, 50, A, 0, 5)
    pool.commit(SESSION, 50)
    assert [shown_at(pool, at, B)[3] for at in (29, 30, 50)] == [0, 3, 3]
    pool.history_release(SESSION, 45)
    put(pool, 35, B, 4, 4, source=1)
    pool.commit(SESSION, 60)
    assert shown_at(pool, 45, B)[3:5] == [3, 4]
    assert shown_at(pool, 45, A)[0] == 2
    pool.verify()


def test_commits_go_on_while_an_image_is_made_and_releases_wait() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    pool.commit(SESSION, 20)
    put(pool, 21, B, 0, 21, source=1)
    pool.commit(SESSION, 22)
    steps = pool.history_image(SESSION, 22, {A: "t", B: "u"}, VolumeKind.COPY)
    call = next(steps)
    put(pool, 30, A, 0, 3)
    pool.commit(SESSION, 30)
    put(pool, 22, B, 1, 22, source=1)
    pool.commit(SESSION, 31)
    waits = pool.history_release(SESSION, 30)
    assert (waits.record_count, waits.is_done, waits.first_ns) == (0, False, 10)
    call()
    first, second = made(steps)
    assert (shown(first)[0], shown(second)[:2]) == (2, [21, 22])
    assert pool.history_release(SESSION, 30).is_done
    pool.verify()


def test_an_image_given_up_half_way_leaves_no_trace() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    pool.commit(SESSION, 20)
    steps = pool.history_image(SESSION, 20, {A: "t"}, VolumeKind.COPY)
    next(steps)()
    steps.close()
    assert list(pool.volumes) == ["a", "b"]
    pool.verify()
    steps = pool.history_image(SESSION, 20, {A: "t"}, VolumeKind.COPY)
    next(steps)
    pool.history_drop(SESSION)
    with pytest.raises(ConflictError, match="given up"):
        made(steps)
    pool.verify()


def test_a_checkpoint_while_an_image_is_made_leaves_none_of_it_after_a_crash() -> None:
    disk, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    pool.commit(SESSION, 20)
    steps = pool.history_image(SESSION, 20, {A: "t"}, VolumeKind.COPY)
    next(steps)()
    run(pool.checkpoint())
    again = reopened(disk, pool)
    assert list(again.volumes) == ["a", "b"]
    assert shown_at(again, 20, A)[0] == 2
    again.verify()


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["t", "a@t", "a~t"])
def test_history_images_and_documents_survive_a_crash_together(checkpointed: bool, name: str) -> None:
    kind = {"t": VolumeKind.COPY, "a@t": VolumeKind.SNAPSHOT, "a~t": VolumeKind.IMAGE}[name]
    disk, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    put(pool, 30, A, 1, 3)
    pool.commit(SESSION, 30)
    if checkpointed:
        run(pool.checkpoint())
    put(pool, 40, A, 1, 4)
    pool.commit(SESSION, 40)
    made(pool.history_image(SESSION, 25, {A: name}, kind, {"copy/t": b"25"}))
    pool.history_release(SESSION, 20)
    pool.history_end(SESSION, B)
    pool.log_write()
    again = reopened(disk, pool)
    assert (tags(again, name, 2), again.documents["copy/t"]) == ([2, 0], b"25")
    assert again.volumes[name].kind == kind
    run(again.checkpoint())
    again = reopened(disk, again)
    assert tags(again, name, 2) == [2, 0]
    assert [shown_at(again, at, A)[:2] for at in (20, 30, 40)] == [[2, 0], [2, 3], [2, 4]]
    assert again.history(SESSION) == pool.history(SESSION)
    again.verify()


def test_a_rewind_makes_the_volumes_what_they_were_and_names_what_changed_since() -> None:
    disk, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    put(pool, 30, A, 3, 3)
    put(pool, 40, B, 5, 4)
    put(pool, 50, A, 0, 2)
    pool.commit(SESSION, 50)
    pool.discard(SESSION, 30)
    assert rewound(pool.history_rewind(SESSION, 30, {"done": b"1"})) == {A: [0], B: [5]}
    assert (tags(pool, "a", 4), tags(pool, "b", 6)[5], pool.committed_through_ns(SESSION)) == (
        [2, 0, 0, 3],
        0,
        30,
    )
    pool.verify()
    again = reopened(disk, pool)
    assert (tags(again, "a", 4), again.documents["done"], again.committed_through_ns(SESSION)) == (
        [2, 0, 0, 3],
        b"1",
        30,
    )
    assert shown_at(again, 50, B)[5] == 4  # not lost before something new is committed
    assert rewound(again.history_rewind(SESSION, 30)) == {A: [0], B: [5]}
    put(again, 35, A, 1, 8)
    again.commit(SESSION, 45)
    assert shown_at(again, 45, A)[:4] == [2, 8, 0, 3]
    assert shown_at(again, 45, B)[5] == 0
    again.verify()


def test_a_rewind_leaves_alone_what_was_not_kept_then() -> None:
    _, pool = pool_with_history()
    put(pool, 20, A, 0, 2)
    put(pool, 20, B, 0, 2)
    pool.commit(SESSION, 20)
    pool.history_end(SESSION, B)
    pool.create_volume("c", 8 * TRACK)
    number = pool.volumes["c"].number
    pool.history_begin(SESSION, [number])
    put(pool, 30, number, 0, 3)
    pool.commit(SESSION, 30)
    assert rewound(pool.history_rewind(SESSION, 15)) == {A: [0]}
    assert (tags(pool, "a", 1), tags(pool, "b", 1), tags(pool, "c", 1)) == ([1], [2], [3])
    pool.verify()


def test_beginning_twice_changes_nothing_and_ending_what_is_not_kept_neither() -> None:
    _, pool = pool_with_history()
    before = pool.history(SESSION)
    pool.history_begin(SESSION, [A, A])
    pool.history_end(SESSION, 99)
    pool.history_end(SESSION + 1, A)
    pool.history_drop(SESSION + 1)
    assert pool.history(SESSION) == before
    with pytest.raises(NotFoundError):
        pool.history_begin(SESSION, [99])


def test_a_base_cannot_be_deleted_like_a_volume() -> None:
    _, pool = pool_with_history()
    stats = pool.history(SESSION)
    assert stats is not None
    with pytest.raises(RefusedError, match="history"):
        pool.delete_volumes([stats.volumes[0].base])


def test_a_history_tells_what_it_holds() -> None:
    _, pool = pool_with_history()
    row = (20, A, 0, 3, RecordKind.DATA)
    pool.stage(SESSION, 0, 30, records(row, (30, A, 2, 2, RecordKind.ZERO)), tracks(1, 2, 3))
    pool.commit(SESSION, 30)
    stats = pool.history(SESSION)
    assert stats is not None
    assert (stats.first_ns, stats.through_ns) == (10, 30)
    assert (stats.record_count, stats.entry_count, stats.track_count) == (2, 5, 3)
    assert (stats.held_bytes, stats.metadata_bytes) == (3 * TRACK, 60)
    assert stats.metadata_bytes <= 64 * stats.entry_count


def full_pool_with_history() -> Pool:
    """All 32 tracks in use: 4 of a volume beside, and a session that wrote one track 28 times."""
    _, pool = new_pool(track_count=32)
    pool.create_volume("a", 8 * TRACK)
    pool.create_volume("b", 8 * TRACK)
    pool.history_begin(SESSION, [A])
    pool.volumes["b"].write(0, tracks(1, 2, 3, 4))
    for time_ns in range(10, 38):
        put(pool, time_ns, A, 0, time_ns)
        pool.commit(SESSION, time_ns)
    assert pool.free_track_count + pool.pending_free_count == 0
    return pool


def test_a_full_pool_gives_up_the_oldest_history_first_and_tells() -> None:
    pool = full_pool_with_history()
    told: list[HistoryGivenUp] = []
    pool.on_history_given_up = told.append
    pool.volumes["b"].write(4 * TRACK, tracks(5))
    assert tags(pool, "b", 5) == [1, 2, 3, 4, 5]
    assert [(given.session, given.first_ns, given.new_first_ns, given.record_count) for given in told] == [
        (SESSION, 0, 13, 4)
    ]
    assert pool.stats().history_given_up_record_count == 4
    assert [shown_at(pool, at, A)[0] for at in (13, 36, 37)] == [13, 36, 37]
    with pytest.raises(RefusedError, match="from 13"):
        shown_at(pool, 12, A)
    pool.verify()


def test_a_full_pool_gives_up_all_history_before_it_says_so_and_never_the_committed_image() -> None:
    pool = full_pool_with_history()
    pool.volumes["b"].write(4 * TRACK, tracks(5, 6, 7, 8))
    put(pool, 40, A, 1, *range(41, 48))
    pool.stage(SESSION + 1, 0, 9, records((9, B, 0, 8, RecordKind.DATA)), tracks(*range(8)))
    pool.stage(SESSION + 1, 0, 10, records((10, B, 0, 8, RecordKind.DATA)), tracks(*range(8)))
    with pytest.raises(PoolFullError):
        pool.stage(SESSION + 1, 0, 11, records((11, B, 0, 8, RecordKind.DATA)), tracks(*range(8)))
    assert tags(pool, "a", 1) == [37]
    assert tags(pool, "b", 8) == [1, 2, 3, 4, 5, 6, 7, 8]
    stats = pool.history(SESSION)
    assert stats is not None
    assert (stats.record_count, stats.first_ns) == (0, 37)
    pool.commit(SESSION, 40)
    assert [shown_at(pool, at, A)[:2] for at in (37, 40)] == [[37, 0], [37, 41]]
    pool.verify()


def test_making_room_gives_up_no_more_than_it_must() -> None:
    pool = full_pool_with_history()
    assert pool.make_room(0)
    assert pool.stats().history_given_up_record_count == 0
    assert pool.make_room(5)
    assert pool.free_track_count + pool.pending_free_count >= 5
    stats = pool.history(SESSION)
    assert stats is not None
    assert stats.record_count > 18
    assert not pool.make_room(28)
    pool.verify()


def test_what_only_a_base_holds_goes_last() -> None:
    _, pool = new_pool(track_count=16)
    pool.create_volume("a", 8 * TRACK)
    pool.create_volume("b", 16 * TRACK)
    pool.volumes["a"].write(0, tracks(*range(1, 9)))
    pool.history_begin(SESSION, [A])
    pool.volumes["a"].write(0, tracks(*range(11, 19)))
    assert pool.history(SESSION) is not None
    pool.volumes["b"].write(0, tracks(*range(1, 9)))
    assert (pool.history(SESSION), tags(pool, "a", 8)) == (None, list(range(11, 19)))
    pool.verify()


def test_giving_up_fails_an_image_in_the_making_rather_than_a_write() -> None:
    pool = full_pool_with_history()
    steps = pool.history_image(SESSION, 10, {A: "t"}, VolumeKind.COPY)
    next(steps)()
    pool.volumes["b"].write(4 * TRACK, tracks(5))
    with pytest.raises((ConflictError, RefusedError)):
        made(steps)
    assert list(pool.volumes) == ["a", "b"]
    pool.verify()


def test_history_goes_as_a_whole_when_giving_up_a_part_would_need_table_pages_that_have_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = full_pool_with_history()
    told: list[HistoryGivenUp] = []
    pool.on_history_given_up = told.append

    def no_room(slots: PageSlots, live_page_count: int) -> None:
        raise PoolFullError("no room for table pages")

    monkeypatch.setattr(PageSlots, "reserve", no_room)
    pool.volumes["b"].write(4 * TRACK, tracks(5))
    assert told == [HistoryGivenUp(SESSION, first_ns=0, new_first_ns=None, record_count=28)]
    assert (tags(pool, "a", 1), tags(pool, "b", 5)) == ([37], [1, 2, 3, 4, 5])
    pool.verify()
