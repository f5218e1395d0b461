"""All sessions whose mover runs in this controller: restored at start, created, ticked, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from isochrone.api.requests import AddPairsRequest, SessionRequest
from isochrone.controller.session_settings import chosen_pair_pace, chosen_settings
from isochrone.controller.session_shell import SessionShell
from isochrone.model.errors import BusyError, ConflictError, NotFoundError
from isochrone.model.states import SessionState
from isochrone.session import transitions
from isochrone.session.document import DOCUMENT_PREFIX, SessionDocument, SourceDocument, load_document
from isochrone.session.links import SessionLinks
from isochrone.session.own_marks import OwnMarks
from isochrone.session.rewinding import KeepImage
from isochrone.session.session import Session
from isochrone.session.settings import SessionSettings
from isochrone.store.pool import Pool

TICK_INTERVAL_S: Final = 0.005
"""Between two ticks while there are sessions: half of it adds to the lag."""
IDLE_TICK_INTERVAL_S: Final = 0.05
"""The same while there is none."""
SESSIONS_MAX: Final = 256


class SessionSet:
    """The sessions by name.

    Args:
        own_marks: of what applications write to recovered sessions' volumes here.
        mover_id, mover_name: identity of this controller.
        jitter: draws from [0, 1) to spread reconnects.
        new_identity: draws a fresh identity (32 hexadecimal digits).
        keep_image: makes a copy of the volumes that a recovery to an earlier time changes.
    """

    def __init__(
        self,
        pool: Pool,
        own_marks: OwnMarks,
        *,
        mover_id: str,
        mover_name: str,
        clock: Callable[[], int],
        jitter: Callable[[], float],
        new_identity: Callable[[], str],
        keep_image: KeepImage,
        flush: Callable[[], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._pool = pool
        self._own_marks = own_marks
        self._mover_id = mover_id
        self._mover_name = mover_name
        self._clock = clock
        self._jitter = jitter
        self._new_identity = new_identity
        self._keep_image = keep_image
        self._flush = flush
        self._on_fatal = on_fatal
        self._shells: dict[str, SessionShell] = {}
        self._timer: asyncio.TimerHandle | None = None
        for key, value in pool.documents.items():
            if key.startswith(DOCUMENT_PREFIX):
                self._add(load_document(key, value))

    def __iter__(self) -> Iterator[SessionShell]:
        """Yield the sessions by name."""
        return iter([self._shells[name] for name in sorted(self._shells)])

    def __contains__(self, name: str) -> bool:
        return name in self._shells

    def get(self, name: str) -> SessionShell:
        """Return the session `name`. Raises NotFoundError."""
        shell = self._shells.get(name)
        if shell is None:
            raise NotFoundError(
                f"no session {name!r} has its mover here; see `isochrone session list`", name=name
            )
        return shell

    def secondary_of(self, volume: str) -> str:
        """Return the name of the session, not ENDED, that `volume` is a secondary of, "" if none."""
        for shell in self._shells.values():
            document = shell.session.document
            if document.state is not SessionState.ENDED and any(
                pair.secondary_volume == volume for pair in document.pairs
            ):
                return document.name
        return ""

    def owner_of(self, volume: str) -> str:
        """Return the session, as `secondary_of` does; "" also for a volume that was found not to fit its pair.

        No session has it then: to resize or delete it is the cure.
        """
        for shell in self._shells.values():
            session = shell.session
            if session.document.state is not SessionState.ENDED and any(
                pair.secondary_volume == volume and not session.is_left_out(pair)
                for pair in session.document.pairs
            ):
                return session.document.name
        return ""

    # Life

    def start(self) -> None:
        """Go on where the restored sessions stood, and begin to tick."""
        for shell in self:
            shell.command(shell.session.continue_recovery)
        self._tick()

    async def stop(self) -> None:
        """Tick no more and close all links."""
        if self._timer is not None:
            self._timer.cancel()
        for shell in self:
            await shell.stop()

    def _tick(self) -> None:
        for shell in list(self._shells.values()):
            shell.tick()
            if shell.session.is_forgotten:
                self._drop(shell)
        interval_s = TICK_INTERVAL_S if self._shells else IDLE_TICK_INTERVAL_S
        self._timer = asyncio.get_running_loop().call_later(interval_s, self._tick)

    def _drop(self, shell: SessionShell) -> None:
        """Drop a session; one that bears its name by now stays."""
        name = shell.session.document.name
        if self._shells.get(name) is shell:
            del self._shells[name]

    def _add(self, document: SessionDocument) -> SessionShell:
        session = Session(self._pool, document, self._clock, self._jitter, SessionSettings(), self._own_marks)
        session.recovery.keep_image = self._keep_image
        shell = SessionShell(
            session,
            SessionLinks(session, self._pool, self._mover_id, self._mover_name),
            track_size_bytes=self._pool.track_size_bytes,
            clock=self._clock,
            flush=self._flush,
            on_fatal=self._on_fatal,
        )
        self._shells[document.name] = shell
        return shell

    # Commands

    def create(self, request: SessionRequest) -> SessionShell:
        """Begin a session. The caller has checked its secondary volumes.

        Raises:
            ConflictError: the name is taken.
                BusyError: SESSIONS_MAX sessions are here.
        """

        def make(number: int, now_ns: int) -> SessionDocument:
            document = SessionDocument(
                session_id=self._new_identity(), name=request.name, number=number, since_ns=now_ns
            )
            document = transitions.with_settings(document, **chosen_settings(request))
            document = transitions.with_pairs_added(document, *source_and_pairs(request))
            document = transitions.with_priorities(document, request.priorities or {})
            return transitions.with_pair_pace(document, chosen_pair_pace(request))

        return self.begin(request.name, make)

    def begin(self, name: str, make: Callable[[int, int], SessionDocument]) -> SessionShell:
        """Begin the session that `make` returns for a number in the pool's records and the present. Raises as `create`.

        A session that begins with an image in service has that time as its committed one.
        """
        if name in self._shells:
            raise ConflictError(
                f"session {name!r} is here already; choose another name or delete that one", name=name
            )
        if len(self._shells) >= SESSIONS_MAX:
            raise BusyError(f"{SESSIONS_MAX} sessions have their mover here; delete one first")
        document = make(self._free_number(), self._clock())
        if document.hold_floor_ns is not None:
            self._pool.commit(document.number, document.hold_floor_ns)
        shell = self._add(document)
        try:
            shell.command(lambda: shell.session.remember(document))
        except Exception:
            self._drop(shell)
            raise
        return shell

    async def delete(self, shell: SessionShell, *, wait_s: float) -> bool:
        """Forget a session here and at its primaries; those that do not answer within `wait_s` are not waited for.

        Returns whether every primary has confirmed.
        """
        shell.command(lambda: shell.session.delete(force=False))
        await wait_while(lambda: not shell.session.is_forgotten, wait_s)
        confirmed = shell.session.is_forgotten
        if not confirmed:
            shell.command(lambda: shell.session.delete(force=True))
        self._drop(shell)
        await shell.stop()
        return confirmed

    def name_of_number(self, number: int) -> str | None:
        """Return the name of the session that has a number in the pool's records; None when none has."""
        documents = (shell.session.document for shell in self._shells.values())
        return next((document.name for document in documents if document.number == number), None)

    def _free_number(self) -> int:
        """Return a number that no session of the pool has; a number is free once its session is forgotten."""
        return 1 + max((shell.session.document.number for shell in self._shells.values()), default=0)


async def wait_while(condition: Callable[[], bool], wait_s: float) -> None:
    """Return once `condition` no longer holds, at the latest after `wait_s`.

    It looks with every tick, because what the cores decide moves with the ticks.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + wait_s
    while condition() and loop.time() < deadline_s:  # noqa: ASYNC110  # there is no event: time moves the cores
        await asyncio.sleep(TICK_INTERVAL_S)


def source_and_pairs(
    request: SessionRequest | AddPairsRequest,
) -> tuple[list[SourceDocument], list[tuple[str, str, str]]]:
    """Return the primaries and pairs of a request as the session takes them."""
    sources = [SourceDocument(name=primary.name, address=primary.address) for primary in request.primaries]
    pairs = [(pair.primary, pair.primary_volume, pair.secondary_volume) for pair in request.pairs]
    return sources, pairs
