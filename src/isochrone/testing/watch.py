"""Watches one primary of the simulated world: its marks at every tick and death, and what it sends of its copies.

A mark may go only when it is proven needless, so each tick compares the maps with those of the tick before (P3.1 to P3.4);
a process that comes back must have every mark that it died with. Of a copy the watch knows what was marked when it began,
and follows the images and updates on the wire (P2.4, P2.6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from isochrone.capture.captured_volume import CapturedVolume
from isochrone.capture.change_map import ChangeMap
from isochrone.capture.copier import Copier
from isochrone.capture.stream import SessionStream
from isochrone.link.messages import Compare, Compared, Configured, Message, RecordSet, Resumed, Welcome
from isochrone.model.records import RECORD_DTYPE, RecordKind
from isochrone.testing.events import MILLISECOND_NS
from isochrone.testing.history import History
from isochrone.testing.properties import (
    Tracks,
    check_bounded,
    check_copied_once,
    check_image_first,
    check_not_pruned,
    check_only_dirty,
    check_released,
    check_superset,
    check_survived,
)
from isochrone.testing.questions import Questions

if TYPE_CHECKING:
    from isochrone.testing.sim_primary import PrimaryNode

TICKS_NS: Final = 60 * MILLISECOND_NS
"""A few ticks of the slowest controller."""

Key = tuple[str, int]
"""Session id and volume number."""


@dataclass(frozen=True, slots=True)
class _Look:
    """One map at one tick. `pruned_at_ns`: when a generation was last released, or a copy was complete.

    `hardened_ns` is J where no recovery goes back behind it: not past C.
    """

    session_id: str
    change_map: ChangeMap
    marks: Tracks
    is_kept: bool
    toggle_ns: int | None
    incarnation: str
    copied_through_ns: int
    hardened_ns: int
    pruned_at_ns: int


@dataclass(slots=True)
class _Copy:
    """One copy of a volume: what was marked when it began and has not been sent yet. Older records may still be unsent.

    Of tracks that are `open` it is not known here whether a comparison has settled them.
    """

    captured: CapturedVolume
    copier: Copier | None
    pending: Tracks
    open: Tracks
    began_ns: int


@dataclass(slots=True)
class _Stream:
    """One incarnation on the wire. Records up to `seen_ns` were sent before; after a lost link they come again."""

    incarnation: str
    seen_ns: int = 0
    copies: dict[int, _Copy] = field(default_factory=dict)


class PrimaryWatch:
    """See the module's essay.

    Args:
        hardened_ns: returns the time through which everything of a session is durable at the secondary.

    Attributes:
        copies_broken_off: incarnations that ended with images still to be sent.
        tracks_copied: images sent.
    """

    def __init__(self, node: PrimaryNode, history: History, hardened_ns: Callable[[str], int]) -> None:
        self.copies_broken_off = 0
        self.tracks_copied = 0
        self._node = node
        self._history = history
        self._hardened_ns = hardened_ns
        self._looks: dict[Key, _Look] = {}
        self._streams: dict[str, _Stream] = {}
        self._died_with: dict[Key, Tracks] = {}
        self._whole: set[Key] = set()
        self._questions = Questions(history)

    def _key(self, captured: CapturedVolume) -> str:
        return f"{self._node.name}/{captured.volume.name}"

    # Marks

    def ticked(self) -> None:
        """Compare every map with the last look at it."""
        looks: dict[Key, _Look] = {}
        for stream in self._node.primary.streams.values():
            for number, captured in stream.volumes.items():
                key = stream.document.session_id, number
                looks[key] = self._look(stream, captured, self._looks.get(key))
                if captured.change_map.was_suspected:
                    self._whole.add(key)
        self._looks = looks

    def _look(self, stream: SessionStream, captured: CapturedVolume, before: _Look | None) -> _Look:
        change_map = captured.change_map
        now = _Look(
            stream.document.session_id,
            change_map,
            change_map.marked(),
            change_map.frozen or not stream.incarnation,
            change_map.toggle_ns,
            stream.incarnation,
            captured.copied_through_ns,
            min(stream.hardened_ns, stream.consistency_ns),
            captured.copied_through_ns,
        )
        if before is None or before.change_map is not change_map:
            return now
        return self._compare(self._key(captured), before, now)

    def _compare(self, volume: str, before: _Look, now: _Look) -> _Look:
        """Check what has become of a map's marks since the last look, and return this one."""
        if before.is_kept and now.is_kept:
            check_not_pruned(volume, before.marks, now.marks)
            return now
        gone = np.flatnonzero(before.marks & ~now.marks)
        if len(gone):
            history = self._history
            hardened = history.state_at(self._hardened_ns(now.session_id))
            check_superset(volume, history.state_at(None), hardened, now.marks, gone.tolist())
        if now.is_kept or (before.incarnation, before.copied_through_ns) != (
            now.incarnation,
            now.copied_through_ns,
        ):
            return now
        toggle_ns = before.toggle_ns
        if toggle_ns is not None and (now.toggle_ns != toggle_ns or before.hardened_ns >= toggle_ns):
            check_released(self._history, volume, now.marks, toggle_ns)
            return replace(now, pruned_at_ns=self._node.events.now_ns())
        # Since the last release a period went by, so there was a toggle; and that is hardened, so it was released.
        if before.hardened_ns > before.pruned_at_ns + self._node.settings.prune_interval_ns + TICKS_NS:
            check_bounded(self._history, volume, now.marks, before.pruned_at_ns)
        return replace(now, pruned_at_ns=before.pruned_at_ns)

    def died(self) -> None:
        """The process goes: keep what it had marked."""
        for stream in self._node.primary.streams.values():
            for number, captured in stream.volumes.items():
                marks = captured.change_map.marked()
                if len(marks) == captured.change_map.track_count:  # else it was closed, in a clean stop
                    self._died_with[stream.document.session_id, number] = marks
                if captured.change_map.was_suspected:
                    self._whole.add((stream.document.session_id, number))
        self._looks.clear()
        self._questions.forget()

    def restarted(self) -> None:
        """The next process is up."""
        if not self._node.reopened_after_loss:
            for stream in self._node.primary.streams.values():
                for number, captured in stream.volumes.items():
                    before = self._died_with.get((stream.document.session_id, number))
                    if before is not None:
                        check_survived(self._key(captured), before, captured.change_map.marked())
        self._died_with.clear()

    # Copies

    def sending(self, link: int, message: Message) -> None:
        """The primary puts `message` on `link`."""
        if not isinstance(message, RecordSet | Welcome | Resumed | Configured | Compare):
            return
        stream = next((s for s in self._node.primary.streams.values() if s.link == link), None)
        if stream is None or not stream.incarnation:
            return
        if isinstance(message, RecordSet):
            self._follow_records(stream, message)
        elif isinstance(message, Compare):
            copy = self._streams[stream.document.session_id].copies[message.volume]
            self._questions.asked(
                stream.document.session_id, message, self._key(copy.captured), copy.pending, copy.open
            )
        else:
            self._follow_copies(stream)

    def received(self, link: int, message: Message) -> None:
        """The primary is about to act on a mover's `message`."""
        stream = next((s for s in self._node.primary.streams.values() if s.link == link), None)
        if stream is not None and isinstance(message, Compared):
            self._questions.answered(stream.document.session_id, message)

    @property
    def tracks_equal(self) -> int:
        """Tracks that a comparison has settled."""
        return self._questions.equal_count

    def _follow_copies(self, stream: SessionStream) -> None:
        """A copy may have begun: everything marked now is to come."""
        session_id = stream.document.session_id
        known = self._streams.get(session_id)
        if known is None or known.incarnation != stream.incarnation:
            if known is not None and any(copy.pending.any() for copy in known.copies.values()):
                self.copies_broken_off += 1
            known = self._streams[session_id] = _Stream(stream.incarnation)
        for number in known.copies.keys() - stream.volumes.keys():
            del known.copies[number]
        for number, captured in stream.volumes.items():
            copy = known.copies.get(number)
            if (
                copy is None
                or copy.captured is not captured
                or (captured.copier is not None and captured.copier is not copy.copier)
            ):
                marks = captured.change_map.marked()
                pending = marks if captured.copier is not None else np.zeros_like(marks)
                known.copies[number] = _Copy(
                    captured,
                    captured.copier,
                    pending,
                    np.zeros_like(pending),
                    self._node.primary.stamper.last_ns,
                )
                if captured.change_map.was_suspected:
                    self._whole.add((session_id, number))
                if (session_id, number) not in self._whole:
                    check_only_dirty(self._history, self._key(captured), pending)

    def _follow_records(self, stream: SessionStream, message: RecordSet) -> None:
        known = self._streams.get(stream.document.session_id)
        records = np.frombuffer(message.headers, dtype=RECORD_DTYPE)
        if known is None or known.incarnation != stream.incarnation or not len(records):
            return
        is_image = records["kind"] & np.uint32(RecordKind.IMAGE) != 0
        if is_image.any() or any(copy.pending.any() for copy in known.copies.values()):
            for record, image in zip(records.tolist(), is_image.tolist(), strict=True):
                time_ns, number, track, track_count, _ = record
                copy = known.copies.get(number)
                if copy is None or time_ns <= max(known.seen_ns, copy.began_ns):
                    continue
                volume = self._key(copy.captured)
                if image:
                    check_copied_once(volume, copy.pending | copy.open, track, track_count)
                    copy.pending[track : track + track_count] = False
                    copy.open[track : track + track_count] = False
                    self.tracks_copied += track_count
                else:
                    check_image_first(volume, copy.pending & ~copy.open, track, track_count, time_ns)
        known.seen_ns = max(known.seen_ns, int(records["time_ns"][-1]))
