"""The past of sessions on request (api.history_operations.HistoryOperations): named instants, histories, images.

An image at C is made in one step of the event loop, between two commits. One of an earlier instant comes from the history
bit by bit, in a thread as far as that goes, while everything else goes on; one at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import structlog

from isochrone.api.history_requests import CreateImageRequest, NameInstantRequest
from isochrone.controller.capture_reports import Now
from isochrone.controller.fed_sessions import FedSessions
from isochrone.controller.history_reports import history_report, image_report
from isochrone.controller.image_catalogue import ImageCatalogue
from isochrone.controller.moments import asked_ns, unreachable
from isochrone.controller.naming import instant_report, name_instant, refuse_at_mover
from isochrone.controller.present import read_now
from isochrone.controller.session_reports import primaries_now
from isochrone.controller.session_set import SessionSet, wait_while
from isochrone.controller.session_shell import SessionShell
from isochrone.controller.stepping import drive
from isochrone.copies.documents import RelationDocument
from isochrone.model.errors import ConflictError, NotFoundError, RefusedError, UnavailableError
from isochrone.model.volume_kind import VolumeKind
from isochrone.report.history_models import HistoryReport, ImageReport, InstantReport
from isochrone.report.times import NS_PER_MS, NS_PER_S
from isochrone.session.images import ImagePlan, holds, plan_at, plan_now
from isochrone.session.session import Session
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume
from isochrone.store.volume_set import CopyItem

COMMIT_WAIT_S_MAX: Final = 10.0
"""How long the image of an instant waits for that to be committed."""

_log = structlog.get_logger(__name__)


class Past:
    """See the module.

    Args:
        fed: the sessions that are fed from here.
        clients_of: names the NBD clients of a volume.
        children_of: names the copies that were made from a volume. relations_of: what a volume is copied onto, or from.
        forget_export: drops what is kept of a deleted volume.
        clock: host time in nanoseconds.
        flush: makes the pool durable.
    """

    def __init__(
        self,
        pool: Pool,
        catalogue: ImageCatalogue,
        sessions: SessionSet,
        *,
        fed: FedSessions,
        clients_of: Callable[[str], list[str]],
        children_of: Callable[[str], list[str]],
        relations_of: Callable[[str], list[RelationDocument]],
        forget_export: Callable[[Volume], None],
        clock: Callable[[], int],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self.catalogue = catalogue
        self._pool = pool
        self._sessions = sessions
        self._fed = fed
        self._clients_of = clients_of
        self._children_of = children_of
        self._relations_of = relations_of
        self._forget_export = forget_export
        self._clock = clock
        self._flush = flush
        self._one_image = asyncio.Lock()

    def _now(self) -> Now:
        return read_now(self._clock)

    # Named instants, history

    async def name_instant(self, name: str, request: NameInstantRequest) -> InstantReport:
        """Name the present of a session that is fed from here."""
        if name in self._sessions:
            raise refuse_at_mover(self._sessions.get(name).session.document)
        instant = await name_instant(self._fed.get(name), request)
        _log.info("instant named", session=name, time_ns=instant.time_ns, text=instant.text)
        return instant_report(name, instant, self._now())

    async def history(self, name: str) -> HistoryReport:
        """Return which instants of a session can be reached."""
        shell = self._sessions.get(name)
        return history_report(shell.session, primaries_now(shell, self._now()))

    # Images

    async def images(self, name: str) -> list[ImageReport]:
        """Return the images of a session."""
        images = self.catalogue.of_session(name)
        if not images and name not in self._sessions:
            raise NotFoundError(
                f"no session {name!r} has its mover here, nor images of it; see `isochrone session list`",
                name=name,
            )
        return [image_report(document, self._clients_of, self._now()) for document in images]

    async def create_image(self, name: str, request: CreateImageRequest) -> ImageReport:
        """Make an image of all secondaries of a session."""
        shell = self._sessions.get(name)
        session = shell.session
        at_ns = asked_ns(request, session, primaries_now(shell, self._now()))
        async with self._one_image:
            _refuse_forgotten(session)
            began_ns = time.perf_counter_ns()
            image = request.image or self._default_name(name)
            plan = plan_now(session, image) if at_ns is None else await self._plan_at(shell, image, at_ns)
            await self._make(session, plan)
            made_in_ms = (time.perf_counter_ns() - began_ns) / NS_PER_MS
            self.catalogue.put(plan.document)
        await self._flush()
        _log.info(
            "image made",
            session=name,
            image=image,
            at_ns=plan.document.at_ns,
            volumes=len(plan.names),
            made_in_ms=made_in_ms,
        )
        return image_report(plan.document, self._clients_of, self._now(), made_in_ms=made_in_ms)

    def _default_name(self, session: str) -> str:
        stamp = datetime.fromtimestamp(time.time_ns() // NS_PER_S, UTC).strftime("%Y%m%dT%H%M%SZ")
        taken = {document.image for document in self.catalogue.of_session(session)}
        name, number = stamp, 2
        while name in taken:
            name, number = f"{stamp}-{number}", number + 1
        return name

    async def _plan_at(self, shell: SessionShell, image: str, at_ns: int) -> ImagePlan:
        """Return the plan once the instant is committed. Raises ConflictError or UnavailableError."""
        session = shell.session
        there = primaries_now(shell, self._now())
        if at_ns > there.host_ns + COMMIT_WAIT_S_MAX * NS_PER_S:
            raise unreachable(session, session.history.reach(), at_ns, there)
        await wait_while(
            lambda: (
                not (session.document.is_over or session.is_forgotten)
                and session.history.reach().through_ns < at_ns
            ),
            COMMIT_WAIT_S_MAX,
        )
        _refuse_forgotten(session)
        reach = session.history.reach()
        if holds(reach, session, at_ns):
            return plan_at(session, image, at_ns)
        if reach.through_ns < at_ns and reach.gap_at(at_ns) is None and not session.document.is_over:
            raise UnavailableError(
                f"session {session.document.name!r} has not committed what was written up to that instant after "
                f"{COMMIT_WAIT_S_MAX:g} s: `isochrone session show {session.document.name}` says what is in the way",
                session=session.document.name,
            )
        raise unreachable(session, reach, at_ns, primaries_now(shell, self._now()))

    async def _make(self, session: Session, plan: ImagePlan) -> None:
        documents = {plan.document.key: plan.document.dump()}
        if plan.history_ns is None:
            items = [CopyItem(number, name, VolumeKind.IMAGE) for number, name in plan.names.items()]
            self._pool.create_copies(items, documents)
            return
        steps = self._pool.history_image(
            session.document.number, plan.history_ns, plan.names, VolumeKind.IMAGE, documents
        )
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="image") as thread:
            try:
                await drive(steps, thread)
            except RefusedError as error:
                if isinstance(error, ConflictError):
                    raise
                raise ConflictError(
                    f"the history was given up while the image was made: {error.message}; choose a later instant",
                    session=session.document.name,
                ) from error

    async def discard_image(self, name: str, image: str) -> ImageReport:
        """Delete the volumes of an image."""
        document = self.catalogue.get(name, image)
        report = image_report(document, self._clients_of, self._now())
        for member in report.volumes:
            if member.clients:
                raise ConflictError(
                    f"image {image!r} of session {name!r} is in use: {member.volume} is open over NBD by "
                    f"{', '.join(member.clients)}; disconnect first",
                    name=image,
                )
            if children := self._children_of(member.volume):
                raise ConflictError(
                    f"image {image!r} of session {name!r} has copies: {', '.join(children)}; delete them first, with "
                    "`isochrone copy delete`",
                    name=image,
                )
            for relation in self._relations_of(member.volume):
                raise ConflictError(
                    f"image {image!r} of session {name!r} is in use: {relation.source} is copied onto {relation.target}; "
                    f"withdraw that first: `isochrone copy withdraw {relation.target}`",
                    name=image,
                )
        volumes = [self._pool.volumes[member.volume] for member in report.volumes]
        self._pool.delete_volumes([volume.name for volume in volumes], {document.key: None})
        self.catalogue.forget(document)
        for volume in volumes:
            self._forget_export(volume)
        await self._flush()
        _log.info("image discarded", session=name, image=image, volumes=len(volumes))
        return report


def _refuse_forgotten(session: Session) -> None:
    """Raise NotFoundError when a session was deleted: its volumes, and its number in the pool, may be another's now."""
    if session.is_forgotten:
        raise NotFoundError(
            f"session {session.document.name!r} was deleted while its image waited to be made",
            name=session.document.name,
        )
