"""Who may pull a session from here: the decision on a mover's Hello, as a pure function (design section 8, last row)."""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.capture.document import CaptureDocument
from isochrone.link.messages import PROTOCOL_VERSION, Hello, RefusalCode, Refused


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Where a session's stream stands: what Hello is compared with.

    Attributes:
        incarnation: "" when no stream is in progress.
        dropped_through_ns: time of the last record that was dropped as hardened in this incarnation.
    """

    incarnation: str
    dropped_through_ns: int


@dataclass(frozen=True, slots=True)
class Accept:
    """The mover may pull.

    Attributes:
        document: what to remember of the session from now on.
        fences: the session was recovered at the mover since this controller heard of it last: it is no primary any
            more, whether or not a Fence follows.
        continues: the stream in progress goes on after what the mover has received.
        lost_history: the mover once had hardened records that it no longer has: marks cannot be trusted to cover the
            difference, every track is copied.
    """

    document: CaptureDocument
    fences: bool
    continues: bool
    lost_history: bool


def decide_hello(
    hello: Hello,
    known: CaptureDocument | None,
    same_name: CaptureDocument | None,
    position: StreamPosition,
    track_size_bytes: int,
    *,
    controller_id: str,
    is_mover_here: bool,
) -> Accept | Refused:
    """Accept or refuse `hello`.

    Args:
        known: the session of this id, if any.
        same_name: another session that bears the name of this one, if any.
        controller_id: of this controller.
        is_mover_here: this controller pulls the session itself.
    """
    if hello.protocol_version != PROTOCOL_VERSION:
        return Refused(
            RefusalCode.VERSION,
            f"this controller speaks link protocol {PROTOCOL_VERSION}, the mover {hello.protocol_version}: "
            "run the same release on both",
        )
    if hello.track_size_bytes != track_size_bytes:
        return Refused(
            RefusalCode.TRACK_SIZE,
            f"tracks are {track_size_bytes} bytes here and {hello.track_size_bytes} at the mover: "
            "create one of the pools with the other's track size",
        )
    if hello.controller_id not in ("", controller_id):
        return Refused(
            RefusalCode.WRONG_CONTROLLER,
            f"this controller is {controller_id}, the mover began session {hello.session_name!r} with "
            f"{hello.controller_id}: correct the address of the primary",
        )
    if is_mover_here:
        return Refused(
            RefusalCode.SESSION_IN_USE,
            f"this controller pulls session {hello.session_name!r} itself, in the other direction: "
            f"`isochrone session delete {hello.session_name}` at the side that is to give in",
            known.epoch if known else 0,
        )
    if same_name is not None:
        return Refused(
            RefusalCode.SESSION_IN_USE,
            f"session name {hello.session_name!r} belongs to another session here (mover {same_name.mover_name}): "
            f"choose another name, or run `isochrone session delete {hello.session_name}` on this controller first",
        )
    if known is None:
        return Accept(_new_document(hello), fences=False, continues=False, lost_history=False)
    is_heir = hello.mover_id in known.heirs and hello.mover_id != known.mover_id
    if hello.mover_id != known.mover_id and not is_heir:
        return Refused(
            RefusalCode.SESSION_IN_USE,
            f"session {known.session_name!r} is pulled by controller {known.mover_name}, not by {hello.mover_name}",
            known.epoch,
        )
    if hello.epoch < known.epoch + is_heir:
        return Refused(
            RefusalCode.STALE_EPOCH,
            f"session {known.session_name!r} is at epoch {known.epoch} here, the mover at {hello.epoch}: "
            "the mover's copy of the session is older than a recovery that has happened since",
            known.epoch,
        )
    fences = hello.epoch > known.epoch and not known.awaits_appointment
    document = known.changed(epoch=hello.epoch, mover_id=hello.mover_id, mover_name=hello.mover_name)
    if fences:
        document = document.changed(ended=True, suspended=False, quiesced=False, reason="", recovered_ns=0)
    if document.awaits_appointment:
        return Accept(document, fences=fences, continues=False, lost_history=False)
    lost_history = hello.received_through_ns < max(known.hardened_record_ns, position.dropped_through_ns)
    continues = bool(position.incarnation) and hello.incarnation == position.incarnation
    return Accept(document, fences=False, continues=continues and not lost_history, lost_history=lost_history)


def _new_document(hello: Hello) -> CaptureDocument:
    return CaptureDocument(
        session_id=hello.session_id,
        session_name=hello.session_name,
        epoch=hello.epoch,
        mover_id=hello.mover_id,
        mover_name=hello.mover_name,
    )
