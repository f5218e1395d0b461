"""What a controller does with the past of sessions on request, as the API sees it; see api.operations."""

from __future__ import annotations

from typing import Protocol

from isochrone.api.history_requests import CreateImageRequest, NameInstantRequest
from isochrone.report.history_models import HistoryReport, ImageReport, InstantReport


class HistoryOperations(Protocol):
    """Named instants, history and images of sessions. What was done is durable when a method returns."""

    async def name_instant(self, name: str, request: NameInstantRequest) -> InstantReport:
        """Name the present of a session, at one of its primaries; waits until the secondary has it durably, up to a bound.

        ConflictError: its mover is here, it is suspended, or its stream ended before the instant was hardened.
        """

    async def history(self, name: str) -> HistoryReport:
        """Return which instants of a session can be reached, and what its history takes. NotFoundError."""

    async def images(self, name: str) -> list[ImageReport]:
        """Return the images of a session, also of one that has gone. NotFoundError: there is neither here."""

    async def create_image(self, name: str, request: CreateImageRequest) -> ImageReport:
        """Make writable volumes that show all secondaries of a session at one instant; replication goes on.

        ConflictError: there is no image of that instant (the text names the nearest ones), or the name is taken.
        UnavailableError: the instant is not committed yet.
        """

    async def discard_image(self, name: str, image: str) -> ImageReport:
        """Delete the volumes of an image; return what it was. ConflictError: a client has one open, or a copy was made."""
