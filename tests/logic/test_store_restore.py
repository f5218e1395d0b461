"""Several volumes go back as one: all of them or none, also when the log was torn."""

from __future__ import annotations

import pytest

from isochrone.model.errors import NotFoundError, RefusedError
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.check import check_pool
from isochrone.store.pool import Pool
from isochrone.store.volume_set import CopyItem
from isochrone.testing.sim_disk import SimDisk
from support.store import TRACK, new_pool, run, tags, tracks
from support.torn_log import torn_everywhere


def copied() -> tuple[SimDisk, Pool]:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk)
    for name, tag in (("a", 1), ("b", 2)):
        pool.create_volume(name, 4 * TRACK).write(0, tracks(tag, tag))
    pool.create_copies([CopyItem(name, f"{name}@then", VolumeKind.SNAPSHOT) for name in ("a", "b")])
    for name in ("a", "b"):
        pool.volumes[name].write(0, tracks(9))
    pool.resize_volume("b", 8 * TRACK)
    return disk, pool


PAIRS = [("a@then", "a"), ("b@then", "b")]


def test_all_volumes_go_back_with_their_sizes_and_the_documents_change() -> None:
    _, pool = copied()
    pool.restore(PAIRS, {"restored": b"1"})
    assert (tags(pool, "a", 4), tags(pool, "b", 4)) == ([1, 1, 0, 0], [2, 2, 0, 0])
    assert pool.volumes["b"].size_bytes == 4 * TRACK
    assert dict(pool.documents) == {"restored": b"1"}
    pool.volumes["a"].write(0, tracks(7))
    assert tags(pool, "a@then", 2) == [1, 1]
    pool.verify()


@pytest.mark.parametrize(
    ("pairs", "kind"),
    [
        ([("a@then", "a"), ("b@then", "a")], RefusedError),
        ([("a@then", "a"), ("a", "b")], RefusedError),
        ([("a@then", "a"), ("b", "b@then")], RefusedError),
        ([("a@then", "a"), ("c@then", "b")], NotFoundError),
    ],
)
def test_what_cannot_be_restored_changes_nothing(
    pairs: list[tuple[str, str]], kind: type[RefusedError]
) -> None:
    _, pool = copied()
    with pytest.raises(kind):
        pool.restore(pairs)
    assert (tags(pool, "a", 2), tags(pool, "b", 2)) == ([9, 1], [9, 2])
    pool.verify()


def test_a_torn_record_of_a_restore_leaves_all_or_nothing() -> None:
    seen = set()
    for is_whole, pool in torn_everywhere(copied, lambda pool: pool.restore(PAIRS, {"restored": b"1"})):
        if is_whole is None:
            is_whole = bool(pool.documents)
        expected = ([1, 1], [2, 2], 4 * TRACK) if is_whole else ([9, 1], [9, 2], 8 * TRACK)
        assert (tags(pool, "a", 2), tags(pool, "b", 2), pool.volumes["b"].size_bytes) == expected
        assert dict(pool.documents) == ({"restored": b"1"} if is_whole else {})
        seen.add(is_whole)
    assert seen == {False, True}


def test_a_restore_survives_a_power_loss_after_a_sync() -> None:
    disk, pool = copied()
    pool.restore(PAIRS)
    run(pool.sync())
    pool.close()
    assert check_pool(disk).is_clean
    assert tags(Pool.open(disk), "b", 4) == [2, 2, 0, 0]
