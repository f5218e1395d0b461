"""The simulator bites: each deliberate breakage of the product is caught by the oracle within a few worlds.

Every breakage is one that a plausible change could bring in. See tests/README.md for the list in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isochrone.capture import handshake, links, pruning
from isochrone.capture.change_map import ChangeMap
from isochrone.capture.copier import Copier
from isochrone.capture.fencing import Fencing
from isochrone.capture.stamper import Stamper
from isochrone.capture.stream import CapturedVolume, SessionStream
from isochrone.link.messages import Ack, Fenced, Quiesced, Refused, Welcome
from isochrone.model.errors import IsochroneError
from isochrone.mover.mover import Mover
from isochrone.session import session as session_module
from isochrone.session.session import Session
from isochrone.store.allocator import Allocator, TrackNumbers
from isochrone.testing.endings import run_world
from isochrone.testing.oracle import OracleError
from isochrone.testing.world import Odds, World

WORLDS_MAX = 60

ROUGH = Odds(cut=0.2, stall=0.05, kill=0.2, crash_in_disk=0.1, power=0.3, operator=0.15)
"""Each seed also makes a world that loses power and processes more often than most, so that rare breakages show soon."""

Patch = pytest.MonkeyPatch
Breakage = Callable[[Patch], None]


def commit_past_the_gate(patch: Patch) -> None:
    """Commit follows J also while a resync has holes before it."""
    patch.setattr(session_module, "commit_limit_ns", lambda journal_ns, _floor: journal_ns)


def clear_marks_on_send(patch: Patch) -> None:
    """What was sent counts as hardened."""
    send_set = SessionStream._send_set

    def send_and_forget(self: SessionStream, batches: list[object], now_ns: int) -> None:
        send_set(self, batches, now_ns)  # type: ignore[arg-type]
        self.acknowledged(Ack(self.sent_through_ns, 0, self.sent_through_ns))

    patch.setattr(SessionStream, "_send_set", send_and_forget)


def promise_ahead_of_writes(patch: Patch) -> None:
    """A heartbeat says a little more than is sure."""
    patch.setattr(Stamper, "promise", lambda self: self.stamp() + 30_000_000)


def reuse_freed_tracks_at_once(patch: Patch) -> None:
    """A freed track is handed out before what freed it is durable."""
    drop = Allocator.drop

    def drop_and_release(self: Allocator, tracks: TrackNumbers) -> int:
        count = drop(self, tracks)
        self.release(self.take_pending())
        return count

    patch.setattr(Allocator, "drop", drop_and_release)


def mark_after_the_write(patch: Patch) -> None:
    """Marks are collected and set a little later: lost when the process dies in between."""
    mark = ChangeMap.mark
    prune = SessionStream.prune
    late: list[tuple[ChangeMap, int, int]] = []

    def collect(self: ChangeMap, track: int, track_count: int) -> None:
        late.append((self, track, track_count))

    def prune_and_mark(self: SessionStream, now_ns: int, remember: Callable[[SessionStream], None]) -> None:
        mine = [captured.change_map for captured in self.volumes.values()]
        if len(late) > 20:
            for change_map, track, track_count in late:
                if any(change_map is one for one in mine):
                    mark(change_map, track, track_count)
            late.clear()
        prune(self, now_ns, remember)

    patch.setattr(ChangeMap, "mark", collect)
    patch.setattr(SessionStream, "prune", prune_and_mark)


def duplex_one_group_early(patch: Patch) -> None:
    """A pair is DUPLEX as soon as its last image was read."""
    true_time = Session.copied_through_ns

    def early(self: Session, pair: object) -> int:
        return min(true_time(self, pair), self.mover.consistency_ns)  # type: ignore[arg-type]

    patch.setattr(Session, "copied_through_ns", early)
    patch.setattr(Mover, "has_interlocked", lambda _self, _source: True)


def drop_writes_beside_a_copy(patch: Patch) -> None:
    """While a volume is copied, its writes are left to the images, also to those already read."""
    patch.setattr(Copier, "sendable_runs", lambda _self, _track, _count: [])


def forget_marks_on_suspend(patch: Patch) -> None:
    """Suspending in the middle of a resync keeps only what the copier had not read yet."""
    stop_copy = CapturedVolume.stop_copy

    def stop_and_clear(self: CapturedVolume) -> None:
        if self.copier is not None:
            remaining = np.frombuffer(self.copier.to_copy, dtype=np.uint8) != 0
            self.change_map._marks[:] = remaining.astype(np.uint8)
        stop_copy(self)

    patch.setattr(CapturedVolume, "stop_copy", stop_and_clear)


def toggle_twice_without_release(patch: Patch) -> None:
    """A second toggle begins before the first generation was released."""
    toggle = ChangeMap.toggle

    def toggle_anyway(self: ChangeMap, now_ns: int) -> bool:
        first_ns, self.toggle_ns = self.toggle_ns, None
        done = toggle(self, now_ns)
        if first_ns is not None and done:
            self.toggle_ns = first_ns
        return done

    patch.setattr(ChangeMap, "toggle", toggle_anyway)


def discard_tracks_that_are_not_hardened(patch: Patch) -> None:
    """Level 2 overlooks the last record of each look into the backlog."""
    set_runs = pruning._set_runs
    patch.setattr(pruning, "_set_runs", lambda flags, records: set_runs(flags, records[:-1]))


def continue_across_a_gap(patch: Patch) -> None:
    """A primary that lost captured records says that the stream goes on."""

    def welcome(*fields: object) -> Welcome:
        identity, name, incarnation, epoch, now_ns, _continues, *rest = fields
        return Welcome(identity, name, incarnation, epoch, now_ns, True, *rest)  # type: ignore[arg-type]

    patch.setattr(links, "Welcome", welcome)


def harden_before_the_sync(patch: Patch) -> None:
    """J moves when the sync is asked for, not when it has succeeded."""
    form = Mover.form

    def form_and_claim(self: Mover, now_ns: int) -> bool:
        due = form(self, now_ns)
        if due:
            self.journal_ns = max(self.journal_ns, self._hardening_ns or 0)
        return due

    patch.setattr(Mover, "form", form_and_claim)


def form_at_the_newest_promise(patch: Patch) -> None:
    """F is the newest time of any primary instead of the oldest."""
    patch.setattr(
        Mover,
        "form_ns",
        property(
            lambda self: max(self.journal_ns, max((s.through_ns for s in self.sources.values()), default=0))
        ),
    )


def fence_without_effect(patch: Patch) -> None:
    """A fenced primary confirms, and goes on as before."""
    decide = handshake.decide_hello

    def decide_as_before(*args: Any, **options: Any) -> handshake.Accept | Refused:
        verdict = decide(*args, **options)
        if isinstance(verdict, handshake.Accept) and verdict.fences:
            return replace(verdict, document=verdict.document.changed(ended=False), fences=False)
        return verdict

    patch.setattr(links, "decide_hello", decide_as_before)
    patch.setattr(
        Fencing, "handle_fence", lambda _self, _link, stream, fence: stream.send(Fenced(fence.epoch))
    )


def quiesce_without_effect(patch: Patch) -> None:
    """A primary says that it refuses writes, and takes them."""
    patch.setattr(
        links.PrimaryLinks,
        "_handle_quiesce",
        lambda self, _link, stream: stream.send(Quiesced(self._primary.stamper.promise())),
    )


BREAKAGES: list[Breakage] = [
    commit_past_the_gate,
    clear_marks_on_send,
    promise_ahead_of_writes,
    reuse_freed_tracks_at_once,
    mark_after_the_write,
    duplex_one_group_early,
    drop_writes_beside_a_copy,
    forget_marks_on_suspend,
    toggle_twice_without_release,
    discard_tracks_that_are_not_hardened,
    continue_across_a_gap,
    harden_before_the_sync,
    form_at_the_newest_promise,
    fence_without_effect,
    quiesce_without_effect,
]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_breakage_is_caught(breakage: Breakage, monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    for seed in range(WORLDS_MAX):
        try:
            run_world(World(seed))
            run_world(World(seed, ROUGH))
        except (OracleError, IsochroneError):
            return
    pytest.fail(f"{2 * WORLDS_MAX} worlds did not notice: {breakage.__doc__}")
