"""The primary's core on the event loop: links of movers in, messages out, and its timer.

The core is called from here and from the exports only, always between two steps of the loop, so it needs no
lock.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from isochrone.capture.actions import CloseLink, ReleaseHeld, SendDurably, SendMessage
from isochrone.capture.document import CaptureState
from isochrone.capture.links import PrimaryLinks
from isochrone.capture.primary import Primary
from isochrone.controller.activating import Activator
from isochrone.controller.spilling import SpillRunner
from isochrone.controller.unreadable_log import UnreadableLog
from isochrone.link.connection import Connection
from isochrone.link.messages import Hello, Message
from isochrone.model.errors import (
    BusyError,
    InternalError,
    IsochroneError,
    PoolReadOnlyError,
    ProtocolError,
    UnavailableError,
)
from isochrone.store.disk import Buffer
from isochrone.store.volume import Volume

TICK_INTERVAL_S: Final = 0.002
"""Between two ticks while sessions are captured: what heartbeats and small writes add to the lag."""
IDLE_TICK_INTERVAL_S: Final = 0.05
"""The same while there is no session."""
SEND_EARLY_BYTES: Final = 1 << 20
"""Captured bytes that are sent without waiting for the timer."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LinkHistory:
    """The link of one captured session: whether it is up, and since when by the wall clock."""

    is_up: bool
    since_wall_ns: int


class PrimaryShell:
    """Runs one Primary. Also the `Writer` of the exports, so that full batches leave at once.

    Args:
        flush: makes the pool durable; PoolReadOnlyError when the device failed.
        on_fatal: called with an error of the core that nobody expected.

    Attributes:
        batch_write_count: writes since the last `end_batch`; the exports count them.
        held_write_count: writes whose acknowledgement is delayed now.
        release_held: called when what waits for room may leave; set by whoever serves the exports.
    """

    def __init__(
        self,
        primary: Primary,
        links: PrimaryLinks,
        *,
        flush: Callable[[], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.primary = primary
        self.write: Callable[[Volume, int, Buffer], None] = primary.write
        self.batch_write_count = 0
        self.held_write_count = 0
        self.release_held: Callable[[], None] = lambda: None
        self._last_count = 0
        self._links = links
        self._flush = flush
        self._on_fatal = on_fatal
        self._answers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._connections: dict[int, Connection] = {}
        self._link_history: dict[str, LinkHistory] = {}
        self._states_told = {session_id: stream.state for session_id, stream in primary.streams.items()}
        self._activator = Activator(primary.activities, flush=flush, on_fatal=on_fatal)
        self._timer: asyncio.TimerHandle | None = None
        self._tick_is_near = False
        self._stopped = False
        self._trouble = ""
        self._unreadable = UnreadableLog()
        self._started_wall_ns = time.time_ns()
        self._spill = SpillRunner(primary, done=self._spill_went_on, on_fatal=on_fatal)

    def start(self) -> None:
        """Begin to tick. What could not be believed of the marks is told first."""
        distrusted = self.primary.distrusted
        if distrusted:
            suspicions = [one for volumes in distrusted.values() for one in volumes.values()]
            _log.warning(
                "change marks are not trusted",
                sessions=sorted(distrusted),
                volume_count=len(suspicions),
                suspected_regions=sum(one.suspected_count for one in suspicions),
                regions=sum(one.region_count for one in suspicions),
                reason="power was lost, the device failed to make writes durable, or files of marks are missing",
                consequence="these regions are copied again, as far as they differ, when their movers connect",
            )
        self._tick()

    async def wait_for_movers(self, wait_s_max: float) -> None:
        """Wait, before applications are served, until every mover has said whether its session was recovered meanwhile.

        After a restart a primary cannot know; a mover that recovered fences it with its first word. A mover that does
        not call within `wait_s_max` is not waited for.
        """
        began_s = self._loop.time()
        waiting = self._unheard()
        if not waiting or not wait_s_max:
            return
        _log.info("waiting for movers before NBD is served", sessions=waiting, wait_s_max=wait_s_max)
        while (waiting := self._unheard()) and self._loop.time() < began_s + wait_s_max:  # noqa: ASYNC110  # no event
            await asyncio.sleep(TICK_INTERVAL_S)
        if waiting:
            _log.warning(
                "movers have not called: serving without knowing whether their sessions were recovered",
                sessions=waiting,
            )

    def _unheard(self) -> list[str]:
        """Return the names of the sessions that may have been recovered elsewhere."""
        return sorted(
            stream.document.session_name
            for stream in self.primary.streams.values()
            if stream.link is None and not stream.document.awaits_appointment
        )

    def stop(self) -> None:
        """Tick no more and close all links; what was sent leaves, movers reconnect later."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections.values()):
            connection.close()

    async def stop_spill(self) -> None:
        """After `stop`: wait for what the spill is doing."""
        await self._spill.stop()

    # Writer of the exports

    def zero(self, volume: Volume, offset: int, length: int, *, allocate: bool) -> None:
        """Zero a range, see Primary.zero."""
        self.primary.zero(volume, offset, length, allocate=allocate)

    def has_durable_marks(self, number: int) -> bool:
        """Whether changes of volume `number` are to be prepared."""
        return self.primary.activities.has(number)

    def prepare(self, volume: Volume, changes: Sequence[tuple[int, int, bool]]) -> Awaitable[None] | None:
        """Return None if `changes` may be made at once, else what to wait for before they are."""
        if self.primary.activities.ask(volume, changes):
            return None
        return self._activator.activate()

    def end_batch(self, volume_number: int) -> int:
        """Seal a batch, see Primary.end_batch; send at once when much is waiting."""
        count = self.batch_write_count
        self.batch_write_count = 0
        hold_ns = self.primary.end_batch(volume_number, count)
        if hold_ns:
            self._last_count = count
            self.held_write_count += count
            self._loop.call_later(hold_ns / 1e9, self._release_hold, count)
        if not self._tick_is_near and self.primary.unsent_bytes >= SEND_EARLY_BYTES:
            self._tick_is_near = True
            self._loop.call_soon(self._tick)
        return hold_ns

    def room_wait_ns(self, volume_number: int) -> int:
        """Return how long the replies to the batch just ended wait for room, see Primary.room_wait_ns."""
        return self.primary.room_wait_ns(volume_number, self._last_count)

    def _release_hold(self, count: int) -> None:
        self.held_write_count -= count

    def write_refusal(self, number: int) -> str:
        """Return why writes to a volume are refused, see Primary.write_refusal."""
        return self.primary.write_refusal(number)

    async def stop_activating(self) -> None:
        """Wait for what is still being made durable of marks; after the last write."""
        await self._activator.stop()

    # Links

    def accept(self, connection: Connection) -> None:
        """Take over a connection that a mover has opened."""
        link = next(self._numbers)
        self._connections[link] = connection
        self._links.link_opened(link)
        connection.start(partial(self._received, link), partial(self._lost, link), self._writable)
        self._act()

    def link_history(self, session_id: str) -> LinkHistory:
        """Return the state of the link of a captured session."""
        return self._link_history.get(session_id) or LinkHistory(False, self._started_wall_ns)

    def forget(self, session_id: str) -> None:
        """Forget a captured session for a mover that will not come back. Raises NotFoundError."""
        try:
            self.primary.delete_stream(session_id)
        except (IsochroneError, OSError):
            raise
        except Exception as error:
            self._on_fatal(error)
            raise
        self._act()

    def _received(self, link: int, message: Message) -> None:
        if isinstance(message, Hello):
            self._connections[link].set_compression(message.compression)
        self._links.link_received(link, message)
        self._act(by_mover=True)

    def _writable(self) -> None:
        if not self._tick_is_near:
            self._tick_is_near = True
            self._loop.call_soon(self._tick)

    def _spill_went_on(self) -> None:
        """Records may have come back that a link waits for; a session may have lost some."""
        self._writable()
        self._act()

    def _lost(self, link: int, reason: IsochroneError | None) -> None:
        connection = self._connections.pop(link)
        if isinstance(reason, InternalError):
            self._on_fatal(reason.__cause__ or reason)
            return
        say = _log.warning if isinstance(reason, ProtocolError) else _log.info
        say("link closed", peer=connection.peer, reason=reason.message if reason else "closed here")
        self._links.link_lost(link)
        self._act()

    def _tick(self) -> None:
        """Let the core work, then set the timer anew."""
        if self._stopped:
            return
        self._tick_is_near = False
        try:
            for link, connection in self._connections.items():
                self._links.link_pending_bytes(link, connection.pending_bytes)
            self.primary.tick()
            self._activator.trim_if_due(self.primary.now_ns())
            self._trouble = ""
            self._unreadable.look(self.primary.streams.values(), self._loop.time())
        except (UnavailableError, OSError) as error:
            self._tell_trouble(str(error))
        except Exception as error:
            self._on_fatal(error)
            return
        self._act()
        self._spill.kick()
        if self._timer is not None:
            self._timer.cancel()
        interval_s = TICK_INTERVAL_S if self.primary.streams else IDLE_TICK_INTERVAL_S
        self._timer = self._loop.call_later(interval_s, self._tick)

    def _tell_trouble(self, text: str) -> None:
        """Log a trouble of the pool or the device once, not with every tick."""
        if text != self._trouble:
            self._trouble = text
            _log.warning("the capture core could not do its work", reason=text)

    def _act(self, *, by_mover: bool = False) -> None:
        for action in self.primary.take_actions():
            match action:
                case SendMessage(link, message):
                    self._send(link, message)
                case SendDurably(link, message):
                    task = self._loop.create_task(self._send_durably(link, message))
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)
                case ReleaseHeld():
                    self.release_held()
                case CloseLink(link, reason):
                    if link in self._connections:
                        _log.info("closing link", peer=self._connections[link].peer, reason=reason)
                        self._connections[link].close()
        self._note_links()
        self._tell_changes(by_mover=by_mover)

    async def _send_durably(self, link: int, message: Message) -> None:
        try:
            await self._flush()
        except PoolReadOnlyError:
            return  # logged by the syncer; the mover goes on asking
        self._send(link, message)

    def _send(self, link: int, message: Message) -> None:
        connection = self._connections.get(link)
        if connection is None:
            return
        try:
            connection.send(message)
        except BusyError as error:  # a peer that asks and does not read: it may come back
            _log.warning("link aborted", peer=connection.peer, reason=error.message)
            connection.abort()

    def _tell_changes(self, *, by_mover: bool) -> None:
        """Log changes of state; a suspension that no mover asked for is a warning."""
        for session_id, stream in self.primary.streams.items():
            state = stream.state
            if self._states_told.get(session_id) is not state:
                self._states_told[session_id] = state
                document = stream.document
                say = _log.warning if state is CaptureState.SUSPENDED and not by_mover else _log.info
                say(
                    "capture changed",
                    session=document.session_name,
                    state=state.value,
                    reason=document.reason,
                )
        for session_id in self._states_told.keys() - self.primary.streams.keys():
            del self._states_told[session_id]

    def _note_links(self) -> None:
        for session_id, stream in self.primary.streams.items():
            is_up = stream.link is not None
            known = self._link_history.get(session_id)
            if known is None or known.is_up != is_up:
                self._link_history[session_id] = LinkHistory(is_up, time.time_ns())
        for session_id in self._link_history.keys() - self.primary.streams.keys():
            del self._link_history[session_id]
