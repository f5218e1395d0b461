"""The batch that is being captured: what one wake-up of one connection brings, until it is sealed."""

from __future__ import annotations

from dataclasses import dataclass, field

from isochrone.capture.backlog import Backlog
from isochrone.model.records import RecordBatch
from isochrone.store.disk import Buffer


@dataclass(slots=True)
class PendingBatch:
    """Records of one volume. `volume` is -1 while there is none."""

    volume: int = -1
    backlogs: tuple[Backlog, ...] = ()
    first_time_ns: int = 0
    last_time_ns: int = 0
    headers: list[bytes] = field(default_factory=list)
    payload: list[Buffer] = field(default_factory=list)

    def take(self) -> RecordBatch:
        """Return the records, of which there is at least one, as a batch, and begin anew."""
        batch = RecordBatch(
            self.volume,
            self.first_time_ns,
            self.last_time_ns,
            len(self.headers),
            b"".join(self.headers),
            b"".join(self.payload),
        )
        self.headers.clear()
        self.payload.clear()
        return batch
