"""Staging and commit (S10): stored once, linked at a time, last one wins, nothing lost by a restart."""

from __future__ import annotations

import numpy as np
import pytest

from isochrone.model.errors import BusyError, PoolFullError, RefusedError
from isochrone.model.records import RecordArray, RecordKind
from isochrone.store.pool import Pool
from support.store import TRACK, new_pool, records, run, tags, tracks

DATA, ZERO = RecordKind.DATA, RecordKind.ZERO


def pool_with(*names: str, track_count: int = 64, volume_tracks: int = 16) -> Pool:
    _, pool = new_pool(track_count=track_count)
    for name in names:
        pool.create_volume(name, volume_tracks * TRACK)
    return pool


def test_staged_records_are_not_seen_before_their_commit() -> None:
    pool = pool_with("a")
    stored = pool.stage(1, 0, 20, records((10, 1, 0, 2, DATA), (20, 1, 5, 1, DATA)), tracks(1, 2, 3))
    assert stored.track_count == 3
    assert tags(pool, "a", 6) == [0] * 6
    assert (pool.staged_count(1), pool.staged_bytes(1), pool.staged_through_ns(1, 0)) == (3, 3 * TRACK, 20)
    result = pool.commit(1, 20)
    assert (result.linked_count, result.freed_count, result.through_ns) == (3, 0, 20)
    assert tags(pool, "a", 6) == [1, 2, 0, 0, 0, 3]
    assert (pool.staged_count(1), pool.committed_through_ns(1)) == (0, 20)
    pool.verify()


def test_a_commit_may_stop_in_the_middle_of_what_came_together() -> None:
    pool = pool_with("a")
    pool.stage(
        1, 0, 30, records((10, 1, 0, 1, DATA), (20, 1, 1, 1, DATA), (30, 1, 0, 1, DATA)), tracks(1, 2, 3)
    )
    pool.commit(1, 15)
    assert tags(pool, "a", 2) == [1, 0]
    pool.commit(1, 20)
    assert tags(pool, "a", 2) == [1, 2]
    pool.commit(1, 99)
    assert tags(pool, "a", 2) == [3, 2]
    assert pool.used_track_count == 2
    pool.verify()


def test_the_last_of_several_versions_wins_and_the_others_are_freed() -> None:
    pool = pool_with("a")
    pool.volumes["a"].write(0, tracks(50))
    pool.stage(1, 0, 10, records((10, 1, 0, 1, DATA)), tracks(1))
    pool.stage(1, 0, 20, records((20, 1, 0, 1, DATA), (20, 1, 0, 1, DATA)), tracks(2, 3))
    result = pool.commit(1, 20)
    assert (result.linked_count, result.superseded_count, result.freed_count) == (1, 2, 3)
    assert tags(pool, "a", 1) == [3]
    assert (pool.used_track_count, pool.pending_free_count) == (1, 3)
    run(pool.sync())
    assert pool.free_track_count == 63
    pool.verify()


def test_zero_records_unmap_without_taking_space() -> None:
    pool = pool_with("a")
    pool.volumes["a"].write(0, tracks(1, 2, 3))
    pool.stage(1, 0, 20, records((10, 1, 1, 10, ZERO), (20, 1, 4, 1, DATA)), tracks(9))
    assert pool.staged_bytes(1) == TRACK
    pool.commit(1, 20)
    assert tags(pool, "a", 6) == [1, 0, 0, 0, 9, 0]
    assert pool.volumes["a"].mapped_track_count == pool.used_track_count == 2
    pool.verify()


def test_images_are_linked_like_writes() -> None:
    pool = pool_with("a")
    pool.stage(
        1, 0, 20, records((10, 1, 1, 1, DATA | RecordKind.IMAGE), (20, 1, 2, 1, RecordKind.IMAGE)), tracks(9)
    )
    pool.commit(1, 20)
    assert tags(pool, "a", 3) == [0, 9, 0]


def test_sources_and_sessions_are_kept_apart() -> None:
    pool = pool_with("a", "b", "c")
    pool.stage(1, 0, 10, records((10, 1, 0, 1, DATA)), tracks(1))
    pool.stage(1, 1, 5, records((5, 2, 0, 1, DATA)), tracks(2))
    pool.stage(2, 0, 3, records((3, 3, 0, 1, DATA)), tracks(3))
    pool.commit(1, 5)
    assert [tags(pool, name, 1) for name in "abc"] == [[0], [2], [0]]
    assert [pool.staged_through_ns(*key) for key in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0))] == [
        10,
        5,
        3,
        0,
        0,
    ]
    pool.end_session(1)
    assert (pool.staged_count(1), pool.committed_through_ns(1), pool.staged_through_ns(1, 0)) == (0, 0, 0)
    assert pool.staged_count(2) == 1
    pool.verify()


def test_discard_drops_what_is_later_and_the_promise_with_it() -> None:
    pool = pool_with("a")
    pool.stage(1, 0, 35, records((10, 1, 0, 1, DATA), (20, 1, 1, 1, DATA), (30, 1, 2, 3, ZERO)), tracks(1, 2))
    assert pool.discard(1, 15) == 4
    assert (pool.staged_through_ns(1, 0), pool.staged_count(1)) == (15, 1)
    pool.stage(1, 0, 20, records((20, 1, 1, 1, DATA)), tracks(7))
    pool.commit(1, 20)
    assert tags(pool, "a", 3) == [1, 7, 0]
    pool.verify()


def test_an_empty_record_set_moves_only_the_promise() -> None:
    pool = pool_with("a")
    assert pool.stage(1, 0, 50, records(), b"").track_count == 0
    assert (pool.staged_through_ns(1, 0), pool.staged_count(1)) == (50, 0)


@pytest.mark.parametrize(
    ("rows", "payload", "what"),
    [
        (records((10, 1, 0, 1, DATA)), b"", "payload bytes"),
        (records((10, 9, 0, 1, DATA)), tracks(1), "not within a volume"),
        (records((10, 1, 15, 2, DATA)), tracks(1, 2), "not within a volume"),
        (records((10, 1, 0, 0, DATA)), b"", "no track"),
        (records((20, 1, 0, 1, DATA), (10, 1, 1, 1, DATA)), tracks(1, 2), "step back"),
        (records((90, 1, 0, 1, DATA)), tracks(1), "beyond what is promised"),
        (records((3, 1, 0, 1, DATA)), tracks(1), "older than what is staged"),
    ],
)
def test_records_that_cannot_be_right_are_refused_whole(rows: RecordArray, payload: bytes, what: str) -> None:
    pool = pool_with("a")
    pool.stage(1, 0, 5, records((5, 1, 0, 1, DATA)), tracks(1))
    before = pool.stats()
    with pytest.raises(RefusedError, match=what):
        pool.stage(1, 0, 40, rows, payload)
    with pytest.raises(RefusedError, match="staged earlier"):
        pool.stage(1, 0, 4, records(), b"")
    assert pool.stats() == before
    assert pool.staged_through_ns(1, 0) == 5
    pool.verify()


def test_staging_on_a_full_pool_changes_nothing() -> None:
    pool = pool_with("a", track_count=4)
    pool.volumes["a"].write(0, tracks(1, 2, 3))
    with pytest.raises(PoolFullError):
        pool.stage(1, 0, 10, records((10, 1, 0, 2, DATA)), tracks(8, 9))
    assert (pool.staged_count(1), pool.staged_through_ns(1, 0), pool.free_track_count) == (0, 0, 1)
    pool.stage(1, 0, 10, records((10, 1, 0, 1, DATA)), tracks(8))
    pool.commit(1, 10)
    assert tags(pool, "a", 3) == [8, 2, 3]
    pool.verify()


def test_entries_of_a_deleted_or_shrunk_volume_are_dropped_at_commit() -> None:
    pool = pool_with("a", "b")
    pool.stage(1, 0, 20, records((10, 1, 10, 3, DATA), (20, 2, 0, 1, DATA)), tracks(1, 2, 3, 4))
    pool.resize_volume("a", 11 * TRACK)
    pool.delete_volume("b")
    pool.commit(1, 20)
    assert tags(pool, "a", 11) == [0] * 10 + [1]
    assert pool.used_track_count == 1
    pool.verify()


def test_linking_over_a_shared_page_leaves_the_copy() -> None:
    pool = pool_with("a")
    pool.volumes["a"].write(0, tracks(1, 2, 3))
    pool.stage(1, 0, 20, records((10, 1, 0, 1, DATA), (20, 1, 1, 1, ZERO)), tracks(9))
    pool.copy_volume("a", "b")
    pool.commit(1, 20)
    assert tags(pool, "a", 3) == [9, 0, 3]
    assert tags(pool, "b", 3) == [1, 2, 3]
    pool.verify()


def test_the_number_of_staged_records_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.store.stager.STAGED_RECORD_COUNT_MAX", 3)
    pool = pool_with("a")
    pool.stage(1, 0, 10, records((10, 1, 0, 1, ZERO), (10, 1, 1, 1, ZERO)), b"")
    more = records((20, 1, 2, 1, ZERO), (20, 1, 3, 1, ZERO))
    with pytest.raises(BusyError, match="commit first"):
        pool.stage(1, 0, 20, more, b"")
    pool.commit(1, 10)
    pool.stage(1, 0, 20, more, b"")


@pytest.mark.parametrize("seed", range(6))
def test_commits_at_any_times_equal_replaying_the_records_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = pool_with("a", "b", track_count=4000, volume_tracks=1500)
    expected = {1: np.zeros(1500, np.uint8), 2: np.zeros(1500, np.uint8)}
    waiting: list[tuple[int, int, int, int, int]] = []
    now = 0
    for _ in range(25):
        rows, payload = [], b""
        for _ in range(int(rng.integers(0, 8))):
            now += int(rng.integers(0, 3))
            count = int(rng.integers(1, 40))
            track = int(rng.integers(0, 1500 - count))
            volume, tag = int(rng.integers(1, 3)), int(rng.integers(0, 256))
            kind = ZERO if rng.random() < 0.2 else DATA
            rows.append((now, volume, track, count, kind))
            if kind:
                payload += tracks(tag) * count
            waiting.append((now, volume, track, count, tag if kind else 0))
        pool.stage(1, 0, now, records(*rows), payload)
        through = int(rng.integers(0, now + 2))
        pool.commit(1, through)
        for at, volume, track, count, tag in waiting:
            if at <= through:
                expected[volume][track : track + count] = tag
        waiting = [entry for entry in waiting if entry[0] > through]
        assert tags(pool, "a", 1500) == expected[1].tolist()
        assert tags(pool, "b", 1500) == expected[2].tolist()
        pool.verify()
