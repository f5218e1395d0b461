"""What is refused because something else relies on it, and what to do about it: one function a deed.

The catalogue says who descends from whom; who uses a volume now is asked of `Uses`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from isochrone.copies.catalogue import Catalogue, outside
from isochrone.copies.documents import CopyDocument
from isochrone.model.errors import ConflictError
from isochrone.model.volume_kind import SNAPSHOT_MARK

NAMED_MAX = 5
"""Volumes or clients that one refusal names."""


class Uses(Protocol):
    """Who uses a volume at this moment."""

    def session_of(self, volume: str) -> str:
        """Return as what a session has `volume`, and how to take it out; "" when none does."""
        ...

    def is_incomplete(self, volume: str) -> bool:
        """Return whether `volume` is a secondary whose first copy is still running."""
        ...

    def clients_of(self, volume: str) -> list[str]:
        """Return the NBD clients that have `volume` open, or read what changed since it."""
        ...


def refuse_deletion_of_copy(catalogue: Catalogue, uses: Uses, copy: CopyDocument) -> None:
    """Raise ConflictError unless all of `copy` can go."""
    for member in copy.members:
        children = outside(catalogue.children_of(member.volume), copy)
        if children:
            names = sorted({_copy_name(catalogue, child) for child in children})
            raise ConflictError(
                f"copy {copy.name!r} cannot be deleted: {few(children)} {_were(children)} made from {member.volume}; delete "
                f"copy {few(names)} first",
                copy=copy.name,
            )
        _refuse_relations(catalogue, member.volume, f"copy {copy.name!r} cannot be deleted")
        _refuse_use(uses, member.volume, f"copy {copy.name!r} cannot be deleted")


def refuse_deletion_of_volume(catalogue: Catalogue, volume: str) -> None:
    """Raise ConflictError when `volume` belongs to a copy, has copies, or a relation.

    Sessions and clients are the caller's to look at.
    """
    own = catalogue.copy_of(volume)
    if own is not None:
        raise ConflictError(
            f"volume {volume!r} is of copy {own.name!r}; delete the copy: `isochrone copy delete {own.name}`",
            name=volume,
        )
    children = catalogue.children_of(volume)
    if children:
        names = sorted({_copy_name(catalogue, child) for child in children})
        raise ConflictError(
            f"volume {volume!r} has {len(children)} {'copy' if len(children) == 1 else 'copies'} and cannot be deleted: "
            f"{few(children)}; delete copy {few(names)} first, with `isochrone copy delete`",
            name=volume,
        )
    _refuse_relations(catalogue, volume, f"volume {volume!r} cannot be deleted")


def refuse_overwriting(catalogue: Catalogue, uses: Uses, volume: str, deed: str) -> None:
    """Raise ConflictError unless the content of `volume` may be replaced as a whole.

    Args:
        deed: what is being done, for people: "restored", "refreshed".
    """
    own = catalogue.copy_of(volume)
    if SNAPSHOT_MARK in volume:
        hint = f" of copy {own.name!r}" if own is not None else ""
        raise ConflictError(
            f"{volume!r} is a snapshot{hint} and cannot be {deed}: make a writable copy of it, "
            "with `isochrone copy create --writable`",
            name=volume,
        )
    _refuse_use(uses, volume, f"volume {volume!r} cannot be {deed}")


def _refuse_relations(catalogue: Catalogue, volume: str, text: str) -> None:
    for relation in catalogue.relations_of(volume):
        raise ConflictError(
            f"{text}: {relation.source} is copied onto {relation.target}; withdraw that first: `isochrone copy withdraw "
            f"{relation.target}`",
            name=volume,
        )


def _refuse_use(uses: Uses, volume: str, text: str) -> None:
    session = uses.session_of(volume)
    if session:
        raise ConflictError(f"{text}: {session}", name=volume)
    clients = uses.clients_of(volume)
    if clients:
        raise ConflictError(
            f"{text}: {volume} is open over NBD by {few(clients)}; disconnect {_them(clients)} first",
            name=volume,
        )


def few(names: Iterable[str]) -> str:
    """Return `names` in a line, those beyond NAMED_MAX as a number."""
    listed = list(names)
    more = len(listed) - NAMED_MAX
    return ", ".join(listed[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _copy_name(catalogue: Catalogue, volume: str) -> str:
    copy = catalogue.copy_of(volume)
    return copy.name if copy is not None else volume


def _were(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
