"""The model of histories bites: each deliberate breakage is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from isochrone.model.errors import IsochroneError
from isochrone.store import image_build, kept_entries, replay
from isochrone.store.allocator import TrackNumbers
from isochrone.store.history import History
from isochrone.store.history_files import HistoryFiles
from isochrone.store.kept_entries import Piece
from isochrone.store.staging import Chunk
from isochrone.store.state import PoolState
from isochrone.store.tables import Assigned
from support.history_machine import HistoryMachine

Patch = pytest.MonkeyPatch


def keep_entries_without_counting_their_tracks(patch: Patch) -> None:
    def commit(state: PoolState, chunk: Chunk, history: History | None) -> Assigned:
        part = history.part_of(chunk) if history is not None else None
        done = state.link(chunk)
        if history is not None and part is not None:
            part[0].records["volume"] = part[1]
            history.entries.add(part[0])
        return done

    patch.setattr(PoolState, "_commit", commit)


def show_what_is_later_in_the_same_piece(patch: Patch) -> None:
    for module in (kept_entries, image_build):
        patch.setattr(module, "early_of", lambda chunk, _: chunk)


def go_on_with_the_past_that_was_left(patch: Patch) -> None:
    def leave(history: History) -> list[Piece]:
        history.rewound_ns = None
        return []

    patch.setattr(History, "leave_future", leave)


def forget_a_release_in_a_crash(patch: Patch) -> None:
    patch.setattr(replay, "release_history", lambda *_: None)


def forget_sealed_pieces_before_they_are_in_a_file(patch: Patch) -> None:
    seal = HistoryFiles.seal

    def broken(files: HistoryFiles, state: PoolState) -> object:
        sealing = seal(files, state)
        for _, pieces in sealing.new:
            for piece in pieces:
                piece.forget_content()
        return sealing

    patch.setattr(HistoryFiles, "seal", broken)


def open_without_counting_what_is_kept(patch: Patch) -> None:
    def tracks(state: PoolState) -> list[TrackNumbers]:
        sources = [source for session in state.sessions.values() for source in session.sources.values()]
        return [chunk.physicals for source in sources for chunk in source.chunks]

    patch.setattr(PoolState, "entry_tracks", tracks)


BREAKAGES: tuple[Callable[[Patch], None], ...] = (
    keep_entries_without_counting_their_tracks,
    show_what_is_later_in_the_same_piece,
    go_on_with_the_past_that_was_left,
    forget_a_release_in_a_crash,
    forget_sealed_pieces_before_they_are_in_a_file,
    open_without_counting_what_is_kept,
)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_breakage_is_caught(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    with pytest.raises((AssertionError, IndexError, IsochroneError)):
        run_state_machine_as_test(
            HistoryMachine,
            settings=settings(
                max_examples=300,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
