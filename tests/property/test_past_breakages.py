"""The model of copies and histories bites: each deliberate breakage is caught, and nothing is when the store is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from isochrone.model.errors import DamagedError, IsochroneError
from isochrone.store import (
    history_changes,
    image_build,
    kept_entries,
    pointer_copy,
    recovery,
    written_since,
)
from isochrone.store.allocator import Allocator
from isochrone.store.arena import Arena
from isochrone.store.history import History
from isochrone.store.kept_entries import Piece
from isochrone.store.log_records import Part
from isochrone.store.read_only_volume import ReadOnlyVolume
from isochrone.store.staging import Chunk
from isochrone.store.state import PoolState
from isochrone.store.tables import TrackTables, VolumeTable
from isochrone.store.volume import Volume
from isochrone.store.volume_set import VolumeSet
from support.past_walks import copies_walk, history_walk

SEEDS = range(60)
LATE_NS = 9
"""Less than between two records of one source."""

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: Patch) -> None:
    """Images are made in several steps, and ranges copied in several."""
    monkeypatch.setattr(pointer_copy, "_PIECE_ENTRY_COUNT", 1)
    monkeypatch.setattr(kept_entries, "PIECE_ENTRY_COUNT_MAX", 5)


def forget_to_count_pages(patch: Patch) -> None:
    """A pointer copy shares pages that it does not count."""
    patch.setattr(Arena, "share", lambda *_: None)


def forget_what_the_target_held(patch: Patch) -> None:
    """An establish does not give up what it replaces."""
    patch.setattr(TrackTables, "give_up", lambda *_, **__: None)


def read_the_source_while_it_changes(patch: Patch) -> None:
    """Ranges copied onto others of the same volume are read piece by piece from what was written already."""
    patch.setattr(pointer_copy, "_aside", lambda _tables, source, _extents: source)


def log_each_part_by_itself(patch: Patch) -> None:
    """Copies of several volumes are one record each, in log writes of their own."""

    def one_by_one(self: VolumeSet, parts: Sequence[Part]) -> None:
        for part in parts:
            self._parts.log.append(*part)
            self._log_write()

    patch.setattr(VolumeSet, "log_together", one_by_one)


def let_snapshots_be_written(patch: Patch) -> None:
    """A snapshot takes writes."""
    patch.setattr(ReadOnlyVolume, "write", Volume.write)


def keep_the_size_of_the_target(patch: Patch) -> None:
    """Establish of the whole forgets that the source has another size, or other mapped tracks."""
    share = pointer_copy.share

    def broken(tables: TrackTables, source: VolumeTable, target: VolumeTable) -> None:
        count = target.mapped_track_count
        share(tables, source, target)
        target.mapped_track_count = count

    patch.setattr("isochrone.store.state.share", broken)


@pytest.mark.parametrize(
    "breakage",
    [
        forget_to_count_pages,
        forget_what_the_target_held,
        read_the_source_while_it_changes,
        log_each_part_by_itself,
        let_snapshots_be_written,
        keep_the_size_of_the_target,
    ],
    ids=lambda breakage: breakage.__name__,
)
def test_walks_of_copies_catch(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    assert is_caught(copies_walk)


def include_what_came_after(patch: Patch) -> None:
    """An image has one write after its time."""
    early_of = kept_entries.early_of
    patch.setattr(image_build, "early_of", lambda chunk, time_ns: early_of(chunk, time_ns + LATE_NS))


def replay_what_came_after(patch: Patch) -> None:
    """A restart makes an image anew, with one write after its time."""
    link_image = history_changes.link_image
    patch.setattr(
        "isochrone.store.replay.link_image",
        lambda state, session, at_ns, targets: link_image(state, session, at_ns + LATE_NS, targets),
    )


def release_too_much(patch: Patch) -> None:
    """The oldest history is given up a little further than was asked for, and not said to be."""
    take_through = kept_entries.KeptEntries.take_through
    patch.setattr(
        kept_entries.KeptEntries, "take_through", lambda self, time_ns: take_through(self, time_ns + LATE_NS)
    )


def free_tracks_that_the_history_needs(patch: Patch) -> None:
    """A commit keeps entries and does not count them."""
    commit = PoolState._commit

    def broken(self: PoolState, chunk: Chunk, history: History | None) -> object:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Allocator, "share", lambda *_: None)
            return commit(self, chunk, history)

    patch.setattr(PoolState, "_commit", broken)


def keep_the_future_that_was_left(patch: Patch) -> None:
    """After a rewind, what is committed joins the entries that the volumes went back behind."""

    def leave_nothing(self: History) -> list[Piece]:
        self.rewound_ns = None
        return []

    patch.setattr(History, "leave_future", leave_nothing)


def forget_what_changed_since(patch: Patch) -> None:
    """A rewind tells only the tracks that differ now: one that is repeated after a crash tells none."""
    patch.setattr(written_since, "expand", lambda first, _counts: np.asarray(first[:0], np.int64))


def leave_unfinished_images_behind(patch: Patch) -> None:
    """A checkpoint that was written while an image was made keeps it."""
    load_root = recovery.load_root
    patch.setattr(recovery, "load_root", lambda *arguments: replace(load_root(*arguments), unfinished=[]))


def append_late_records(patch: Patch) -> None:
    """A record that is stored late comes behind later ones."""
    patch.setattr("isochrone.store.staging._with_late", lambda chunks, late: [*chunks, late])


def forget_a_volume_that_leaves(patch: Patch) -> None:
    """What was kept of a volume goes when it leaves."""
    leave = History.leave

    def broken(self: History, number: int, until_ns: int) -> bool:
        left = leave(self, number, until_ns)
        for stay in self.volumes:
            if stay.number == number and stay.until_ns is not None:
                stay.until_ns = stay.from_ns
        return left

    patch.setattr(History, "leave", broken)


@pytest.mark.parametrize(
    "breakage",
    [
        include_what_came_after,
        replay_what_came_after,
        release_too_much,
        free_tracks_that_the_history_needs,
        keep_the_future_that_was_left,
        forget_what_changed_since,
        leave_unfinished_images_behind,
        append_late_records,
        forget_a_volume_that_leaves,
    ],
    ids=lambda breakage: breakage.__name__,
)
def test_walks_with_histories_catch(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    assert is_caught(history_walk)


def test_unbroken_every_walk_passes() -> None:
    """The control: without it the tests above might catch nothing but a broken walk."""
    for seed in SEEDS:
        copies_walk(seed)
        history_walk(seed)


def is_caught(walk: Callable[[int], None]) -> bool:
    """Whether some walk ends in a failed check."""
    for seed in SEEDS:
        try:
            walk(seed)
        except (AssertionError, DamagedError):
            return True
        except (IsochroneError, IndexError, KeyError, ValueError):
            return True  # the store stumbles over what it did itself
    return False
