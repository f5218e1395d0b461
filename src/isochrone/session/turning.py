"""A session in the other direction, at the controller that was the primary (see split)."""

from __future__ import annotations

from collections.abc import Iterable

from isochrone.model.policy import SessionPolicy
from isochrone.session.document import PairDocument, SessionDocument, SourceDocument


def turned_round(
    *,
    session_id: str,
    name: str,
    number: int,
    epoch: int,
    image_ns: int,
    primary: tuple[str, str, str],
    pairs: Iterable[tuple[str, str, int]],
    policy: SessionPolicy,
    now_ns: int,
) -> SessionDocument:
    """Return the session that an old primary's controller begins to take the recovered site's content.

    It keeps the id: marks at both sides are kept under it. Its volumes are complete as they are, and stay so behind the
    gate until everything that either side wrote has come.

    Args:
        epoch: newer than any of the session.
        image_ns: the last common time: what the image in service goes by until the resync is complete.
        primary: name, address and controller id of the recovered site.
        pairs: volume there, volume here, its number here.
    """
    source_name, address, controller_id = primary
    return SessionDocument(
        session_id=session_id,
        name=name,
        number=number,
        epoch=epoch,
        since_ns=now_ns,
        policy=policy,
        sources=(SourceDocument(name=source_name, address=address, controller_id=controller_id),),
        pairs=tuple(
            PairDocument(
                source=0,
                primary_volume=there,
                secondary_volume=here,
                secondary_number=number_here,
                complete=True,
            )
            for there, here, number_here in pairs
        ),
        hold_floor_ns=image_ns,
    )
