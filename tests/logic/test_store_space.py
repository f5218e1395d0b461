"""What copies take and what differs, asked of a pool: examples, refusals, and what is said when the pool goes on."""

from __future__ import annotations

import pytest

from isochrone.model.errors import NotFoundError, RefusedError
from isochrone.model.records import RecordKind
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.establish import Extent
from isochrone.store.pool import Pool
from isochrone.store.space import VolumeSpace
from isochrone.store.volume_set import CopyItem
from support.store import TRACK, new_pool, records, tracks


def copied() -> Pool:
    _, pool = new_pool()
    pool.create_volume("a", 3000 * TRACK).write(0, tracks(1, 2, 3, 4))
    pool.volumes["a"].write(2048 * TRACK, tracks(5))
    pool.create_copies([CopyItem("a", "a@x", VolumeKind.SNAPSHOT)])
    return pool


def runs(pool: Pool, *arguments: str | int) -> list[tuple[int, int]]:
    found = pool.diff(*arguments)  # type: ignore[arg-type]
    return list(zip(found.first_track.tolist(), found.track_count.tolist(), strict=True))


def test_a_copy_takes_nothing_until_its_source_is_written() -> None:
    pool = copied()
    assert pool.space("a@x") == VolumeSpace(5 * TRACK, 0, 5 * TRACK)
    pool.volumes["a"].write(TRACK, tracks(9, 9))
    assert pool.space("a@x") == VolumeSpace(5 * TRACK, 2 * TRACK, 3 * TRACK)
    assert pool.space("a") == VolumeSpace(5 * TRACK, 2 * TRACK, 3 * TRACK)
    assert pool.space(["a", "a@x"]) == VolumeSpace(10 * TRACK, 7 * TRACK, 0)
    assert pool.space([]) == VolumeSpace(0, 0, 0)
    used = pool.used_track_count
    pool.delete_volumes(["a@x"])
    assert used - pool.used_track_count == 2
    assert pool.space("a") == VolumeSpace(5 * TRACK, 5 * TRACK, 0)


def test_tracks_that_stand_in_one_volume_often_count_once() -> None:
    pool = copied()
    pool.delete_volumes(["a@x"])
    pool.establish("a", "a", [Extent(0, 10, 2), Extent(0, 20, 2), Extent(0, 1024, 1024)])
    assert pool.space("a") == VolumeSpace(13 * TRACK, 5 * TRACK, 0)
    pool.create_volume("b", 8 * TRACK)
    pool.establish("a", "b", [Extent(0, 0, 1)])
    assert pool.space("a") == VolumeSpace(13 * TRACK, 4 * TRACK, TRACK)
    pool.delete_volumes(["a"])
    assert pool.used_track_count == 1


def test_what_a_history_keeps_is_not_given_back() -> None:
    pool = copied()
    pool.delete_volumes(["a@x"])
    number = pool.volumes["a"].number
    pool.history_begin(1, [number])
    pool.stage(1, 1, 9, records((5, number, 7, 1, RecordKind.DATA)), tracks(7))
    pool.commit(1, 9)
    assert pool.space("a") == VolumeSpace(6 * TRACK, 0, 6 * TRACK)
    used = pool.used_track_count
    pool.delete_volumes(["a"])
    assert pool.used_track_count == used


def test_space_in_steps_says_whether_the_pool_went_on() -> None:
    pool = copied()
    pool.volumes["a"].write(TRACK, tracks(9))
    for is_disturbed in (False, True):
        steps = pool.space_steps("a@x")
        next(steps)
        if is_disturbed:
            pool.volumes["a"].write(0, tracks(9))
        with pytest.raises(StopIteration) as stop:
            next(steps)
        assert stop.value.value.is_exact is not is_disturbed
    assert pool.space("a@x").is_exact


def test_differences_are_runs_of_tracks_over_volumes_of_any_size() -> None:
    pool = copied()
    assert runs(pool, "a@x", "a") == []
    pool.volumes["a"].write(TRACK, tracks(9, 9))
    pool.volumes["a"].write(1023 * TRACK, tracks(6, 6))
    pool.volumes["a"].zero(2048 * TRACK, TRACK, allocate=False)
    assert runs(pool, "a@x", "a") == [(1, 2), (1023, 2), (2048, 1)]
    assert runs(pool, "a", "a@x", 2, 1024) == [(2, 1), (1023, 1)]
    assert runs(pool, "a", "a@x", 3, 3) == []
    pool.resize_volume("a", 1000 * TRACK)
    assert runs(pool, "a", "a@x") == [(1, 2), (2048, 1)]
    small = pool.create_volume("small", TRACK)
    assert runs(pool, small.number, "a") == [(0, 4)]
    assert runs(pool, "a", "a") == []


def test_differences_come_in_bounded_pieces_that_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.store.differences.DIFFERENCE_PAGE_COUNT_MAX", 1)
    pool = copied()
    pool.volumes["a"].write(1022 * TRACK, tracks(1, 2, 3, 4))
    pieces = [
        (piece.first_track.tolist(), piece.track_count.tolist()) for piece in pool.diff_pieces("a", "a@x")
    ]
    assert pieces == [([1022], [2]), ([1024], [2])]
    assert runs(pool, "a", "a@x") == [(1022, 4)]


def test_what_cannot_be_compared_or_measured_is_refused() -> None:
    pool = copied()
    for arguments in (("a", "none"), ("none", "a"), ("a", 99)):
        with pytest.raises(NotFoundError):
            pool.diff(*arguments)
    for first, end in ((-1, 5), (5, 4), (0, 3001)):
        with pytest.raises(RefusedError, match="not within"):
            pool.diff_pieces("a", "a@x", first, end)
    with pytest.raises(NotFoundError):
        pool.space("none")
