"""What a controller does with point-in-time copies on request, as the API sees it; see api.operations."""

from __future__ import annotations

from typing import Protocol

from isochrone.api.copy_requests import CreateCopyRequest, EstablishRequest, RestoreRequest
from isochrone.report.copy_models import (
    CopiesReport,
    CopyDeletedReport,
    CopyReport,
    DiffReport,
    RelationReport,
    RestoredReport,
)


class CopyOperations(Protocol):
    """Copies, relations and schedules of one controller. What was done is durable when a method returns."""

    async def copies(self) -> CopiesReport:
        """Return all copies by time, all relations by target, all schedules."""

    async def copy(self, name: str) -> CopyReport:
        """Return one copy. NotFoundError."""

    async def create_copy(self, request: CreateCopyRequest) -> CopyReport:
        """Copy volumes at one instant. NotFoundError: a volume is not there. ConflictError: a name is taken."""

    async def delete_copy(self, name: str) -> CopyDeletedReport:
        """Delete all volumes of a copy. ConflictError: something was made from it, or a client or session has it."""

    async def restore_copy(self, name: str, request: RestoreRequest) -> RestoredReport:
        """Set volumes back to what a copy of them holds, all at one instant; the copy stays.

        ConflictError: one is a snapshot, in a session, or open by a client.
        """

    async def diff(self, volume: str, base: str, offset: int) -> DiffReport:
        """Return where `volume` may differ from `base` from `offset` on, as much as one answer holds.

        Args:
            base: a volume, or the name of a copy that `volume` came after.
        """

    async def relation(self, target: str) -> RelationReport:
        """Return what is copied onto `target`. NotFoundError."""

    async def establish(self, request: EstablishRequest) -> RelationReport:
        """Copy a volume, or ranges of it, onto an existing one. ConflictError: the target is in use, or of another size."""

    async def refresh(self, target: str) -> RelationReport:
        """Copy the source of a relation again."""

    async def withdraw(self, target: str) -> None:
        """Take a relation away; both volumes stay as they are."""
