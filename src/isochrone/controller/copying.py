"""The parts that point-in-time copies are made of, put together over one catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from isochrone.api.copy_requests import CreateCopyRequest, EstablishRequest, RestoreRequest
from isochrone.controller.copy_keeper import CopyKeeper
from isochrone.controller.copy_operations import ControllerCopies
from isochrone.controller.copy_relations import ControllerRelations
from isochrone.controller.copy_reports import CopyReporter
from isochrone.controller.exports import PoolExports
from isochrone.controller.volume_uses import VolumeUses
from isochrone.copies.catalogue import Catalogue
from isochrone.copies.schedule import Schedule
from isochrone.report.copy_models import (
    CopiesReport,
    CopyDeletedReport,
    CopyReport,
    DiffReport,
    RelationReport,
    RestoredReport,
)
from isochrone.store.pool import Pool


class Copying:
    """See api.copy_operations.CopyOperations.

    Args:
        clock: host time in nanoseconds.
        flush: makes the pool durable.
        on_fatal: called with an error that nobody expected.

    Attributes:
        catalogue: what there is. reporter: what is said of it. keeper: what happens by itself.
    """

    def __init__(
        self,
        pool: Pool,
        catalogue: Catalogue,
        exports: PoolExports,
        uses: VolumeUses,
        schedules: Sequence[Schedule] = (),
        *,
        clock: Callable[[], int],
        flush: Callable[[], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.catalogue = catalogue
        self.uses = uses
        self.reporter = CopyReporter(
            pool, catalogue, schedules, lambda volume: exports.of(pool.volumes[volume]).connection_count
        )
        self._copies = ControllerCopies(
            pool, catalogue, exports, uses, self.reporter, clock=clock, flush=flush
        )
        self._relations = ControllerRelations(pool, catalogue, uses, self.reporter, flush=flush)
        self.keeper = CopyKeeper(
            self._copies, catalogue, self.reporter, schedules, flush=flush, on_fatal=on_fatal
        )

    async def copies(self) -> CopiesReport:
        """Return all copies, relations and schedules."""
        return await self._copies.copies()

    async def copy(self, name: str) -> CopyReport:
        """Return one copy."""
        return await self._copies.copy(name)

    async def create_copy(self, request: CreateCopyRequest) -> CopyReport:
        """Copy volumes at one instant."""
        return await self._copies.create_copy(request)

    def keep_image(self, name: str, volumes: Sequence[str], documents: Mapping[str, bytes]) -> None:
        """Make a copy of volumes now, with documents in the same record; see session.rewinding.KeepImage."""
        self._copies.keep_image(name, volumes, documents)

    async def delete_copy(self, name: str) -> CopyDeletedReport:
        """Delete a copy with all its volumes."""
        return await self._copies.delete_copy(name)

    async def restore_copy(self, name: str, request: RestoreRequest) -> RestoredReport:
        """Set the sources of a copy back to it."""
        return await self._copies.restore_copy(name, request)

    async def diff(self, volume: str, base: str, offset: int) -> DiffReport:
        """Return where `volume` may differ from `base`."""
        return await self._copies.diff(volume, base, offset)

    async def relation(self, target: str) -> RelationReport:
        """Return one relation."""
        return await self._relations.relation(target)

    async def establish(self, request: EstablishRequest) -> RelationReport:
        """Copy a volume onto another."""
        return await self._relations.establish(request)

    async def refresh(self, target: str) -> RelationReport:
        """Copy it again."""
        return await self._relations.refresh(target)

    async def withdraw(self, target: str) -> None:
        """Take a relation away."""
        await self._relations.withdraw(target)
