"""The model bites: each deliberate breakage of the store is caught, and nothing is when it is whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isochrone.model.errors import DamagedError
from isochrone.store import chain
from isochrone.store.allocator import Allocator, TrackNumbers
from isochrone.store.arena import Arena
from isochrone.store.checkpoint import Checkpoint
from isochrone.store.checkpointer import Checkpointer
from isochrone.store.disk import File
from isochrone.store.head import Head, Trouble
from isochrone.store.health import Health
from isochrone.store.holds import Holds
from isochrone.store.log import Log
from isochrone.store.log_records import RecordType
from isochrone.store.staging import Chunk, SessionStage
from isochrone.store.tables import TrackTables
from isochrone.testing.sim_disk import SimFile
from support.store_walks import (
    die_while_opening_after_a_power_loss,
    give_a_track_up_again_during_a_sync,
    lose_a_write_to_a_failed_datasync,
    overwrite_after_a_copy_is_deleted,
    overwrite_twice_after_a_copy_is_deleted,
    sync_while_the_log_switches,
    walk,
    walk_short_of_room,
)

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


def overwrite_a_track_as_soon_as_it_is_no_longer_shared(patch: Patch) -> None:
    patch.setattr(Holds, "hold", lambda *_: None)
    patch.setattr(Holds, "note", lambda *_: None)


def forget_that_a_deleted_copy_may_come_back(patch: Patch) -> None:
    drop = Arena.drop

    def broken(self: Arena, numbers: TrackNumbers, *, hold: bool) -> TrackNumbers:
        return drop(self, numbers, hold=hold and False)

    patch.setattr(Arena, "drop", broken)


def forget_the_tracks_of_a_page_that_may_come_back(patch: Patch) -> None:
    patch.setattr(Allocator, "hold_owned", lambda *_: None)


def forget_which_tracks_were_given_up_again(patch: Patch) -> None:
    patch.setattr(Holds, "_set_again", lambda *_: None)


def forget_at_a_restart_that_a_datasync_failed(patch: Patch) -> None:
    patch.setattr(Head, "note_failed_datasync", lambda _: None)


def trust_the_cache_after_a_failed_datasync(patch: Patch) -> None:
    patch.setattr(SimFile, "drop_cache", lambda _: None)


def replay_all_of_the_log_after_a_failed_datasync(patch: Patch) -> None:
    patch.setattr(chain, "_loss", lambda _, *, lost_power: "power" if lost_power else None)


def tell_of_a_loss_only_once(patch: Patch) -> None:
    add_trouble = Head.add_trouble

    def broken(self: Head, trouble: Trouble) -> None:
        add_trouble(self, trouble & ~Trouble.LOSS_UNTOLD)

    patch.setattr(Head, "add_trouble", broken)


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
        overwrite_a_track_as_soon_as_it_is_no_longer_shared,
        forget_at_a_restart_that_a_datasync_failed,
        replay_all_of_the_log_after_a_failed_datasync,
    ],
    ids=lambda breakage: breakage.__name__,
)
def test_seeded_walks_catch(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    assert first_failing_seed(walk) is not None


def apply_twice_what_was_pending_when_a_checkpoint_found_no_room(patch: Patch) -> None:
    patch.setattr(Checkpoint, "go_on_behind", lambda *_: None)


def forget_what_was_pending_when_a_checkpoint_found_no_room(patch: Patch) -> None:
    patch.setattr(Checkpointer, "_log_behind", lambda self, _: self._log.forget_pending())


@pytest.mark.parametrize(
    "breakage",
    [
        apply_twice_what_was_pending_when_a_checkpoint_found_no_room,
        forget_what_was_pending_when_a_checkpoint_found_no_room,
    ],
    ids=lambda breakage: breakage.__name__,
)
def test_walks_short_of_room_catch(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    assert first_failing_seed(walk_short_of_room) is not None


def test_unbroken_every_walk_passes() -> None:
    """The control: without it the tests above might catch nothing but a broken walk."""
    for seed in SEEDS:
        walk(seed)
        walk_short_of_room(seed)


@pytest.mark.parametrize(
    ("breakage", "order"),
    [
        (forget_the_older_segment_when_a_sync_ends, sync_while_the_log_switches),
        (forget_that_a_deleted_copy_may_come_back, overwrite_after_a_copy_is_deleted),
        (forget_the_tracks_of_a_page_that_may_come_back, overwrite_twice_after_a_copy_is_deleted),
        (forget_which_tracks_were_given_up_again, give_a_track_up_again_during_a_sync),
        (trust_the_cache_after_a_failed_datasync, lose_a_write_to_a_failed_datasync),
        (tell_of_a_loss_only_once, die_while_opening_after_a_power_loss),
    ],
    ids=lambda function: function.__name__,
)
def test_a_kept_order_catches(
    breakage: Callable[[Patch], None], order: Callable[[int], None], monkeypatch: Patch
) -> None:
    """Orders that random walks rarely meet."""
    breakage(monkeypatch)
    assert first_failing_seed(order) is not None


def first_failing_seed(run: Callable[[int], None]) -> int | None:
    """Return the first seed whose run ends in a failed check, None when all pass."""
    for seed in SEEDS:
        try:
            run(seed)
        except (AssertionError, DamagedError):
            return seed
    return None
