"""The model bites: each deliberate breakage of the store is caught, and nothing is when it is whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isochrone.model.errors import DamagedError
from isochrone.store.allocator import Allocator, TrackNumbers
from isochrone.store.checkpoint import Checkpoint
from isochrone.store.disk import File
from isochrone.store.health import Health
from isochrone.store.log import Log
from isochrone.store.log_records import RecordType
from isochrone.store.staging import Chunk, SessionStage
from isochrone.store.tables import TrackTables
from support.store_world import sync_while_the_log_switches, walk

SEEDS = range(40)

Patch = pytest.MonkeyPatch


def reuse_freed_tracks_before_that_is_durable(patch: Patch) -> None:
    drop = Allocator.drop

    def broken(self: Allocator, tracks: TrackNumbers) -> int:
        count = drop(self, tracks)
        self.release(self.take_pending())
        return count

    patch.setattr(Allocator, "drop", broken)


def write_the_barrier_before_tracks_are_durable(patch: Patch) -> None:
    datasync = Health.datasync

    def broken(self: Health, file: File, doing: str) -> None:
        if doing != "making tracks durable":
            datasync(self, file, doing)

    patch.setattr(Health, "datasync", broken)


def leave_the_barrier_out(patch: Patch) -> None:
    append = Log.append

    def broken(self: Log, kind: RecordType, payload: bytes) -> None:
        if kind != RecordType.BARRIER:
            append(self, kind, payload)

    patch.setattr(Log, "append", broken)


def forget_to_count_tracks_when_a_shared_page_is_copied(patch: Patch) -> None:
    patch.setattr(Allocator, "share", lambda *_: None)


def overwrite_shared_tracks_in_place(patch: Patch) -> None:
    patch.setattr(TrackTables, "owned", lambda *arguments: arguments[-1] != 0)


def drop_the_last_record_of_a_log_write(patch: Patch) -> None:
    write = Log.write

    def broken(self: Log) -> None:
        self._close_maps()
        if len(self._pending) > 1:
            del self._pending[-1]
        write(self)

    patch.setattr(Log, "write", broken)


def forget_the_older_segment_when_a_sync_ends(patch: Patch) -> None:
    patch.setattr(Log, "files_to_sync", lambda self: [self.file])


def checkpoint_without_making_pages_durable(patch: Patch) -> None:
    patch.setattr(Checkpoint, "_sync_tracks", lambda *_: None)


def commit_past_the_time_asked_for(patch: Patch) -> None:
    take_through = SessionStage.take_through

    def broken(self: SessionStage, time_ns: int) -> list[Chunk]:
        return take_through(self, time_ns + 15)

    patch.setattr(SessionStage, "take_through", broken)


def keep_promises_of_discarded_entries(patch: Patch) -> None:
    take_after = SessionStage.take_after

    def broken(self: SessionStage, time_ns: int) -> list[Chunk]:
        promised = {source: stage.through_ns for source, stage in self.sources.items()}
        taken = take_after(self, time_ns)
        for source, through_ns in promised.items():
            self.sources[source].through_ns = through_ns
        return taken

    patch.setattr(SessionStage, "take_after", broken)


def keep_tracks_mapped_beyond_a_smaller_size(patch: Patch) -> None:
    patch.setattr(TrackTables, "clear", lambda *_: None)


@pytest.mark.parametrize(
    "breakage",
    [
        reuse_freed_tracks_before_that_is_durable,
        write_the_barrier_before_tracks_are_durable,
        leave_the_barrier_out,
        forget_to_count_tracks_when_a_shared_page_is_copied,
        overwrite_shared_tracks_in_place,
        drop_the_last_record_of_a_log_write,
        checkpoint_without_making_pages_durable,
        commit_past_the_time_asked_for,
        keep_promises_of_discarded_entries,
        keep_tracks_mapped_beyond_a_smaller_size,
    ],
    ids=lambda breakage: breakage.__name__,
)
def test_seeded_walks_catch(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    assert first_failing_seed(walk) is not None


def test_unbroken_every_walk_passes() -> None:
    """The control: without it the tests above might catch nothing but a broken walk."""
    for seed in SEEDS:
        walk(seed)


def test_the_kept_order_catches_a_sync_that_forgets_the_older_segment(monkeypatch: Patch) -> None:
    """Rare in random orders: a checkpoint begins between the end of a datasync and the sync that waits for it."""
    forget_the_older_segment_when_a_sync_ends(monkeypatch)
    assert first_failing_seed(sync_while_the_log_switches) is not None


def first_failing_seed(run: Callable[[int], None]) -> int | None:
    """Return the first seed whose run ends in a failed check, None when all pass."""
    for seed in SEEDS:
        try:
            run(seed)
        except (AssertionError, DamagedError):
            return seed
    return None
