"""Looks into the past of a simulated session: images of any instant, named instants, and what becomes of both.

In some worlds the secondary keeps a history. Images are made as a controller makes them, in steps between
which everything goes on and anything may die; each is compared with the writes up to its instant, at once and again
before it is discarded, when more was committed and the image was written itself. What may be asked for is drawn from what
happened: the times of writes, what is just before them, named instants, the ends and the insides of gaps.

Drawn apart from what else a seed decides: a world without a history is what it was before there were any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from isochrone.capture.instants import Instant, InstantState
from isochrone.model.errors import IsochroneError
from isochrone.model.volume_kind import IMAGE_MARK, VolumeKind
from isochrone.session.image_document import ImageDocument, images_in
from isochrone.session.images import ImagePlan, holds, plan_at
from isochrone.session.session import Session
from isochrone.store.volume_set import CopyItem
from isochrone.testing.application import volume_key
from isochrone.testing.events import MILLISECOND_NS, SECOND_NS
from isochrone.testing.history import expand
from isochrone.testing.node import Steps
from isochrone.testing.properties import (
    check_apart,
    check_changes_marked,
    check_exact,
    check_images_whole,
    check_instant_between,
    check_instants_known,
    check_no_trace,
    check_still_reached,
)

if TYPE_CHECKING:
    from isochrone.testing.world import World

SHARE: Final = 0.3
"""Of all worlds: their sessions keep a history."""
VISIT_MS: Final = (80, 400)
DRAWS_MAX: Final = 20
LOOKS_AT_THE_END: Final = 2
ROOM_TRACKS: Final = 4000
"""What the secondary's pool has more, in most worlds with a history."""
GOES_BACK_SHARE: Final = 0.3
"""Of those that end in a disaster: they recover to an instant of the history."""
WRITTEN_TOKEN: Final = b"by a failover   "
"""What is written to an image."""


@dataclass(slots=True)
class Made:
    """An image there is.

    Attributes:
        contents: what each of its volumes is to hold, track by track.
        is_durable: a sync that began after it was made has ended.
    """

    document: ImageDocument
    contents: dict[str, list[bytes]] = field(default_factory=dict)
    is_durable: bool = False
    is_written: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """An instant that was named, and what had happened in the history by then."""

    instant: Instant
    session_id: str
    event: int


class LookingBack:
    """Visits the past of one world now and then.

    Attributes:
        is_on: the world's sessions keep a history, for `window_ns` and at most `bytes_max` (0: any).
        room_tracks: what the secondary's pool needs for that.
        goes_back: should it end in a disaster.
    """

    def __init__(self, world: World, *, keeps_history: bool | None) -> None:
        """`keeps_history` None: as chance will have it."""
        self._world = world
        self._rng = rng = Random(f"past {world.seed}")
        drawn = rng.random() < SHARE
        self.is_on = drawn if keeps_history is None else keeps_history
        self.window_ns = rng.choice((SECOND_NS // 2, 60 * SECOND_NS, 60 * SECOND_NS)) if self.is_on else 0
        self.bytes_max = rng.choice((0, 0, 400 * 4096))
        self.room_tracks = rng.choice((0, ROOM_TRACKS, ROOM_TRACKS)) if self.is_on else 0
        self.goes_back = self.is_on and (keeps_history is not None or rng.random() < GOES_BACK_SHARE)
        self._images: dict[str, Made] = {}
        self._count = 0
        self._named: list[Named] = []
        self._seen: dict[str, list[int]] = {}
        self._is_making = False

    def begin(self) -> None:
        """Begin to look."""
        if self.is_on:
            self._visit_later()

    def _visit_later(self) -> None:
        self._world.events.after(self._rng.randrange(*VISIT_MS) * MILLISECOND_NS, self._visit)

    def _session(self) -> Session | None:
        return self._world.secondary.session if self._world.secondary.is_up else None

    def _visit(self) -> None:
        if not self._world.checking:
            return
        session = self._session()
        if session is not None and not session.is_forgotten:
            self._see(session)
            self._check_named(session)
            chance = self._rng.random()
            if self._images and chance < 0.3:
                self._world.secondary.guarded(partial(self._discard, self._rng.choice(list(self._images))))()
            elif chance < 0.75:
                self._world.secondary.guarded(lambda: self._make(session))()
            else:
                self._name_an_instant(session)
        self._visit_later()

    # What can be reached

    def _see(self, session: Session) -> None:
        """Note the committed image of a session that is whole and kept: it stays within reach until it is given up."""
        stats, pairs = session.history.stats, session.document.pairs
        reach = session.history.reach()
        seen = self._seen.setdefault(session.document.session_id, [])
        check_still_reached(seen, reach.first_ns, reach.through_ns, partial(holds, reach, session))
        if stats is None or session.document.hold_floor_ns is not None or session.document.is_over:
            return
        kept = {stay.number for stay in stats.volumes if stay.until_ns is None}
        if pairs and all(pair.duplex and pair.secondary_number in kept for pair in pairs):
            seen.append(session.mover.consistency_ns)

    def draw_instant(self, session: Session) -> int:
        """Return an instant to ask for: of all kinds, mostly within reach."""
        rng, reach = self._rng, session.history.reach()
        first_ns = reach.through_ns if reach.first_ns is None else reach.first_ns
        edges = [edge for gap in reach.gaps for edge in (gap.from_ns, gap.to_ns) if edge]
        stamped = [w.time_ns for w in self._world.history.stamped() if w.time_ns and w.time_ns >= first_ns]
        stamped = [time_ns for time_ns in stamped if time_ns <= reach.through_ns]
        kinds: list[Sequence[int]] = [
            [first_ns, reach.through_ns],
            range(first_ns, max(first_ns, reach.through_ns) + 1),
            stamped[-200:],
            stamped,
            edges,
            [named.instant.time_ns for named in self._named],
        ]
        return rng.choice(rng.choice([kind for kind in kinds if kind])) + rng.choice((0, 0, 0, -1, 1))

    def held_instant(self, *, by_all_pairs: bool = False) -> int | None:
        """Return an instant that can be reached now, None when chance found none.

        Args:
            by_all_pairs: of every pair there is now: those that joined later have no image of earlier times.
        """
        session = self._session()
        stats = session.history.stats if session is not None else None
        if session is None or not self.is_on:
            return None
        from_ns = (
            max((stay.from_ns for stay in stats.volumes if stay.until_ns is None), default=0) if stats else 0
        )
        reach = session.history.reach()
        for _ in range(DRAWS_MAX):
            at_ns = self.draw_instant(session)
            if holds(reach, session, at_ns) and not (by_all_pairs and at_ns < from_ns):
                return at_ns
        return None

    # Images

    def _make(self, session: Session) -> None:
        """Make the image of an instant, if it can be reached."""
        at_ns = self.draw_instant(session)
        if self._is_making:
            return
        if not holds(session.history.reach(), session, at_ns):
            self._world.tally.instants_refused += 1
            return
        self._count += 1
        try:
            plan = plan_at(session, f"i{self._count}", at_ns)
        except IsochroneError:
            self._world.tally.instants_refused += 1
            return
        self._is_making = True
        life = self._world.secondary.life

        def ended(error: str) -> None:
            self._is_making = False
            if self._world.secondary.life == life:
                self._made(plan, error)

        self._world.secondary.drive(self._making(session, plan), ended)

    def _making(self, session: Session, plan: ImagePlan) -> Steps:
        pool = self._world.secondary.pool
        documents = {plan.document.key: plan.document.dump()}
        if plan.history_ns is None:
            pool.create_copies(
                [CopyItem(number, name, VolumeKind.IMAGE) for number, name in plan.names.items()], documents
            )
            return
        yield from pool.history_image(
            session.document.number, plan.history_ns, plan.names, VolumeKind.IMAGE, documents
        )

    def _made(self, plan: ImagePlan, error: str) -> None:
        pool = self._world.secondary.pool
        if error:
            self._world.tally.images_failed += 1
            left = [name for name in plan.names.values() if name in pool.volumes]
            check_no_trace(plan.document.key, left, is_known=plan.document.key in pool.documents)
            return
        made = self._images[plan.document.key] = Made(plan.document)
        self._world.tally.images_made += 1
        self._check_image(made)

        def flushed(flush_error: str) -> None:
            made.is_durable = not flush_error

        self._world.secondary.flush(flushed)
        if self._rng.random() < 0.5:
            self._write(made)

    def _check_image(self, made: Made) -> None:
        """All volumes of an image together are the writes up to its instant, and none later (promise 1)."""
        world, document = self._world, made.document
        tokens = world.history.state_then(document.at_ns)
        for member in document.members:
            key = self._key(member.secondary)
            tracks = world.history.split_tracks(world.judge.read(member.volume))
            made.contents[member.volume] = tracks
            check_exact(world.history, key, tracks, tokens, document.at_ns)

    def _key(self, secondary: str) -> str:
        """Return what the history calls the primary of a secondary volume, which is named after it."""
        primary, volume, *_ = secondary.split("-")
        return volume_key(next(node for node in self._world.primaries if node.name == primary), volume)

    def _write(self, made: Made) -> None:
        """Somebody tries the failover: what is written to an image is nowhere else (P5.3)."""
        name = self._rng.choice(sorted(made.contents))
        tracks, size = made.contents[name], self._world.history.track_size_bytes
        track, content = self._rng.randrange(len(tracks)), expand(WRITTEN_TOKEN, size)
        pool = self._world.secondary.pool
        del self._images[made.document.key]  # nobody would know what it holds if this were cut short
        try:
            pool.volumes[name].write(track * size, content)
            pool.log_write()
        except (IsochroneError, OSError):
            return
        self._images[made.document.key] = made
        tracks[track] = content
        made.is_written = True

    def _discard(self, key: str) -> None:
        """Look at an image once more, and delete it: what it held alone comes back (P5.6)."""
        made, pool = self._images.pop(key), self._world.secondary.pool
        for name, contents in made.contents.items():
            found = self._world.history.split_tracks(self._world.judge.read(name))
            check_apart(name, contents, found)
        self._delete(made.document)
        pool.verify()

    def _delete(self, document: ImageDocument) -> None:
        pool = self._world.secondary.pool
        try:
            pool.delete_volumes([member.volume for member in document.members], {document.key: None})
        except (IsochroneError, OSError):
            self._world.tally.images_failed += 1

    def secondary_restarted(self, *, power_lost: bool) -> None:
        """Every image is there whole, or not at all; those that were surely there still are."""
        if not self.is_on or not self._world.secondary.is_up:
            return
        self._is_making = False
        pool = self._world.secondary.pool
        pool.verify()
        found = {document.key: document for document in images_in(pool.documents)}
        members = {member.volume for document in found.values() for member in document.members}
        images = {name for name in pool.volumes if IMAGE_MARK in name}
        gone = [
            key
            for key, made in self._images.items()
            if key not in found and (made.is_durable or not power_lost)
        ]
        check_images_whole(images, members, gone)
        self._images = {
            key: made
            for key, made in self._images.items()
            if key in found and not (power_lost and made.is_written)
        }
        for key, document in found.items():
            if key not in self._images:
                self._world.secondary.guarded(partial(self._delete, document))()

    # Named instants

    def _name_an_instant(self, session: Session) -> None:
        node = self._rng.choice(self._world.primaries)
        stream = node.primary.streams.get(session.document.session_id) if node.is_up else None
        if stream is None:
            return

        def name() -> None:
            try:
                instant = stream.name_instant(f"instant {len(self._named)}")
            except IsochroneError:
                return
            node.act()
            history = self._world.history
            self._named.append(Named(instant, session.document.session_id, history.event_count))
            self._world.tally.instants_named += 1

        node.guarded(name)()

    def _check_named(self, session: Session) -> None:
        """What a primary was told is hardened is known here (PR.4)."""
        first_ns = session.history.reach().first_ns or 0
        confirmed = {
            named.instant.time_ns: named.instant.text
            for named in self._named
            if named.session_id == session.document.session_id
            and named.instant.state is InstantState.HARDENED
            and named.instant.time_ns >= first_ns
        }
        known = {instant.time_ns: instant.text for instant in session.history.document.instants}
        check_instants_known(confirmed, known)

    # The end

    def recovered(self) -> None:
        """The session has ended: if it went back, what changed since is marked, and the image that it left is kept."""
        world, session = self._world, self._session()
        assert session is not None
        document = session.document
        if not document.rewound_from_ns:
            return
        world.tally.rewinds += 1
        history = world.history
        then = dict(history.state_then(document.recovered_ns))
        left = history.state_then(document.rewound_from_ns)
        marked = session.own_marks.marked(document.session_id) or {}
        for pair in document.pairs:
            key = self._key(pair.secondary_volume)
            tracks = marked.get(pair.secondary_number or -1)
            check_changes_marked(key, history.track_counts[key], then, left, tracks)
            kept = world.judge.read(f"{pair.secondary_volume}@{document.kept_copy}")
            if pair.complete and not pair.image_ns:
                check_exact(history, key, history.split_tracks(kept), left, document.rewound_from_ns)

    def finish(self) -> None:
        """The world is over: a few more instants of all that is kept, and what was named stood where it was named."""
        history = self._world.history
        for named in self._named:
            check_instant_between(history, named.instant.time_ns, named.event)
        for _ in range(LOOKS_AT_THE_END if self.is_on else 0):
            session = self._session()
            if session is None or session.is_forgotten:
                return
            self._check_named(session)
            at_ns = self.held_instant()
            if at_ns is not None and session.history.stats is not None:
                self._count += 1
                self._look_at(session, at_ns)

    def _look_at(self, session: Session, at_ns: int) -> None:
        """Make an image at one stroke, look at it and delete it."""
        with self._world.secondary.unharmed():
            try:
                plan = plan_at(session, f"i{self._count}", at_ns)
                for call in self._making(session, plan):
                    call()
            except IsochroneError:
                self._world.tally.images_failed += 1
                return
            made = Made(plan.document)
            self._world.tally.images_made += 1
            self._check_image(made)
            self._delete(plan.document)
