"""A simulated secondary controller: one session of the product over a simulated disk and network."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from isochrone.capture.own_marks import OwnMarks
from isochrone.capture.primary import Primary
from isochrone.capture.settings import CaptureSettings
from isochrone.link.messages import Message
from isochrone.model.errors import IsochroneError
from isochrone.model.states import SessionState
from isochrone.session.actions import CloseLink, Dial, Harden, Rewind, SendMessage
from isochrone.session.document import DOCUMENT_PREFIX, SessionDocument, load_document
from isochrone.session.links import SessionLinks
from isochrone.session.retry_budget import OVER_BUDGET
from isochrone.session.session import Session
from isochrone.session.settings import SessionSettings
from isochrone.store.durability import Steps
from isochrone.testing.events import MILLISECOND_NS, Events
from isochrone.testing.network import SimConnection
from isochrone.testing.node import Node
from isochrone.testing.properties import check_patience
from isochrone.testing.sim_disk import SimDisk

DialFn = Callable[["SecondaryNode", int, str], "SimConnection | None"]
"""Connects to an address for a source number; None when nobody answers."""


class SecondaryNode(Node):
    """The session and mover cores of the product on a simulated controller.

    Attributes:
        capture_settings: of the capture core, from the next start on.
        session: the session, once there is one.
        primary: the capture core, which marks what is written to a recovered session's volumes.
        connections: open links by source number.
        trouble_count: errors of the pool or the device that a step of the core met.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        events: Events,
        rng: Random,
        disk: SimDisk,
        settings: SessionSettings,
        dial: DialFn,
    ) -> None:
        super().__init__(name, events, rng, disk)
        self.identity = identity
        self.settings = settings
        self.capture_settings = CaptureSettings()
        self.session: Session | None = None
        self._journal_seen_ns: dict[str, int] = {}
        self._hardened_ns: dict[str, int] = {}
        self.trouble_count = 0
        self.links: SessionLinks
        self.primary: Primary
        self.connections: dict[int, SimConnection] = {}
        self._dial = dial

    def open_cores(self) -> None:
        """Restore the session, and go on with a recovery that a crash interrupted."""
        self.session = None
        now_ns = self.events.now_ns
        self.primary = Primary(self.pool, self.disk, now_ns, self.capture_settings, now_ns())
        for key, value in self.pool.documents.items():
            if key.startswith(DOCUMENT_PREFIX):
                self._open_session(load_document(key, value)).continue_recovery()

    def _open_session(self, document: SessionDocument) -> Session:
        self.session = Session(
            self.pool,
            document,
            self.events.now_ns,
            self.rng.random,
            self.settings,
            OwnMarks(self.primary, self.identity, self.name),
        )
        self.links = SessionLinks(self.session, self.pool, self.identity, self.name)
        return self.session

    def create_session(self, document: SessionDocument) -> Session:
        """Begin a session."""
        session = self._open_session(document)
        session.remember(document)
        return session

    def close_cores(self) -> None:
        """Make the marks durable."""
        self.primary.close()

    def _see_journal(self, session: Session) -> None:
        session_id = session.document.session_id
        self._journal_seen_ns[session_id] = max(self.journal_seen_of(session_id), session.mover.journal_ns)

    def journal_seen_of(self, session_id: str) -> int:
        """Return the newest J of any life of a session: nothing later is surely hardened."""
        return self._journal_seen_ns.get(session_id, 0)

    @property
    def journal_seen_ns(self) -> int:
        """The same for the present session."""
        return self.journal_seen_of(self.session.document.session_id) if self.session else 0

    @property
    def hardened_ns(self) -> int:
        """The newest J of any life that a sync confirmed while no resync had gaps before it.

        Whatever is older must outlive all that happens here.
        """
        return self._hardened_ns.get(self.session.document.session_id, 0) if self.session else 0

    def died(self) -> None:
        """Every link breaks."""
        for connection in list(self.connections.values()):
            connection.cut(f"{self.name} died")
        self.connections.clear()

    def tick_cores(self) -> None:
        """Let the session work; then act."""
        if self.session is not None:
            was_active = self.session.document.state is SessionState.ACTIVE
            self._trying(self.session.tick)
            if was_active:
                self._check_patience(self.session)
            self._see_journal(self.session)
            self.act()

    @staticmethod
    def _check_patience(session: Session) -> None:
        """A session that this tick has suspended for waiting tracks had used up its budget (P6.3)."""
        document, waiting = session.document, session.mover.waiting_summary()
        if document.state is SessionState.SUSPENDED and document.reason.startswith(OVER_BUDGET):
            age_ns = 0 if waiting.since_ns is None else session.now_ns() - waiting.since_ns
            budget = (document.retry_ns_max, document.retry_tracks_max)
            check_patience(True, age_ns, waiting.track_count, budget)

    def _trying(self, work: Callable[[], None]) -> None:
        """Run a step of the core; a trouble of the pool or the device is for the log, as in the controller."""
        try:
            work()
        except (IsochroneError, OSError):
            self.trouble_count += 1

    def act(self) -> None:
        """Carry out what the session wants."""
        session = self.session
        if session is None:
            return
        for action in session.take_actions():
            match action:
                case SendMessage(source, message, durably):
                    connection = self.connections.get(source)
                    if connection is not None and durably:
                        self.flush(self._sender(connection, message))
                    elif connection is not None and connection.is_open:
                        connection.to_primary.send(message)
                case CloseLink(source, reason):
                    connection = self.connections.pop(source, None)
                    if connection is not None:
                        connection.cut(reason)
                case Dial(source, address):
                    self.after(self.rng.randrange(1, 5 * MILLISECOND_NS), self._dialler(source, address))
                case Harden():
                    self.flush(self._hardened)
                case Rewind(at_ns):
                    self.drive(self._rewinding(session, at_ns), lambda _: self.act())

    def _rewinding(self, session: Session, at_ns: int) -> Steps:
        try:
            changed = yield from self.pool.history_rewind(session.document.number, at_ns)
        except (IsochroneError, OSError) as error:
            session.recovery.rewind_failed(error)
        else:
            session.recovery.rewound(changed)

    def _sender(self, connection: SimConnection, message: Message) -> Callable[[str], None]:
        def send(error: str) -> None:
            if not error and connection.is_open:
                connection.to_primary.send(message)

        return send

    def _hardened(self, error: str) -> None:
        if self.session is None:
            return
        if error:
            self.session.harden_failed(error)
        else:
            self.session.hardened()
            if self.session.document.hold_floor_ns is None:
                session_id = self.session.document.session_id
                self._hardened_ns[session_id] = max(self.hardened_ns, self.session.mover.journal_ns)
            self._see_journal(self.session)
        self.act()

    def _dialler(self, source: int, address: str) -> Callable[[], None]:
        def dial() -> None:
            connection = self._dial(self, source, address)
            if connection is None:
                self.links.link_lost(source, "nobody answers")
                return
            self.connections[source] = connection
            self.links.link_opened(source)
            self.act()

        return dial

    # Links

    def received(self, source: int, connection: SimConnection, message: Message) -> None:
        """A message has arrived on a link."""
        if self.is_up and self.connections.get(source) is connection:
            self.guarded(lambda: self._received(source, message))()

    def _received(self, source: int, message: Message) -> None:
        self._trying(lambda: self.links.link_received(source, message))
        self.act()

    def link_cut(self, source: int, connection: SimConnection, reason: str) -> None:
        """The link is gone."""
        if self.connections.get(source) is connection:
            del self.connections[source]
            if self.is_up:
                damaged = reason.startswith("refused:")
                self.guarded(lambda: self.links.link_lost(source, reason, damaged=damaged))()
