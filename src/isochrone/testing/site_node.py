"""A simulated controller that can be either side of a session: mover, primary, or both sides one after the other."""

from __future__ import annotations

from collections.abc import Callable

from isochrone.capture.actions import CloseLink, SendDurably, SendMessage
from isochrone.capture.links import PrimaryLinks
from isochrone.link.messages import Message
from isochrone.model.states import SessionState
from isochrone.session.document import SessionDocument
from isochrone.session.session import Session
from isochrone.testing.network import SimConnection
from isochrone.testing.sim_secondary import SecondaryNode


class SiteNode(SecondaryNode):
    """A SecondaryNode whose capture core also feeds movers.

    Attributes:
        inbound: open links of movers, by number.
    """

    feeding: PrimaryLinks

    def open_cores(self) -> None:
        """Restore what is captured here, and the session whose mover is here."""
        super().open_cores()
        self.inbound: dict[int, SimConnection] = {}
        self._next_link = 1
        self.feeding = PrimaryLinks(
            self.primary,
            self.identity,
            self.name,
            self.pool.track_size_bytes,
            lambda: f"{self.rng.getrandbits(128):032x}",
            refuse_volume=lambda _: "it is a secondary here" if self.is_secondary else "",
            is_mover_here=self._is_mover,
        )

    def _is_mover(self, session_id: str) -> bool:
        session = self.session
        return (
            session is not None
            and session.document.session_id == session_id
            and not session.document.is_over
            and not session.is_forgotten
        )

    @property
    def is_secondary(self) -> bool:
        """Whether the volumes are secondaries of the session here."""
        session = self.session
        return (
            session is not None
            and not session.is_forgotten
            and session.document.state is not SessionState.ENDED
        )

    def begin(self, document: SessionDocument) -> Session:
        """Begin a session with an image in service, as controller.SessionSet does."""
        if document.hold_floor_ns is not None:
            self.pool.commit(document.number, document.hold_floor_ns)
        return self.create_session(document)

    def died(self) -> None:
        """Every link breaks."""
        super().died()
        for connection in list(self.inbound.values()):
            connection.cut(f"{self.name} died")
        self.inbound.clear()

    def tick_cores(self) -> None:
        """Let both cores work."""
        for link, connection in self.inbound.items():
            self.feeding.link_pending_bytes(link, connection.to_mover.pending_bytes)
        self.primary.tick()
        self.act_as_primary()
        super().tick_cores()
        if self.session is not None and self.session.is_forgotten:
            self.session = None

    def act_as_primary(self) -> None:
        """Carry out what the capture core wants."""
        for action in self.primary.take_actions():
            match action:
                case SendMessage(link, message):
                    self._send_to_mover(link, message)
                case SendDurably(link, message):
                    self.flush(self._sender_to_mover(link, message))
                case CloseLink(link, reason):
                    self.after(self.rng.randrange(1, 5_000_000), self._closer(link, reason))

    def _send_to_mover(self, link: int, message: Message) -> None:
        connection = self.inbound.get(link)
        if connection is not None and connection.is_open:
            connection.to_mover.send(message)

    def _sender_to_mover(self, link: int, message: Message) -> Callable[[str], None]:
        return lambda error: None if error else self._send_to_mover(link, message)

    def _closer(self, link: int, reason: str) -> Callable[[], None]:
        def close() -> None:
            if link in self.inbound:
                self.inbound[link].cut(reason)

        return close

    def accept(self) -> tuple[int, Callable[[Message], None]]:
        """Open a link; returns its number and where the mover's messages go."""
        link = self._next_link
        self._next_link += 1
        life = self.life

        def received(message: Message) -> None:
            if self.life == life:
                self.guarded(lambda: self._received_as_primary(link, message))()

        self.feeding.link_opened(link)
        return link, received

    def _received_as_primary(self, link: int, message: Message) -> None:
        self.feeding.link_received(link, message)
        self.act_as_primary()

    def inbound_cut(self, link: int) -> None:
        """The link of a mover is gone."""
        if self.inbound.pop(link, None) is not None and self.is_up:
            self.guarded(lambda: self.feeding.link_lost(link))()
