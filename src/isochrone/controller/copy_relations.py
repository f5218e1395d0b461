"""Flash copies onto existing volumes: established, refreshed, withdrawn. Pointers are copied, no data moves."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog

from isochrone.api.copy_requests import EstablishRequest
from isochrone.controller.copy_reports import CopyReporter
from isochrone.copies.catalogue import Catalogue
from isochrone.copies.documents import RelationDocument, RelationExtent
from isochrone.copies.extents import check_extents, track_extents
from isochrone.copies.refusals import Uses, refuse_overwriting
from isochrone.model.errors import ConflictError, NotFoundError, RefusedError
from isochrone.report.copy_models import RelationReport
from isochrone.report.times import NS_PER_MS
from isochrone.store.establish import Extent
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume

_log = structlog.get_logger(__name__)


class ControllerRelations:
    """The relations of a pool, by target."""

    def __init__(
        self,
        pool: Pool,
        catalogue: Catalogue,
        uses: Uses,
        reporter: CopyReporter,
        *,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._uses = uses
        self._reporter = reporter
        self._flush = flush

    async def relation(self, target: str) -> RelationReport:
        """Return one relation."""
        return await self._reporter.relation(self._relation(target))

    async def establish(self, request: EstablishRequest) -> RelationReport:
        """Copy a volume, or ranges of it, onto another, and remember the relation."""
        now_wall_ns = time.time_ns()
        extents = None
        if request.extents is not None:
            extents = tuple(RelationExtent(**extent.model_dump()) for extent in request.extents)
        relation = RelationDocument(
            source=request.source,
            target=request.target,
            extents=extents,
            established_wall_ns=now_wall_ns,
            refreshed_wall_ns=now_wall_ns,
        )
        existing = self._catalogue.relations.get(request.target)
        if existing is not None and (existing.source, existing.extents) != (
            relation.source,
            relation.extents,
        ):
            raise ConflictError(
                f"{existing.source} is copied onto {request.target} already; refresh that, or withdraw it first: "
                f"`isochrone copy withdraw {request.target}`",
                name=request.target,
            )
        return await self._copy_pointers(relation, "copied onto", "relation established")

    async def refresh(self, target: str) -> RelationReport:
        """Let the target show the source as it is now."""
        relation = self._relation(target).model_copy(update={"refreshed_wall_ns": time.time_ns()})
        return await self._copy_pointers(relation, "refreshed", "relation refreshed")

    async def withdraw(self, target: str) -> None:
        """Take a relation away; both volumes stay as they are."""
        relation = self._relation(target)
        self._pool.delete_document(relation.key)
        self._pool.log_write()
        del self._catalogue.relations[target]
        await self._flush()
        _log.info("relation withdrawn", source=relation.source, target=target)

    async def _copy_pointers(self, relation: RelationDocument, deed: str, event: str) -> RelationReport:
        self._check(relation, deed)
        changed_bytes = await self._reporter.differing_bytes(relation)
        self._check(relation, deed)
        extents = None
        if relation.extents is not None:
            tracks = track_extents(relation.extents, self._pool.track_size_bytes)
            extents = [Extent(*extent) for extent in tracks]
        begun_ns = time.perf_counter_ns()
        documents = {relation.key: relation.dump()}
        self._pool.establish(relation.source, relation.target, extents, documents)
        hold_ms = (time.perf_counter_ns() - begun_ns) / NS_PER_MS
        self._catalogue.relations[relation.target] = relation
        await self._flush()
        _log.info(
            event,
            source=relation.source,
            target=relation.target,
            changed_bytes=changed_bytes,
            hold_ms=hold_ms,
        )
        return await self._reporter.relation(relation, changed_bytes=changed_bytes, hold_ms=hold_ms)

    def _check(self, relation: RelationDocument, deed: str) -> None:
        """Raise a RefusedError unless the pointers of `relation` can be copied now."""
        source, target = self._volume(relation.source), self._volume(relation.target)
        if source is target:
            raise RefusedError(
                f"{relation.source} is source and target: name two volumes", name=relation.source
            )
        refuse_overwriting(self._catalogue, self._uses, relation.target, deed)
        if relation.extents is not None:
            check_extents(
                relation.extents,
                track_size_bytes=self._pool.track_size_bytes,
                source_size_bytes=source.size_bytes,
                target_size_bytes=target.size_bytes,
            )
        elif source.size_bytes != target.size_bytes:
            raise ConflictError(
                f"{relation.source} has {source.size_bytes} bytes and {relation.target} {target.size_bytes}; make "
                f"them equal first: `isochrone volume resize {relation.target} {source.size_bytes}`, or name ranges with "
                "--extents",
                name=relation.target,
            )

    def _volume(self, name: str) -> Volume:
        volume = self._pool.volumes.get(name)
        if volume is None:
            raise NotFoundError(
                f"no volume {name!r} here; see `isochrone volume list` and `isochrone copy list`", name=name
            )
        return volume

    def _relation(self, target: str) -> RelationDocument:
        relation = self._catalogue.relations.get(target)
        if relation is None:
            raise NotFoundError(
                f"nothing is copied onto {target!r} here; see `isochrone copy list`", name=target
            )
        return relation
