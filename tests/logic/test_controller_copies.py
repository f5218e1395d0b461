"""Copies of a controller over a real pool: one instant, durable, refused with the cure, kept by schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from isochrone.api.copy_requests import CreateCopyRequest, EstablishRequest, ExtentRequest, RestoreRequest
from isochrone.api.requests import CreateVolumeRequest, ResizeVolumeRequest
from isochrone.controller import copy_diff
from isochrone.controller.copy_keeper import CopyKeeper
from isochrone.copies.schedule import Schedule
from isochrone.model.errors import (
    ConflictError,
    IsochroneError,
    NotFoundError,
    PoolFullError,
    PoolReadOnlyError,
    RefusedError,
)
from isochrone.nbd import constants as c
from isochrone.nbd.execution import ConnectionCounters
from isochrone.nbd.server import ConnectionReport
from isochrone.report.copy_models import CopyReport
from isochrone.store import doomed_pages
from support.controller_world import SIZE_BYTES, World, session_request
from support.store import TRACK, tags, tracks

S = 1_000_000_000
CHANGED = "isochrone:changed:"

Step = Callable[[World], Awaitable[Any]]


def play(story: Callable[[World], Awaitable[None]], **arguments: Any) -> World:
    async def begin() -> World:
        world = World(**arguments)
        for name in ("db", "wal"):
            await world.operations.create_volume(CreateVolumeRequest(name=name, size_bytes=SIZE_BYTES))
        await story(world)
        return world

    return asyncio.run(begin())


def write(world: World, volume: str, track: int, *values: int) -> None:
    """Write whole tracks as a client does."""
    export = world.exports.of(world.pool.volumes[volume])
    export.write(track * TRACK, memoryview(tracks(*values)))
    export.end_batch()


def content(world: World, volume: str) -> list[int]:
    return tags(world.pool, volume, world.pool.volumes[volume].track_count)


async def create(world: World, *volumes: str, name: str | None = None, writable: bool = False) -> CopyReport:
    request = CreateCopyRequest(volumes=list(volumes), name=name, writable=writable)
    return await world.copying.create_copy(request)


def refused(kind: type[IsochroneError], match: str, deed: Callable[[World], Awaitable[Any]]) -> Step:
    """A step that must be refused, and must change nothing."""

    async def try_it(world: World) -> None:
        before = (dict(world.pool.documents), sorted(world.pool.volumes), world.pool.used_track_count)
        with pytest.raises(kind, match=match):
            await deed(world)
        assert before == (dict(world.pool.documents), sorted(world.pool.volumes), world.pool.used_track_count)

    return try_it


def test_a_copy_keeps_all_its_volumes_as_they_were_and_is_durable_when_it_is_answered() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1, 2)
        write(world, "wal", 3, 3)
        flushed = world.flush_count
        report = await create(world, "db", "wal", name="mon")
        assert world.flush_count == flushed + 1
        assert [one.volume for one in report.volumes] == ["db@mon", "wal@mon"]
        assert report.hold_ms is not None
        write(world, "db", 0, 9)
        assert content(world, "db@mon")[:2] == [1, 2]
        assert content(world, "wal@mon")[3] == 3
        world.disk.power_loss(Random(1))
        reopened = World(disk=world.disk)
        assert content(reopened, "db@mon")[:2] == [1, 2]
        assert list(reopened.copying.catalogue.copies) == ["mon"]

    play(story)


def test_a_copy_without_a_name_is_called_by_the_time() -> None:
    async def story(world: World) -> None:
        first = await create(world, "db")
        second = await create(world, "db")
        assert first.name != second.name
        assert first.volumes[0].volume == f"db@{first.name}"

    play(story)


def test_copies_of_copies_go_to_any_depth_and_go_in_reverse() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1)
        source = "db"
        for number in range(20):
            (volume,) = (await create(world, source, name=f"c{number}")).volumes
            source = volume.volume
        assert content(world, source)[0] == 1
        trial = await create(world, source, name="trial", writable=True)
        write(world, trial.volumes[0].volume, 0, 7)
        assert (content(world, "db-trial")[0], content(world, source)[0], content(world, "db")[0]) == (
            7,
            1,
            1,
        )
        for name in ["trial", *(f"c{number}" for number in reversed(range(20)))]:
            await world.copying.delete_copy(name)
        assert sorted(world.pool.volumes) == ["db", "wal"]
        assert world.pool.used_track_count == 1

    play(story)


@pytest.mark.parametrize("at_once", [128, 0], ids=["at once", "bit by bit"])
def test_space_is_exact_and_deleting_gives_back_what_was_exclusive(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1, 2, 3, 4)
        await create(world, "db", name="mon")
        (volume,) = (await world.copying.copy("mon")).volumes
        assert (volume.exclusive_bytes, volume.shared_bytes) == (0, 4 * TRACK)
        write(world, "db", 0, 9, 9, 9)
        (volume,) = (await world.copying.copy("mon")).volumes
        assert (volume.exclusive_bytes, volume.shared_bytes) == (3 * TRACK, TRACK)
        with monkeypatch.context() as patch:
            patch.setattr(doomed_pages, "RECLAIM_PAGE_COUNT_MAX", at_once)
            assert (await world.copying.delete_copy("mon")).freed_bytes == 3 * TRACK
        while world.pool.reclaim():
            pass
        assert world.pool.used_track_count == 4

    play(story)


@pytest.mark.parametrize(
    ("deed", "kind", "match"),
    [
        (lambda w: create(w, "nope"), NotFoundError, "no volume 'nope'"),
        (lambda w: create(w, "db", "db"), RefusedError, "db named twice"),
        (lambda w: create(w, "wal", name="mon"), ConflictError, "'mon' exists already"),
        (lambda w: create(w, "db", "db@mon", name="x", writable=True), ConflictError, "as is that of db"),
        (lambda w: w.copying.delete_copy("nope"), NotFoundError, "isochrone copy list"),
        (lambda w: w.copying.restore_copy("nope", RestoreRequest()), NotFoundError, "isochrone copy list"),
        (
            lambda w: w.copying.restore_copy("mon", RestoreRequest(volumes=["wal"])),
            NotFoundError,
            "not made from wal",
        ),
        (lambda w: w.copying.refresh("db"), NotFoundError, "nothing is copied onto 'db'"),
        (lambda w: w.copying.diff("db", "nope", 0), NotFoundError, "no volume or copy 'nope'"),
        (
            lambda w: w.operations.delete_volume("db"),
            ConflictError,
            "has 1 copy and cannot be deleted: db@mon",
        ),
        (lambda w: w.operations.delete_volume("db@mon"), ConflictError, "`isochrone copy delete mon`"),
        (
            lambda w: w.operations.resize_volume("db@mon", ResizeVolumeRequest(size_bytes=2 * SIZE_BYTES)),
            RefusedError,
            "cannot be resized",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    deed: Callable[[World], Awaitable[Any]], kind: type[IsochroneError], match: str
) -> None:
    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        await refused(kind, match, deed)(world)

    play(story)


def test_a_volume_called_as_the_copy_would_be_is_in_the_way() -> None:
    async def story(world: World) -> None:
        await world.operations.create_volume(CreateVolumeRequest(name="db-x", size_bytes=TRACK))
        step = refused(
            ConflictError,
            "called db-x, as is a volume that exists",
            lambda w: create(w, "db", name="x", writable=True),
        )
        await step(world)

    play(story)


def test_a_copy_that_a_client_reads_stays_and_the_client_is_named() -> None:
    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        world.connections = [ConnectionReport("process 7", "db@mon", (), ConnectionCounters())]
        step = refused(ConflictError, "open over NBD by process 7", lambda w: w.copying.delete_copy("mon"))
        await step(world)
        world.connections = [ConnectionReport("process 8", "db", (f"{CHANGED}mon",), ConnectionCounters())]
        step = refused(
            ConflictError,
            r"by process 8 \(on db, for what changed since\)",
            lambda w: w.copying.delete_copy("mon"),
        )
        await step(world)
        world.connections = []
        await world.copying.delete_copy("mon")

    play(story)


# --- restore ---


def test_a_restore_brings_all_volumes_back_with_their_sizes_and_keeps_the_copy() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1, 2)
        write(world, "wal", 0, 3)
        await create(world, "db", "wal", name="mon")
        write(world, "db", 1, 9, 9)
        write(world, "wal", 0, 9)
        await world.operations.resize_volume("wal", ResizeVolumeRequest(size_bytes=2 * SIZE_BYTES))
        report = await world.copying.restore_copy("mon", RestoreRequest())
        assert report.volumes == ("db", "wal")
        assert report.changed_bytes == 3 * TRACK + SIZE_BYTES
        assert content(world, "db") == [1, 2, 0, 0, 0, 0, 0, 0]
        assert content(world, "wal") == [3, 0, 0, 0, 0, 0, 0, 0]
        assert world.exports.of(world.pool.volumes["wal"]).size_bytes == SIZE_BYTES
        write(world, "db", 0, 8)
        assert content(world, "db@mon")[0] == 1
        again = await world.copying.restore_copy("mon", RestoreRequest(volumes=["db"]))
        assert (again.volumes, again.changed_bytes) == (("db",), TRACK)

    play(story)


def test_a_restore_that_one_volume_forbids_restores_none() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1)
        await create(world, "db", "wal", name="mon")
        write(world, "db", 0, 9)
        world.capture("wal")
        step = refused(
            ConflictError,
            "'wal' cannot be restored: it is a primary of session 'far'",
            lambda w: w.copying.restore_copy("mon", RestoreRequest()),
        )
        await step(world)
        assert content(world, "db")[0] == 9

    play(story)


def test_a_secondary_can_be_copied_and_not_restored() -> None:
    async def story(world: World) -> None:
        await world.operations.create_session(session_request("wal"))
        await create(world, "wal", name="mon")
        step = refused(
            ConflictError,
            "`isochrone session remove bank wal`",
            lambda w: w.copying.restore_copy("mon", RestoreRequest()),
        )
        await step(world)

    play(story)


def test_a_copy_of_a_secondary_that_is_no_image_yet_says_so() -> None:
    async def story(world: World) -> None:
        await world.operations.create_session(session_request("wal"))
        report = await create(world, "db", "wal", name="mon")
        assert [(one.source, one.incomplete) for one in report.volumes] == [("db", False), ("wal", True)]
        told = world.exports.of(world.pool.volumes["wal@mon"]).description
        assert "while its first copy was running: no image" in told
        again = await create(world, "wal@mon", name="again")
        assert again.volumes[0].incomplete

    play(story)


def test_a_snapshot_is_never_overwritten() -> None:
    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        await create(world, "db@mon", name="again")
        deed = "snapshot of copy 'mon' and cannot be restored"
        await refused(ConflictError, deed, lambda w: w.copying.restore_copy("again", RestoreRequest()))(world)
        request = EstablishRequest(source="db", target="db@mon")
        await refused(ConflictError, "cannot be copied onto", lambda w: w.copying.establish(request))(world)

    play(story)


# --- what changed ---


def test_a_diff_names_the_ranges_that_were_written_or_trimmed() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1, 2, 3, 4)
        await create(world, "db", name="mon")
        write(world, "db", 1, 9)
        world.exports.of(world.pool.volumes["db"]).zero(3 * TRACK, TRACK, allocate=False)
        write(world, "db", 4, 5)
        for base in ("mon", "db@mon"):
            diff = await world.copying.diff("db", base, 0)
            assert [(one.offset // TRACK, one.length // TRACK) for one in diff.changed] == [(1, 1), (3, 2)]
            assert (diff.base, diff.end_offset) == ("db@mon", SIZE_BYTES)

    play(story)


def test_a_diff_to_a_copy_by_name_says_which_of_its_volumes_can_be_named() -> None:
    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        with pytest.raises(NotFoundError, match=r"mon is a copy: .* name a volume of it: db@mon"):
            await world.copying.diff("mon", "db", 0)

    play(story)


def test_what_lies_beyond_a_smaller_base_is_changed() -> None:
    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        await world.operations.resize_volume("db", ResizeVolumeRequest(size_bytes=2 * SIZE_BYTES))
        diff = await world.copying.diff("db", "mon", 0)
        assert [(one.offset, one.length) for one in diff.changed] == [(SIZE_BYTES, SIZE_BYTES)]
        assert (await world.copying.diff("db@mon", "db", 0)).changed == ()

    play(story)


def test_a_long_diff_comes_in_parts_that_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_diff, "DIFF_EXTENTS_MAX", 2)
    monkeypatch.setattr(copy_diff, "TRACKS_PER_STEP", 3)

    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        for track in (0, 2, 3, 5, 7):
            write(world, "db", track, 1)
        found, offset = [], 0
        while offset < SIZE_BYTES:
            diff = await world.copying.diff("db", "mon", offset)
            assert offset < diff.end_offset
            found += [(one.offset // TRACK, one.length // TRACK) for one in diff.changed]
            offset = diff.end_offset
        assert found == [(0, 1), (2, 2), (5, 1), (7, 1)]

    play(story)


def extents(world: World, volume: str, context: str, offset: int, length: int) -> list[tuple[int, int]]:
    export = world.exports.open(volume)
    states = export.open_map(context)
    found = list(states.extents(offset, length))
    states.close()
    world.exports.close(export)
    return found


def test_clients_are_told_what_changed_to_the_byte_they_ask_for() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1, 2, 3)
        await create(world, "db", name="mon")
        write(world, "db", 1, 9)
        await create(world, "db", name="tue")
        write(world, "db", 2, 9)
        assert world.exports.contexts("db") == [f"{CHANGED}mon", f"{CHANGED}tue"]
        assert world.exports.contexts("db@tue") == [f"{CHANGED}mon"]
        assert world.exports.contexts("db@mon") == []
        track, half = TRACK, TRACK // 2
        assert extents(world, "db@tue", f"{CHANGED}mon", 0, 3 * track) == [
            (track, 0),
            (track, c.STATE_CHANGED),
            (track, 0),
        ]
        told = extents(world, "db", f"{CHANGED}mon", half, 2 * track)
        assert sum(length for length, _ in told) == 2 * track
        assert told[0] == (half, 0)
        assert all(flags == c.STATE_CHANGED for _, flags in told[1:])
        assert extents(world, "db", f"{CHANGED}tue", track, 2 * track) == [
            (track, 0),
            (track, c.STATE_CHANGED),
        ]

    play(story)


def test_a_context_keeps_its_copy_open_until_it_is_closed() -> None:
    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        states = world.exports.of(world.pool.volumes["db"]).open_map(f"{CHANGED}mon")
        assert world.exports.of(world.pool.volumes["db@mon"]).connection_count == 1
        states.close()
        assert world.exports.of(world.pool.volumes["db@mon"]).connection_count == 0
        with pytest.raises(NotFoundError, match="select another context"):
            world.exports.of(world.pool.volumes["db"]).open_map(f"{CHANGED}tue")

    play(story)


def test_a_copy_says_what_it_is_and_a_snapshot_takes_no_writes() -> None:
    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        await create(world, "db", name="trial", writable=True)
        snapshot = world.exports.of(world.pool.volumes["db@mon"])
        assert snapshot.read_only
        assert snapshot.description.startswith("snapshot of db, taken 20")
        trial = world.exports.of(world.pool.volumes["db-trial"])
        assert not trial.read_only
        assert trial.description.startswith("writable copy of db, taken 20")
        assert world.exports.of(world.pool.volumes["db"]).description == ""

    play(story)


def test_a_client_that_asks_for_no_name_gets_the_one_volume_that_is_no_copy() -> None:
    async def story(world: World) -> None:
        assert world.exports.default() == ""
        await world.operations.delete_volume("wal")
        await create(world, "db", name="mon")
        await create(world, "db", name="trial", writable=True)
        assert world.exports.default() == "db"

    play(story)


def test_snapshots_are_not_listed_with_the_volumes_and_can_be_shown() -> None:
    async def story(world: World) -> None:
        await create(world, "db", name="mon")
        await create(world, "db@mon", name="trial", writable=True)
        listed = {one.name: one for one in await world.operations.volumes()}
        assert list(listed) == ["db", "db-trial", "wal"]
        assert (listed["db-trial"].kind, listed["db-trial"].copy_of) == ("COPY", "db@mon")
        assert listed["db"].copies == ("db@mon",)
        shown = await world.operations.volume("db@mon")
        assert (shown.kind, shown.copies, shown.read_only) == ("SNAPSHOT", ("db-trial",), True)
        status = await world.operations.status()
        assert (status.copies.copy_count, status.copies.volume_count) == (2, 2)

    play(story)


def test_what_a_recovery_to_an_earlier_time_leaves_is_a_copy_like_any_other() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1)
        world.copying.keep_image("before-2-bank", ["db"], {"session/x": b"1"})
        assert (await world.copying.copy("before-2-bank")).volumes[0].volume == "db@before-2-bank"
        assert world.pool.documents["session/x"] == b"1"
        with pytest.raises(ConflictError, match="exists already"):
            world.copying.keep_image("before-2-bank", ["db"], {"session/x": b"2"})
        assert world.pool.documents["session/x"] == b"1"

    play(story)


# --- relations ---


def test_a_relation_is_established_refreshed_and_withdrawn() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1, 2)
        write(world, "wal", 5, 7)
        made = await world.copying.establish(EstablishRequest(source="db", target="wal"))
        assert (made.changed_bytes, made.differing_bytes) == (3 * TRACK, 0)
        assert content(world, "wal") == [1, 2, 0, 0, 0, 0, 0, 0]
        write(world, "db", 0, 9)
        write(world, "wal", 3, 9)
        assert (await world.copying.relation("wal")).differing_bytes == 2 * TRACK
        await refused(ConflictError, "withdraw that first", lambda w: w.operations.delete_volume("db"))(world)
        await refused(ConflictError, "withdraw that first", lambda w: w.operations.delete_volume("wal"))(
            world
        )
        again = await world.copying.refresh("wal")
        assert (again.changed_bytes, content(world, "wal")[:4]) == (2 * TRACK, [9, 2, 0, 0])
        write(world, "wal", 3, 9)
        await world.copying.withdraw("wal")
        assert content(world, "wal")[:4] == [9, 2, 0, 9]
        await world.operations.delete_volume("wal")

    play(story)


def test_ranges_go_where_they_are_told_and_again_with_a_refresh() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1, 2, 3)
        ranges = [
            ExtentRequest(source_offset=0, target_offset=4 * TRACK, length=2 * TRACK),
            ExtentRequest(source_offset=2 * TRACK, target_offset=0, length=TRACK),
        ]
        made = await world.copying.establish(EstablishRequest(source="db", target="wal", extents=ranges))
        assert made.differing_bytes is None
        assert content(world, "wal") == [3, 0, 0, 0, 1, 2, 0, 0]
        write(world, "db", 2, 8)
        await world.copying.refresh("wal")
        assert content(world, "wal") == [8, 0, 0, 0, 1, 2, 0, 0]

    play(story)


def test_a_relation_is_remembered_over_a_restart() -> None:
    async def story(world: World) -> None:
        await world.copying.establish(EstablishRequest(source="db", target="wal"))
        await create(world, "db", name="mon")
        world.pool.close()
        later = World(disk=world.disk)
        assert (await later.copying.relation("wal")).source == "db"
        assert (await later.copying.copy("mon")).volumes[0].volume == "db@mon"

    play(story)


@pytest.mark.parametrize(
    ("request_", "kind", "match"),
    [
        (EstablishRequest(source="db", target="nope"), NotFoundError, "no volume 'nope'"),
        (EstablishRequest(source="db", target="db"), RefusedError, "name two volumes"),
        (EstablishRequest(source="big", target="db"), ConflictError, "`isochrone volume resize db 65536`"),
        (EstablishRequest(source="big", target="wal"), ConflictError, "`isochrone copy withdraw wal`"),
        (
            EstablishRequest(
                source="big",
                target="db",
                extents=[ExtentRequest(source_offset=1, target_offset=0, length=TRACK)],
            ),
            RefusedError,
            "whole tracks",
        ),
    ],
)
def test_a_relation_that_cannot_be_is_refused(
    request_: EstablishRequest, kind: type[IsochroneError], match: str
) -> None:
    async def story(world: World) -> None:
        await world.operations.create_volume(CreateVolumeRequest(name="big", size_bytes=2 * SIZE_BYTES))
        await world.copying.establish(EstablishRequest(source="db", target="wal"))
        await refused(kind, match, lambda w: w.copying.establish(request_))(world)

    play(story)


# --- by itself ---

EVERY_MINUTE = Schedule("minutely", ("db", "wal"), 60 * S, 2)
AT = 1_800_000_000 * S


def keeper(world: World) -> CopyKeeper:
    return world.copying.keeper


def test_a_schedule_makes_copies_and_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [AT]
    monkeypatch.setattr("isochrone.controller.copy_operations.time.time_ns", lambda: now[0])

    async def story(world: World) -> None:
        for minute in range(4):
            now[0] = AT + minute * 60 * S
            await keeper(world).look(now[0])
            await keeper(world).look(now[0] + 59 * S)
        assert list(world.copying.catalogue.copies) == [
            "minutely-20270115T080200Z",
            "minutely-20270115T080300Z",
        ]
        assert len(world.pool.volumes) == 2 + 4
        (schedule,) = world.copying.reporter.schedules()
        assert (schedule.copy_count, schedule.failure) == (2, None)

    play(story, schedules=[EVERY_MINUTE])


def test_a_schedule_that_fails_says_why_and_goes_on_when_the_cause_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule = Schedule("minutely", ("db", "late"), 60 * S, 2)

    async def story(world: World) -> None:
        await keeper(world).look(AT)
        assert world.copying.reporter.failures == {
            "minutely": "no volume 'late' here; see `isochrone volume list` and `isochrone copy list`"
        }
        (report,) = (await world.copying.copies()).schedules
        assert report.failure is not None
        await world.operations.create_volume(CreateVolumeRequest(name="late", size_bytes=TRACK))
        await keeper(world).look(AT + S)
        assert not world.copying.catalogue.copies, "it is not tried again at once"
        monkeypatch.setattr(keeper(world), "_retry_at_s", {})
        await keeper(world).look(AT + 31 * S)
        assert len(world.copying.catalogue.copies) == 1
        assert world.copying.reporter.failures == {}

    play(story, schedules=[schedule])


def test_a_copy_that_something_relies_on_outlives_its_time_and_says_why() -> None:
    async def story(world: World) -> None:
        request = CreateCopyRequest(volumes=["db"], name="old", expires_after_s=1)
        await world.copying.create_copy(request)
        await create(world, "db@old", name="child")
        later = 2 * world.copying.catalogue.copies["old"].taken_wall_ns
        await keeper(world).look(later)
        assert "db@old@child" in ((await world.copying.copy("old")).waits_because or "")
        assert (await world.operations.status()).copies.waiting_count == 1
        await world.copying.delete_copy("child")
        await keeper(world).look(later)
        assert not world.copying.catalogue.copies
        assert (await world.operations.status()).copies.waiting_count == 0

    play(story)


def test_a_pool_that_takes_no_writes_makes_schedules_fail_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(world: World) -> None:
        def fail(*_: object) -> None:
            raise PoolReadOnlyError("the device failed; repair it")

        monkeypatch.setattr(world.pool, "create_copies", fail)
        await keeper(world).look(AT)
        assert world.copying.reporter.failures == {"minutely": "the device failed; repair it"}

    play(story, schedules=[EVERY_MINUTE])


# --- a full pool ---


def test_a_full_pool_refuses_writes_until_a_copy_is_deleted() -> None:
    async def story(world: World) -> None:
        write(world, "db", 0, 1, 2, 3, 4)
        await create(world, "db", name="mon")
        write(world, "db", 0, 5, 6, 7, 8)
        with pytest.raises(PoolFullError, match="copies"):
            write(world, "wal", 0, 1)
        await world.copying.delete_copy("mon")
        write(world, "wal", 0, 1)
        assert content(world, "wal")[0] == 1
        assert content(world, "db")[:4] == [5, 6, 7, 8]

    play(story, track_count=8)
