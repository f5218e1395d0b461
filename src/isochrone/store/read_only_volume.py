"""A volume that nobody may write: a snapshot, or the base of a history."""

from __future__ import annotations

from isochrone.model.errors import RefusedError
from isochrone.store.disk import Buffer
from isochrone.store.volume import Volume, ZeroResult


class ReadOnlyVolume(Volume):
    """Reads as any volume does; refuses all that would change it. A class of its own, so that writable ones pay nothing."""

    def write(self, offset: int, data: Buffer) -> tuple[int, int, Buffer]:
        """Raise RefusedError."""
        raise self._refusal(offset, len(data))

    def zero(self, offset: int, length: int, *, allocate: bool) -> ZeroResult:  # noqa: ARG002 (as in Volume)
        """Raise RefusedError."""
        raise self._refusal(offset, length)

    def _refusal(self, offset: int, length: int) -> RefusedError:
        return RefusedError(
            f"{self.name} is a {self.kind.name.lower()}, which is read-only: make a writable copy of it, and write that",
            volume=self.name,
            offset=offset,
            length=length,
        )
