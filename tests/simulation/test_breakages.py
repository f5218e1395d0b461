"""The simulator bites: each deliberate breakage of the product is caught by the oracle within a few worlds.

Every breakage is one that a plausible change could bring in. See tests/README.md for the list in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isochrone.capture import handshake, links, pruning
from isochrone.capture.activity_map import ActivityMap
from isochrone.capture.captured_volume import CapturedVolume
from isochrone.capture.change_map import ChangeMap
from isochrone.capture.copier import Copier
from isochrone.capture.fencing import Fencing
from isochrone.capture.stamper import Stamper
from isochrone.capture.stream import SessionStream
from isochrone.link.messages import Ack, Fenced, Quiesced, Refused, Welcome
from isochrone.model.errors import IsochroneError
from isochrone.mover.mover import Mover
from isochrone.session import session as session_module
from isochrone.session.session import Session
from isochrone.store.allocator import Allocator, TrackNumbers
from isochrone.store.volume import Volume
from isochrone.testing.endings import run_world
from isochrone.testing.oracle import OracleError
from isochrone.testing.properties import PropertyError
from isochrone.testing.roughness import Odds
from isochrone.testing.sim_primary import PrimaryNode
from isochrone.testing.world import World

WORLDS_MAX = 80

ROUGH = Odds(
    cut=0.15,
    stall=0.05,
    link_trouble=0.05,
    storm=0.1,
    kill=0.15,
    crash_in_disk=0.08,
    power=0.25,
    operator=0.12,
)
"""Each seed also makes a world that loses power and processes more often than most, so that rare breakages show soon."""

DARK = Odds(cut=0.02, stall=0.0, link_trouble=0.02, storm=0.05, kill=0.05, crash_in_disk=0.05, power=0.7)
"""And one whose hosts lose power again and again."""

Patch = pytest.MonkeyPatch
Breakage = Callable[[Patch], None]


def commit_past_the_gate(patch: Patch) -> None:
    """Commit follows J also while a resync has holes before it."""
    patch.setattr(session_module, "commit_limit_ns", lambda journal_ns, *_: journal_ns)


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


def give_regions_up_before_the_sync(patch: Patch) -> None:
    """A region is given up although its last writes here can still be lost."""

    def trim(self: PrimaryNode) -> None:
        activities = self.primary.activities
        if activities.trim_is_due(self.events.now_ns()):
            activities.begin_trim(self.events.now_ns())
            activities.end_trim()

    patch.setattr(PrimaryNode, "_trim", trim)


def activate_regions_after_the_write(patch: Patch) -> None:
    """A region becomes durably active a little after its first write."""
    enter = ActivityMap.enter
    prune = SessionStream.prune
    late: list[tuple[ActivityMap, int, int]] = []

    def collect(self: ActivityMap, track: int, track_count: int) -> None:
        late.append((self, track, track_count))

    def prune_and_enter(self: SessionStream, now_ns: int, remember: Callable[[SessionStream], None]) -> None:
        mine = [captured.activity for captured in self.volumes.values()]
        if len(late) > 20:
            for activity, track, track_count in late:
                if any(activity is one for one in mine):
                    enter(activity, track, track_count)
            late.clear()
        prune(self, now_ns, remember)

    patch.setattr(ActivityMap, "ask", lambda _self, _track, _count: True)
    patch.setattr(ActivityMap, "enter", collect)
    patch.setattr(SessionStream, "prune", prune_and_enter)


def give_up_regions_with_marks(patch: Patch) -> None:
    """A region is given up although the secondary still lacks some of it."""
    patch.setattr(
        ChangeMap, "blocks_near_marks", lambda _self, blocks, _tracks: np.zeros(len(blocks), np.bool_)
    )


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


def forget_held_writes_on_abort(patch: Patch) -> None:
    """Writes kept from the stream, because an image was to come, are forgotten when the resync is broken off."""
    sendable_runs = Copier.sendable_runs
    stop_copy = CapturedVolume.stop_copy
    held: dict[Copier, set[int]] = {}  # copiers themselves: a number may be given to another one later

    def hold(self: Copier, track: int, track_count: int) -> list[tuple[int, int]]:
        runs = sendable_runs(self, track, track_count)
        sent = {one for first, count in runs for one in range(first, first + count)}
        held.setdefault(self, set()).update(set(range(track, track + track_count)) - sent)
        return runs

    def stop_and_forget(self: CapturedVolume) -> None:
        copier = self.copier
        if copier is not None:
            for track in held.pop(copier, ()):
                if copier.to_copy[track]:
                    self.change_map._marks[track] = 0
        stop_copy(self)

    patch.setattr(Copier, "sendable_runs", hold)
    patch.setattr(CapturedVolume, "stop_copy", stop_and_forget)


class _AsItWas:
    """A volume as it was when its copy began."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._content = volume.read(0, volume.size_bytes)
        self._runs = list(volume.mapped_runs(0, volume.size_bytes))

    def __getattr__(self, name: str) -> object:
        return getattr(self._volume, name)

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]

    def mapped_runs(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        for first, count, mapped in self._runs:
            start, end = max(first, offset), min(first + count, offset + length)
            if start < end:
                yield start, end - start, mapped


def image_older_than_a_write_it_supersedes(patch: Patch) -> None:
    """Images are read when the copy begins and stamped when they are sent: what was written between is lost with them."""
    init = Copier.__init__

    def begin(self: Copier, volume: Volume, *rest: object, **more: object) -> None:
        init(self, volume, *rest, **more)  # type: ignore[arg-type]
        self._volume = _AsItWas(volume)  # type: ignore[assignment]

    patch.setattr(Copier, "__init__", begin)


def send_writes_before_their_images(patch: Patch) -> None:
    """A write is sent also where an image is still to come."""
    patch.setattr(Copier, "sendable_runs", lambda _self, track, count: [(track, count)])


def copy_everything(patch: Patch) -> None:
    """A resync copies the whole volume, marked or not."""
    init = Copier.__init__

    def begin(self: Copier, volume: Volume, tracks: NDArray[np.bool_], *rest: object, **more: object) -> None:
        init(self, volume, np.ones_like(tracks), *rest, **more)  # type: ignore[arg-type]

    patch.setattr(Copier, "__init__", begin)


def release_without_clearing(patch: Patch) -> None:
    """A generation is counted as released, and its marks stay."""

    def release(self: ChangeMap, hardened_ns: int) -> bool:
        if self.frozen or self.toggle_ns is None or hardened_ns < self.toggle_ns:
            return False
        self.toggle_ns = None
        return True

    patch.setattr(ChangeMap, "release", release)


def never_toggle(patch: Patch) -> None:
    """Marks of a volume that is written and mirrored are never pruned."""
    patch.setattr(ChangeMap, "toggle", lambda _self, _now_ns: False)


def prune_while_suspended(patch: Patch) -> None:
    """Marks of a suspended volume are cleared, as those of a streaming one are."""
    prune = SessionStream.prune
    frozen: dict[int, int] = {}

    def prune_all(self: SessionStream, now_ns: int, remember: Callable[[SessionStream], None]) -> None:
        prune(self, now_ns, remember)
        for captured in self.volumes.values():
            ticks = frozen[id(captured)] = captured.change_map.frozen * (frozen.get(id(captured), 0) + 1)
            if ticks > 2:
                captured.change_map._marks[::2] = 0

    patch.setattr(SessionStream, "prune", prune_all)


BREAKAGES: list[Breakage] = [
    commit_past_the_gate,
    clear_marks_on_send,
    promise_ahead_of_writes,
    reuse_freed_tracks_at_once,
    mark_after_the_write,
    duplex_one_group_early,
    drop_writes_beside_a_copy,
    forget_marks_on_suspend,
    forget_held_writes_on_abort,
    image_older_than_a_write_it_supersedes,
    toggle_twice_without_release,
    discard_tracks_that_are_not_hardened,
    give_regions_up_before_the_sync,
    activate_regions_after_the_write,
    give_up_regions_with_marks,
    continue_across_a_gap,
    harden_before_the_sync,
    form_at_the_newest_promise,
    fence_without_effect,
    quiesce_without_effect,
]

PROPERTY_BREAKAGES: dict[str, Breakage] = {
    "P2.3": mark_after_the_write,
    "P2.4": send_writes_before_their_images,
    "P2.6": copy_everything,
    "P3.1": mark_after_the_write,
    "P3.2": release_without_clearing,
    "P3.3": never_toggle,
    "P3.4": prune_while_suspended,
}
"""What shows that a world tells the property itself from others. P2.1, P2.2 and P2.5 fail only where another was noticed
before; that they can fail is shown in logic/test_testing_properties.py."""


def _errors(seeds: range) -> Iterator[Exception]:
    for seed in seeds:
        for odds in (None, ROUGH, DARK):
            try:
                run_world(World(seed, odds))
            except (OracleError, IsochroneError) as error:
                yield error


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_breakage_is_caught(breakage: Breakage, monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    if next(_errors(range(WORLDS_MAX)), None) is None:
        pytest.fail(f"{3 * WORLDS_MAX} worlds did not notice: {breakage.__doc__}")


@pytest.mark.parametrize("number", PROPERTY_BREAKAGES)
def test_a_broken_property_is_named(number: str, monkeypatch: Patch) -> None:
    PROPERTY_BREAKAGES[number](monkeypatch)
    numbers = (error.number for error in _errors(range(WORLDS_MAX)) if isinstance(error, PropertyError))
    assert number in numbers, f"{3 * WORLDS_MAX} worlds did not name {number}"
