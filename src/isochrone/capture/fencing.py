"""Ending and beginning to be a session's primary: fences, and the appointment after a split (design section 4, epochs).

A recovery at the other site raises the epoch. From the first word of it (a Hello of the newer epoch, then Fence) this
controller is no primary any more: no stream, no application writes, all marks kept. It tells when its applications wrote
last and how much is marked, so that the recovered site knows both histories.

The way back is an appointment: the mover first sends the tracks that were written at its own side, they join the marks
here, and only then does Appoint make this controller the primary again, under the newer epoch. What is copied then is
every track that either side wrote since the last common time; the mover's side loses its own writes, because whoever
gave the command said so.

A controller that recovered the session and serves its volumes (SERVING) becomes its primary in the same way, when the
old primary's controller has become the mover: the marks that arrive are then the old primary's.
"""

from __future__ import annotations

from collections.abc import Callable

from isochrone.capture.actions import SendDurably
from isochrone.capture.primary import Primary
from isochrone.capture.stream import SessionStream
from isochrone.link.messages import (
    Appoint,
    Appointed,
    Fence,
    Fenced,
    FencedVolume,
    Marked,
    Marks,
    RefusalCode,
    Refused,
    WantedVolume,
)


class Fencing:
    """The handlers of fences and appointments for the links of one Primary.

    Args:
        refuse_volume: returns why a volume of this name cannot be a primary, "" when it can.
    """

    def __init__(self, primary: Primary, refuse_volume: Callable[[str], str]) -> None:
        self._primary = primary
        self._refuse_volume = refuse_volume

    def end_stream(self, stream: SessionStream) -> None:
        """A newer epoch was heard of: nothing is captured or acknowledged from here on; marks stay."""
        stream.end_incarnation()
        self._primary.settle_notes()
        self._primary.rebuild_routes()

    def handle_fence(self, link: int, stream: SessionStream, fence: Fence) -> Refused | None:
        """End the session here, and tell what was written last."""
        if fence.epoch < stream.document.epoch:
            return stale(stream, fence.epoch)
        primary = self._primary
        stream.end_incarnation()
        captured = {volume.volume.name for volume in stream.volumes.values()}
        forgotten = {name for name in fence.volumes if not self._refuse_volume(name)}
        primary.set_volumes(stream, [WantedVolume(name, True) for name in sorted(captured | forgotten)])
        primary.remember(
            stream,
            stream.document.changed(
                epoch=fence.epoch,
                ended=True,
                serving=False,
                heirs=(),
                partners=dict(zip(fence.volumes, fence.secondaries, strict=False)),
                suspended=False,
                quiesced=False,
                reason="",
                recovered_ns=fence.recovered_ns,
                since_ns=primary.stamper.promise(),
            ),
        )
        primary.rebuild_routes()
        primary.actions.append(SendDurably(link, self._fenced(stream)))
        return None

    @staticmethod
    def _fenced(stream: SessionStream) -> Fenced:
        volumes = [
            FencedVolume(captured.volume.name, captured.change_map.marked_count)
            for _, captured in sorted(stream.volumes.items())
        ]
        return Fenced(stream.document.epoch, stream.last_write_ns, volumes)

    def handle_marks(self, stream: SessionStream, marks: Marks) -> Refused | None:
        """Take over tracks that changed at the mover's side. A volume that is not captured will be copied whole."""
        if not stream.document.awaits_appointment:
            return _misplaced(stream, "Marks")
        captured = next((c for c in stream.volumes.values() if c.volume.name == marks.volume), None)
        if captured is not None:
            change_map = captured.change_map
            runs = list(zip(marks.runs[::2], marks.runs[1::2], strict=False))
            if len(marks.runs) % 2 or any(t + n > change_map.track_count or not n for t, n in runs):
                return Refused(
                    RefusalCode.BAD_REQUEST,
                    f"Marks name tracks that volume {marks.volume!r} does not have: give both sides' volumes one size",
                )
            captured.mark_runs(runs)
        stream.send(Marked())
        return None

    def handle_appoint(self, link: int, stream: SessionStream, appoint: Appoint) -> Refused | None:
        """Be the primary. Repeating it changes nothing."""
        document = stream.document
        if appoint.epoch != document.epoch:
            return stale(stream, appoint.epoch)
        if document.awaits_appointment:
            primary = self._primary
            # The marks go back to the last common time now: they cover all that a mover may have lost since.
            document = document.changed(
                ended=False,
                serving=False,
                heirs=(),
                partners={},
                suspended=False,
                quiesced=False,
                reason="",
                since_ns=0,
                recovered_ns=0,
                hardened_record_ns=0,
                stamps_after_ns=max(document.stamps_after_ns, document.recovered_ns),
            )
            primary.stamper.raise_floor(document.stamps_after_ns)
            primary.remember(stream, document)
            primary.rebuild_routes()
        self._primary.actions.append(SendDurably(link, Appointed(document.epoch)))
        return None


def stale(stream: SessionStream, epoch: int) -> Refused:
    """Return the refusal of words of an older epoch (or, from a confused peer, of one that nobody has raised)."""
    document = stream.document
    return Refused(
        RefusalCode.STALE_EPOCH,
        f"session {document.session_name!r} is at epoch {document.epoch} here, this was said under {epoch}: "
        "a recovery has happened since; nothing of the older epoch is taken any more",
        document.epoch,
    )


def in_service(stream: SessionStream, message: object) -> Refused:
    """Return the refusal of what is asked of a primary, at a controller that is none yet."""
    return _misplaced(stream, type(message).__name__)


def _misplaced(stream: SessionStream, word: str) -> Refused:
    return Refused(
        RefusalCode.BAD_REQUEST,
        f"{word} does not fit session {stream.document.session_name!r}, which is {stream.state} here",
    )
