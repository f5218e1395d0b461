"""Marks for sessions whose mover is at this controller: what applications write to a recovered session's secondaries.

From the moment a session has ended here its secondaries are in service, and the other site may still hold writes that never
arrived. To bring both together without a full copy, whoever gives in must know what was written on either side. So the
capture core takes the session up as a stream that only marks (SERVING), with the maps of any primary: they exist before
the volumes accept a write, survive a kill, and mark everything after a power loss.

When this controller is the mover again, to give its own writes up, the same stream keeps the marks and refuses writes
until the resync is complete: a recovery in the middle of it goes back to the image of before, and the marks are needed then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from isochrone.capture.document import CaptureDocument
from isochrone.capture.primary import Primary
from isochrone.capture.stream import SessionStream
from isochrone.model.policy import SessionPolicy
from isochrone.model.split import Written

HELD_REASON = "it is being resynchronised from the other site; this volume is a secondary"


class OwnMarks:
    """See the module's essay, and session.own_marks for what is promised."""

    def __init__(self, primary: Primary, controller_id: str, controller_name: str) -> None:
        self._primary = primary
        self._controller_id = controller_id
        self._controller_name = controller_name

    def _own(self, session_id: str) -> SessionStream | None:
        stream = self._primary.streams.get(session_id)
        return stream if stream is not None and stream.document.awaits_appointment else None

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
        """Mark what is written to `volumes` from now on, as `policy` says."""
        primary = self._primary
        document = CaptureDocument(
            session_id=session_id,
            session_name=session_name,
            epoch=epoch,
            mover_id=self._controller_id,
            mover_name=self._controller_name,
        )
        stream = self._own(session_id) or primary.add_stream(document)
        document = stream.document.changed(
            epoch=epoch,
            mover_id=self._controller_id,
            mover_name=self._controller_name,
            ended=False,
            serving=True,
            heirs=tuple(heirs),
            partners={},
            reason="",
            recovered_ns=recovered_ns,
            policy=policy,
        )
        primary.mark_only(stream, document, volumes)

    def mark(self, session_id: str, tracks: Mapping[int, NDArray[np.int64]]) -> None:
        """Mark tracks that nobody has written. A volume whose map could not be made counts as changed everywhere."""
        stream = self._own(session_id)
        for number, changed in tracks.items():
            captured = stream.volumes.get(number) if stream is not None else None
            if captured is not None:
                captured.mark_tracks(changed)

    def hold(self, session_id: str) -> None:
        """Refuse writes, keep the marks."""
        stream = self._own(session_id)
        if stream is not None and stream.document.serving:
            self._primary.remember(
                stream, stream.document.changed(serving=False, ended=True, heirs=(), reason=HELD_REASON)
            )
            self._primary.rebuild_routes()

    def drop(self, session_id: str, epoch: int) -> None:
        """Forget the marks."""
        stream = self._own(session_id)
        if stream is not None and stream.document.epoch <= epoch:
            self._primary.delete_stream(session_id)

    def is_superseded(self, session_id: str, epoch: int) -> bool:
        """Whether the session has this controller as its primary now, or had it after `epoch`."""
        stream = self._primary.streams.get(session_id)
        return stream is not None and stream.document.epoch > epoch and not stream.document.serving

    def marked(self, session_id: str) -> Mapping[int, NDArray[np.bool_]] | None:
        """Return the marked tracks by volume number."""
        stream = self._own(session_id)
        if stream is None:
            return None
        return {number: captured.change_map.marked() for number, captured in stream.volumes.items()}

    def written(self, session_id: str) -> Written | None:
        """Return what was written in sum."""
        stream = self._own(session_id)
        if stream is None:
            return None
        self._primary.settle_notes()
        tracks = {number: captured.change_map.marked_count for number, captured in stream.volumes.items()}
        return Written(stream.last_write_ns, tracks)
