"""What a session asks of its own controller's capture core: marks of what is written to the secondaries in service here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isochrone.model.policy import SessionPolicy
from isochrone.model.split import Written


class OwnMarks(Protocol):
    """The marks of one controller's own sessions, by session id. capture.OwnMarks is the one there is."""

    def serve(
        self,
        session_id: str,
        session_name: str,
        epoch: int,
        *,
        recovered_ns: int,
        volumes: Iterable[int],
        heirs: Iterable[str],
        policy: SessionPolicy,
    ) -> None:
        """Mark every application write to `volumes` (numbers) from now on; marks there are stay.

        Call it before the volumes come into service. A volume whose map cannot be made goes unmarked, because service
        must not wait for it. `heirs` may become the session's mover when the direction turns round. What the marks survive
        is the session's `policy`, as it was for those of its primaries.
        """

    def mark(self, session_id: str, tracks: Mapping[int, NDArray[np.int64]]) -> None:
        """Mark tracks by volume number, as if they had been written here, though nobody has. Call it after `serve`."""

    def hold(self, session_id: str) -> None:
        """The volumes are secondaries again: refuse writes, keep the marks. Does nothing when there are none."""

    def drop(self, session_id: str, epoch: int) -> None:
        """The marks of this session, of no newer epoch, are of no more use. Does nothing when there are none."""

    def is_superseded(self, session_id: str, epoch: int) -> bool:
        """Whether this controller has become the session's primary under a newer epoch than `epoch`."""

    def marked(self, session_id: str) -> Mapping[int, NDArray[np.bool_]] | None:
        """Return the marked tracks by volume number, shape (track_count,); None when nothing was ever marked."""

    def written(self, session_id: str) -> Written | None:
        """Return what was written in sum; None when nothing was ever marked."""
