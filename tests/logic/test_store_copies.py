"""Point-in-time copies: several as one step, with documents; kinds and names; what a crash in the middle leaves."""

from __future__ import annotations

from random import Random
from struct import error as StructError  # noqa: N812 (struct names its error in lower case)

import pytest

from isochrone.model.errors import BusyError, ConflictError, NotFoundError, PoolFullError, RefusedError
from isochrone.model.records import RecordKind
from isochrone.model.volume_kind import VolumeKind, check_volume_name
from isochrone.store.check import check_pool
from isochrone.store.log_records import RecordType, pack_together, unpack_together
from isochrone.store.pool import Pool
from isochrone.store.volume_set import CopyItem
from isochrone.testing.sim_disk import SimDisk
from support.store import TRACK, new_pool, records, run, tags, tracks
from support.torn_log import torn_everywhere

SNAPSHOT, COPY, IMAGE, BASE = VolumeKind.SNAPSHOT, VolumeKind.COPY, VolumeKind.IMAGE, VolumeKind.BASE


def two_volumes() -> tuple[SimDisk, Pool]:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk)
    pool.create_volume("a", 8 * TRACK).write(0, tracks(1, 2))
    pool.create_volume("b", 8 * TRACK).write(0, tracks(3, 4))
    return disk, pool


def test_copies_are_of_one_instant_and_share_all_tracks() -> None:
    _, pool = two_volumes()
    used = pool.used_track_count
    made = pool.create_copies([CopyItem("a", "a@mon", SNAPSHOT), CopyItem("b", "b-mon", COPY)])
    assert [volume.name for volume in made] == ["a@mon", "b-mon"]
    assert [volume.kind for volume in made] == [SNAPSHOT, COPY]
    assert pool.used_track_count == used
    pool.volumes["a"].write(0, tracks(9))
    pool.volumes["b-mon"].write(0, tracks(8))
    assert [tags(pool, name, 2) for name in ("a", "a@mon", "b", "b-mon")] == [[9, 2], [1, 2], [3, 4], [8, 4]]
    assert pool.used_track_count == used + 2
    pool.verify()


@pytest.mark.parametrize("crash", ["kill", "power", "close"])
def test_copies_keep_kind_and_content_over_a_restart(crash: str) -> None:
    disk, pool = two_volumes()
    items = [
        CopyItem("a", "a@mon", SNAPSHOT),
        CopyItem("b", "b~test", IMAGE),
        CopyItem("a", "b", BASE),
        CopyItem("b", "b", BASE),
    ]
    numbers = [volume.number for volume in pool.create_copies(items, {"copy/mon": b"{}"})]
    pool.volumes["a"].write(0, tracks(7))
    run(pool.sync())
    if crash == "close":
        run(pool.checkpoint())
        pool.close()
    elif crash == "power":
        disk.power_loss(Random(1))
    else:
        disk.kill()
    pool = Pool.open(disk)
    assert [pool.volume_by_number(number).kind for number in numbers] == [SNAPSHOT, IMAGE, BASE, BASE]
    assert set(pool.volumes) == {"a", "b", "a@mon", "b~test"}
    assert tags(pool, "a@mon", 2) == [1, 2]
    assert tags(pool, "a", 2) == [7, 2]
    assert pool.volume_by_number(numbers[2]).read(TRACK, 1) == b"\2"
    assert dict(pool.documents) == {"copy/mon": b"{}"}
    pool.verify()
    pool.close()
    assert check_pool(disk).is_clean


def test_a_hidden_volume_is_copied_and_deleted_by_number_and_leaves_its_namesake_alone() -> None:
    _, pool = two_volumes()
    (base,) = pool.create_copies([CopyItem("a", "a", BASE)])
    pool.volumes["a"].write(0, tracks(9))
    pool.create_copies([CopyItem(base.number, "a~then", IMAGE)])
    assert tags(pool, "a~then", 2) == [1, 2]
    pool.delete_volumes([base.number])
    assert tags(pool, "a", 2) == [9, 2]
    with pytest.raises(NotFoundError, match="number"):
        pool.volume_by_number(base.number)
    pool.verify()


def test_snapshots_and_bases_take_no_writes() -> None:
    _, pool = two_volumes()
    made = pool.create_copies([CopyItem("a", "a@mon", SNAPSHOT), CopyItem("a", "base", BASE)])
    for volume in made:
        for change in (
            lambda volume=volume: volume.write(0, tracks(9)),
            lambda volume=volume: volume.write(5, b"x"),
            lambda volume=volume: volume.zero(0, TRACK, allocate=False),
            lambda volume=volume: pool.stage(
                1, 1, 9, records((5, volume.number, 0, 1, RecordKind.DATA)), tracks(9)
            ),
        ):
            with pytest.raises(RefusedError, match="read-only"):
                change()
        assert volume.read(0, TRACK) == tracks(1)
    with pytest.raises(RefusedError, match="snapshot and cannot be resized"):
        pool.resize_volume("a@mon", TRACK)


def test_what_cannot_be_copied_is_refused_and_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pool = two_volumes()
    good = CopyItem("a", "a@x", SNAPSHOT)
    monkeypatch.setattr("isochrone.store.volume_set.VOLUME_COUNT_MAX", 4)
    monkeypatch.setattr("isochrone.store.volume_set.TOGETHER_COUNT_MAX", 5)
    for items, documents, error in (
        ([good, CopyItem("none", "c", COPY)], {}, NotFoundError),
        ([good, CopyItem(99, "c", COPY)], {}, NotFoundError),
        ([good, CopyItem("a", "b", COPY)], {}, ConflictError),
        ([good, good], {}, ConflictError),
        ([good, CopyItem("a", "a", SNAPSHOT)], {}, RefusedError),
        ([good, CopyItem("a", "c@d", COPY)], {}, RefusedError),
        ([good], {"": b"1"}, RefusedError),
        ([good], {"k": b"1", "none": None}, NotFoundError),
        ([good, CopyItem("a", "c", COPY), CopyItem("a", "d", COPY)], {}, BusyError),
        ([good] * 6, {}, RefusedError),
    ):
        with pytest.raises(error):
            pool.create_copies(items, documents)
        assert set(pool.volumes) == {"a", "b"}
        assert not pool.documents
    with pytest.raises(NotFoundError):
        pool.delete_volumes(["a", "none"])
    with pytest.raises(NotFoundError):
        pool.delete_volumes(["a"], {"none": None})
    assert set(pool.volumes) == {"a", "b"}
    pool.verify()


@pytest.mark.parametrize(
    ("name", "kind", "is_good"),
    [
        ("a@mon", SNAPSHOT, True),
        ("a@mon@tue", SNAPSHOT, True),
        ("a~test@mon", SNAPSHOT, True),
        ("a@mon~test", IMAGE, True),
        ("base of anything/", BASE, True),
        ("a", SNAPSHOT, False),
        ("a@", SNAPSHOT, False),
        ("@mon", SNAPSHOT, False),
        ("a@@mon", SNAPSHOT, False),
        ("a@m/n", SNAPSHOT, False),
        ("a@mon", IMAGE, False),
        ("a@mon", COPY, False),
        ("a~mon", VolumeKind.VOLUME, False),
        ("@".join(["a" * 60] * 5), SNAPSHOT, False),
    ],
)
def test_a_name_says_what_kind_of_volume_it_is(name: str, kind: VolumeKind, is_good: bool) -> None:
    if is_good:
        assert check_volume_name(name, kind) == name
    else:
        with pytest.raises(RefusedError):
            check_volume_name(name, kind)


def test_a_torn_record_of_copies_and_documents_leaves_all_or_nothing() -> None:
    def make(pool: Pool) -> None:
        items = [CopyItem("a", "a@x", SNAPSHOT), CopyItem("b", "b@x", SNAPSHOT)]
        pool.create_copies(items, {"copy/x": b"1"})

    seen = set()
    for is_whole, pool in torn_everywhere(two_volumes, make):
        made = (set(pool.volumes) - {"a", "b"}, dict(pool.documents))
        if is_whole is None:
            is_whole = bool(made[0])
        assert made == (({"a@x", "b@x"}, {"copy/x": b"1"}) if is_whole else (set(), {}))
        seen.add(is_whole)
    assert seen == {False, True}


def test_a_torn_record_of_deletes_and_documents_leaves_all_or_nothing() -> None:
    def prepare() -> tuple[SimDisk, Pool]:
        disk, pool = two_volumes()
        pool.create_copies([CopyItem("a", "a@x", SNAPSHOT)], {"copy/x": b"1", "more": b"2"})
        return disk, pool

    seen = set()
    for is_whole, pool in torn_everywhere(
        prepare, lambda pool: pool.delete_volumes(["a@x", "b"], {"copy/x": None})
    ):
        if is_whole is None:
            is_whole = "b" not in pool.volumes
        assert set(pool.volumes) == ({"a"} if is_whole else {"a", "b", "a@x"})
        assert set(pool.documents) == ({"more"} if is_whole else {"more", "copy/x"})
        assert tags(pool, "a", 2) == [1, 2]
        seen.add(is_whole)
    assert seen == {False, True}


def test_what_is_staged_is_committed_after_a_copy_and_does_not_reach_it() -> None:
    _, pool = two_volumes()
    number = pool.volumes["a"].number
    pool.stage(1, 1, 9, records((5, number, 0, 1, RecordKind.DATA)), tracks(9))
    pool.create_copies([CopyItem("a", "a~test", IMAGE)])
    assert pool.stager.reserved_page_count == 1
    pool.commit(1, 9)
    assert (tags(pool, "a", 2), tags(pool, "a~test", 2)) == ([9, 2], [1, 2])
    pool.verify()


def test_without_room_for_the_table_pages_that_staged_entries_need_a_copy_is_refused() -> None:
    disk, pool = two_volumes()
    volume = pool.create_volume("wide", 1024 * 1024 * TRACK)
    for page in range(40):
        volume.write(page * 1024 * TRACK, tracks(1))
    rows = [(5, volume.number, page * 1024, 1, RecordKind.ZERO) for page in range(40)]
    pool.stage(1, 1, 9, records(*rows), b"")
    run(pool.checkpoint())
    pool._slots.capacity = 50
    disk.space_bytes_max = disk.used_bytes
    with pytest.raises(PoolFullError, match="table pages"):
        pool.create_copies([CopyItem("wide", "w", COPY)])
    assert "w" not in pool.volumes
    assert pool.stager.reserved_page_count == 0


def test_parts_of_one_step_are_read_back_and_a_cut_one_is_damage() -> None:
    parts = [
        (RecordType.VOLUME_DELETE, b"1234"),
        (RecordType.DOCUMENT_DELETE, b""),
        (RecordType.UNMAP, b"x" * 12),
    ]
    payload = pack_together(parts)
    assert [(kind, bytes(part)) for kind, part in unpack_together(memoryview(payload))] == parts
    for length in (len(payload) - 1, len(payload) - 13, 15):
        with pytest.raises((ValueError, StructError)):
            unpack_together(memoryview(payload)[:length])
