"""A session's core on the event loop: links dialled, messages in and out, the pool's syncs it asks for.

The core says what is to be done; here it is done, and the core told how it went. A link that was closed or
lost is forgotten at once: whatever its connection still delivers belongs to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import structlog

from isochrone.controller.session_progress import PairCopy, SessionProgress
from isochrone.controller.stepping import drive
from isochrone.link.connection import Connection
from isochrone.link.endpoint import dial
from isochrone.link.messages import Message, RecordSet, Welcome
from isochrone.model.addresses import parse_address
from isochrone.model.errors import BusyError, InternalError, IsochroneError, PoolReadOnlyError, ProtocolError
from isochrone.model.records import RECORD_DTYPE
from isochrone.model.states import PairState, SessionState, SuspendCause
from isochrone.session.actions import CloseLink, Dial, Harden, Rewind, SendMessage
from isochrone.session.explain import pair_state
from isochrone.session.links import SessionLinks
from isochrone.session.session import Session

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SourceCount:
    """What was seen of one primary since the controller started.

    Attributes:
        last_error: of the newest attempt that failed or link that broke; None when there was none.
        ahead_ns: how far the primary's host time is ahead of ours, as well as messages in flight show it.
    """

    record_count: int = 0
    received_bytes: int = 0
    connect_count: int = 0
    last_error: str | None = None
    ahead_ns: int = 0


class SessionShell:
    """Runs one Session.

    Args:
        clock: host time in nanoseconds.
        flush: makes the pool durable; PoolReadOnlyError when the device failed.
        on_fatal: called with an error of the core that nobody expected.
    """

    def __init__(
        self,
        session: Session,
        links: SessionLinks,
        *,
        track_size_bytes: int,
        clock: Callable[[], int],
        flush: Callable[[], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.session = session
        self._links = links
        self.progress = SessionProgress()
        self.sources: dict[int, SourceCount] = {}
        self.track_size_bytes = track_size_bytes
        self._clock = clock
        self._flush = flush
        self._on_fatal = on_fatal
        self._connections: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble = ""
        self._state_told = session.document.state
        self._full_told = ""

    def source(self, number: int) -> SourceCount:
        """Return the counts of one primary."""
        return self.sources.setdefault(number, SourceCount())

    def tick(self) -> None:
        """Let the core work, and carry out what it wants."""
        self._guarded(self.session.tick)
        now_ns = self._clock()
        if self.progress.is_due(now_ns):
            self._sample(now_ns)

    def command(self, work: Callable[[], None]) -> None:
        """Give the core a command and carry out what follows. Raises what the command raises."""
        try:
            work()
        except (IsochroneError, OSError):
            raise
        except Exception as error:
            self._on_fatal(error)
            raise
        finally:
            self._state_told = self.session.document.state  # whoever commanded it says so
            self._act()

    async def stop(self) -> None:
        """Close all links and wait for what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a step of the core that nobody waits for."""
        try:
            work()
            self._trouble = ""
        except (IsochroneError, OSError) as error:
            self._tell_trouble(str(error))
        except Exception as error:
            self._on_fatal(error)
            return
        self._act()

    def _tell_trouble(self, text: str) -> None:
        """Log a trouble of the pool or the device once, not with every tick."""
        if text != self._trouble:
            self._trouble = text
            _log.warning("session cannot go on", session=self.session.document.name, reason=text)

    def _act(self) -> None:
        for action in self.session.take_actions():
            match action:
                case SendMessage(source, message, durably=True):
                    self._spawn(self._send_durably(source, self._connections.get(source), message))
                case SendMessage(source, message):
                    self._send(source, message)
                case Harden():
                    self._spawn(self._harden())
                case Rewind(at_ns):
                    self._spawn(self._rewind(at_ns))
                case Dial(source, address):
                    self._spawn(self._dial(source, address))
                case CloseLink(source, reason):
                    self._close(source, reason)
        self._tell_changes()

    def _tell_changes(self) -> None:
        """Log what nobody commanded: changes of state, and a pool that has no room for what is received."""
        document = self.session.document
        if document.state is not self._state_told:
            self._state_told = document.state
            # A suspension that an operator asked for may come to pass later, at its time.
            unasked = document.state is SessionState.SUSPENDED and document.cause is not SuspendCause.COMMAND
            say = _log.warning if unasked else _log.info
            say("session changed", session=document.name, state=document.state.value, reason=document.reason)
        full_reason = self.session.mover.full_reason
        if bool(full_reason) != bool(self._full_told):
            self._full_told = full_reason
            if full_reason:
                _log.warning("received writes wait for room", session=document.name, reason=full_reason)
            else:
                _log.info("received writes have room again", session=document.name)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[None]) -> None:
        assert isinstance(task, asyncio.Task)
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fatal(error)

    # Durability

    async def _harden(self) -> None:
        try:
            await self._flush()
        except PoolReadOnlyError as error:
            self._guarded(partial(self.session.harden_failed, error.message))
        else:
            self._guarded(self.session.hardened)

    async def _rewind(self, at_ns: int) -> None:
        """Take the volumes back. What follows must not be interrupted: they come into service with marks of what changed."""
        session = self.session
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewind") as thread:
            try:
                changed = await drive(session.pool.history_rewind(session.document.number, at_ns), thread)
            except (IsochroneError, OSError) as error:
                self._tell_trouble(str(error))
                self._guarded(partial(session.recovery.rewind_failed, error))
            else:
                self._guarded(partial(session.recovery.rewound, changed))

    # Links

    async def _dial(self, source: int, address: str) -> None:
        try:
            connection = await dial(parse_address(address))
        except IsochroneError as error:
            self.source(source).last_error = error.message
            self._guarded(partial(self._links.link_lost, source, error.message))
            return
        self._connections[source] = connection
        self.source(source).connect_count += 1
        connection.accept_record_sets(self.track_size_bytes)
        connection.start(partial(self._received, source, connection), partial(self._lost, source, connection))
        _log.info(
            "link opened",
            session=self.session.document.name,
            primary=self.session.document.sources[source].name,
            peer=connection.peer,
        )
        self._guarded(partial(self._links.link_opened, source))

    def _received(self, source: int, connection: Connection, message: Message) -> None:
        if self._connections.get(source) is not connection:
            return
        if isinstance(message, RecordSet):
            self._count(source, message)
        elif isinstance(message, Welcome):
            self.source(source).ahead_ns = message.now_ns - self._clock()
        try:
            self._links.link_received(source, message)
        except (IsochroneError, OSError) as error:
            self._tell_trouble(str(error))
        self._act()

    def _count(self, source: int, records: RecordSet) -> None:
        count = self.source(source)
        count.record_count += len(records.headers) // RECORD_DTYPE.itemsize
        count.received_bytes += len(records.headers) + len(records.payload)
        count.ahead_ns = max(count.ahead_ns, records.through_ns - self._clock())

    def _lost(self, source: int, connection: Connection, reason: IsochroneError | None) -> None:
        if self._connections.get(source) is not connection:
            return
        del self._connections[source]
        if isinstance(reason, InternalError):
            self._on_fatal(reason.__cause__ or reason)
            return
        text = reason.message if reason is not None else "closed"
        self.source(source).last_error = text
        say = _log.warning if isinstance(reason, ProtocolError) else _log.info
        say("link lost", session=self.session.document.name, peer=connection.peer, reason=text)
        damaged = isinstance(reason, ProtocolError)
        self._guarded(partial(self._links.link_lost, source, text, damaged=damaged))

    async def _send_durably(self, source: int, connection: Connection | None, message: Message) -> None:
        try:
            await self._flush()
        except PoolReadOnlyError:
            return  # logged by the syncer
        if connection is not None and self._connections.get(source) is connection:
            self._send(source, message)

    def _send(self, source: int, message: Message) -> None:
        connection = self._connections.get(source)
        if connection is None:
            return
        try:
            connection.send(message)
        except BusyError as error:  # the peer does not read; the core dials again
            _log.warning("link aborted", peer=connection.peer, reason=error.message)
            connection.abort()

    def _close(self, source: int, reason: str) -> None:
        connection = self._connections.pop(source, None)
        if connection is not None:
            self.source(source).last_error = reason
            _log.info("link closed", session=self.session.document.name, peer=connection.peer, reason=reason)
            connection.close()

    # Progress

    def _sample(self, now_ns: int) -> None:
        session = self.session
        copies = {}
        for pair in session.document.pairs:
            if pair_state(session, pair) is PairState.COPY and pair.primary_number is not None:
                tracks = session.contacts[pair.source].tracks_remaining.get(pair.primary_number)
                if tracks is not None:
                    copies[pair.secondary_volume] = PairCopy(pair.source, pair.priority, tracks)
        self.progress.sample(
            now_ns,
            record_count=session.mover.records_received,
            byte_count=session.mover.bytes_received,
            copies=copies,
        )
