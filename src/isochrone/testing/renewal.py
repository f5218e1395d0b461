"""Deletes the session of a simulated world and creates it anew: a new id, the same primaries, new secondary volumes.

The deletion may meet crashes at both sites, and power losses that undo it; like an operator's script, the renewal asks again
until the old session is forgotten for good and the new one is there for good. Where a deletion was forced, primaries that
could not be told still hold the old session, and refuse the new one until it is deleted there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from isochrone.session.session import Session
from isochrone.testing.events import MILLISECOND_NS
from isochrone.testing.sim_primary import PrimaryNode

if TYPE_CHECKING:
    from isochrone.testing.world import World

LOOK_NS = 20 * MILLISECOND_NS


class Renewal:
    """Renews the session of one world.

    Attributes:
        is_under_way: the old session is going, or the new one is not surely there.
        session_id: of the session that is wanted.
    """

    def __init__(self, world: World, session_id: str) -> None:
        self.is_under_way = False
        self.session_id = session_id
        self.number = 1
        self._world = world
        self._rng = world.rng
        self._is_forced = False

    def begin(self) -> None:
        """Delete the session, and create the next one."""
        session = self._world.secondary.session
        is_busy = session is None or session.document.is_over or session.is_draining
        if self.is_under_way or not self._world.checking or session is None or is_busy:
            return
        self._world.tally.sessions_renewed += 1
        self.is_under_way = True
        self.number += 1
        self.session_id = f"{self.number:032x}"
        self._is_forced = self._rng.random() < 0.3
        for pair in session.document.pairs:
            self._world.operator.watch(pair)
        self._go_on()

    def _go_on(self) -> None:
        secondary = self._world.secondary
        if secondary.is_up:
            session = secondary.session
            if session is not None and session.is_forgotten:
                secondary.session = session = None
            if session is None:
                secondary.guarded(self._world.create_session)()
                secondary.guarded(lambda: secondary.flush(self._created))()
            elif session.document.session_id == self.session_id:
                secondary.guarded(lambda: secondary.flush(self._created))()
            else:
                if not session.is_deleting:
                    self._delete()
                self._clear_the_way(session)
        if self.is_under_way:
            self._world.events.after(LOOK_NS, self._go_on)

    def _delete(self) -> None:
        # What a restart or a power loss brought back is deleted anew.
        self._world.operate(lambda session: session.delete(force=self._is_forced))

    def _clear_the_way(self, session: Session) -> None:
        """Do what refusals advise: delete the next session where it came too early, as this one was brought back."""
        for source, contact in session.contacts.items():
            node = self._world.primaries[source]
            if "belongs to another session" in contact.error and node.is_up:
                node.guarded(self._cleaner(node, session.document.session_id))()

    def _created(self, error: str) -> None:
        session: Session | None = self._world.secondary.session
        if not error and session is not None and session.document.session_id == self.session_id:
            self.is_under_way = False

    def clean_up(self) -> None:
        """Delete at the primaries what a forced deletion left there."""
        if self.is_under_way:
            return
        for node in self._world.primaries:
            if node.is_up:
                node.guarded(self._cleaner(node, self.session_id))()

    @staticmethod
    def _cleaner(node: PrimaryNode, kept: str) -> Callable[[], None]:
        def clean() -> None:
            for session_id in sorted(node.primary.streams.keys() - {kept}):
                node.primary.delete_stream(session_id)
            node.act()

        return clean
