"""Test images: what volumes are to be made of a session's, for which instant. Nothing is made here.

An image at C is a copy of the committed volumes between two commits, an image of an earlier instant comes from the history.
Neither stops anything: pointers are copied, and what is received meanwhile is committed as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.model.errors import ConflictError
from isochrone.model.volume_kind import IMAGE_MARK
from isochrone.session import transitions
from isochrone.session.history_window import Reach
from isochrone.session.image_document import ImageDocument, ImageMember
from isochrone.session.session import Session


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What is to be made.

    Attributes:
        document: to be written with the volumes.
        names: of the new volumes, by number of the volume that each shows.
        history_ns: the instant as the pool's history is asked for it; None for a copy of what is committed.
    """

    document: ImageDocument
    names: dict[int, str]
    history_ns: int | None = None


def plan_now(session: Session, image: str) -> ImagePlan:
    """Return the plan of an image at C. Raises ConflictError when the committed image is not of one instant."""
    document = session.document
    if document.is_over:
        raise ConflictError(
            f"session {document.name!r} is {document.state}, its volumes are in service: copy them with "
            "`isochrone copy create`, or give an instant of the session's history",
            session=document.name,
        )
    if not document.is_image_complete:
        raise ConflictError(
            f"session {document.name!r} has no complete image: {transitions.incompleteness(document)}; wait until every "
            "pair is DUPLEX, or give an earlier instant",
            session=document.name,
        )
    sources = {
        pair.secondary_number: pair.secondary_volume
        for pair in document.pairs
        if pair.secondary_number is not None
    }
    at_ns = max(session.mover.consistency_ns, document.suspended_at_ns)
    return _plan(session, image, at_ns, sources, ())


def plan_at(session: Session, image: str, at_ns: int) -> ImagePlan:
    """Return the plan of an image of `at_ns`, which the session's reach holds. Raises ConflictError."""
    document = session.document
    committed_ns = max(session.mover.consistency_ns, document.suspended_at_ns)
    if at_ns == committed_ns and not document.is_over and document.is_image_complete:
        return plan_now(session, image)
    stats = session.history.stats
    if stats is None:
        raise ConflictError(
            f"session {document.name!r} keeps no history: `isochrone session set {document.name} --history 24h` begins one",
            session=document.name,
        )
    history_ns = min(at_ns, stats.through_ns)
    sources = {
        stay.number: session.pool.volume_by_number(stay.base).name
        for stay in stats.volumes
        if stay.covers(history_ns)
    }
    left_out = tuple(pair.secondary_volume for pair in document.pairs if pair.secondary_number not in sources)
    if not sources:
        raise ConflictError(
            f"the history of session {document.name!r} has no volume at that instant: choose a later one",
            session=document.name,
        )
    return _plan(session, image, at_ns, sources, left_out, history_ns)


def holds(reach: Reach, session: Session, at_ns: int) -> bool:
    """Whether an image of `at_ns` can be made of the session now."""
    return reach.holds(at_ns) and (reach.first_ns is not None or session.document.is_image_complete)


def _plan(
    session: Session,
    image: str,
    at_ns: int,
    sources: dict[int, str],
    left_out: tuple[str, ...],
    history_ns: int | None = None,
) -> ImagePlan:
    """`sources` are names of secondaries by number."""
    document = session.document
    names = {number: f"{name}{IMAGE_MARK}{image}" for number, name in sources.items()}
    members = tuple(
        ImageMember(secondary=name, volume=names[number])
        for number, name in sorted(sources.items(), key=lambda item: item[1])
    )
    made = ImageDocument(
        session=document.name,
        session_id=document.session_id,
        image=image,
        at_ns=at_ns,
        made_ns=session.now_ns(),
        members=members,
        left_out=left_out,
    )
    if made.key in session.pool.documents:
        raise ConflictError(
            f"session {document.name!r} has an image {image!r} already: choose another name, or discard it with "
            f"`isochrone session image {document.name} --as {image} --discard`",
            session=document.name,
        )
    return ImagePlan(made, names, history_ns)
