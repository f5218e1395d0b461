"""All copies and relations of a pool, and who descends from whom.

A *lineage* is a volume, what it was made from, what that was made from, and so on. A child of a volume is a copy that was
made from it. Nothing with a child is deleted, so a lineage never has a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from isochrone.copies.documents import (
    COPY_PREFIX,
    RELATION_PREFIX,
    SCHEDULE_PREFIX,
    CopyDocument,
    CopyMember,
    RelationDocument,
    ScheduleDocument,
    load,
)


class Catalogue:
    """What the documents say, by name.

    Attributes:
        copies: by name. relations: by target. last_runs: when each schedule ran last, nanoseconds since 1970.
    """

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self.copies: dict[str, CopyDocument] = {}
        self.relations: dict[str, RelationDocument] = {}
        self.last_runs: dict[str, int] = {}
        self._copy_of: dict[str, CopyDocument] = {}
        self._source_of: dict[str, str] = {}
        self._children: dict[str, list[str]] = {}
        for key, value in documents.items():
            if key.startswith(COPY_PREFIX):
                self.add(load(CopyDocument, key, value))
            elif key.startswith(RELATION_PREFIX):
                relation = load(RelationDocument, key, value)
                self.relations[relation.target] = relation
            elif key.startswith(SCHEDULE_PREFIX):
                run = load(ScheduleDocument, key, value)
                self.last_runs[run.name] = run.last_run_wall_ns

    def add(self, copy: CopyDocument) -> None:
        """Take in a copy that was made."""
        self.copies[copy.name] = copy
        for member in copy.members:
            self._copy_of[member.volume] = copy
            self._source_of[member.volume] = member.source
            self._children.setdefault(member.source, []).append(member.volume)

    def remove(self, name: str) -> None:
        """Forget a copy that was deleted."""
        copy = self.copies.pop(name)
        for member in copy.members:
            del self._copy_of[member.volume], self._source_of[member.volume]
            siblings = self._children[member.source]
            siblings.remove(member.volume)
            if not siblings:
                del self._children[member.source]

    def copy_of(self, volume: str) -> CopyDocument | None:
        """Return the copy that `volume` belongs to, None for a volume that is no copy."""
        return self._copy_of.get(volume)

    def member(self, volume: str) -> CopyMember | None:
        """Return `volume` as its copy has it, None for a volume that is no copy."""
        copy = self._copy_of.get(volume)
        if copy is None:
            return None
        return next(member for member in copy.members if member.volume == volume)

    def source_of(self, volume: str) -> str | None:
        """Return what `volume` was made from, None for a volume that is no copy."""
        return self._source_of.get(volume)

    def children_of(self, volume: str) -> list[str]:
        """Return the volumes that were made from `volume`, oldest first."""
        return list(self._children.get(volume, ()))

    def relations_of(self, volume: str) -> list[RelationDocument]:
        """Return the relations that `volume` is the source or the target of."""
        return [one for one in self.relations.values() if volume in (one.source, one.target)]

    def lineage(self, volume: str) -> list[str]:
        """Return `volume` and what it descends from, nearest first."""
        found = [volume]
        while (source := self._source_of.get(found[-1])) is not None:
            found.append(source)
        return found

    def bases(self, volume: str) -> dict[str, str]:
        """Return the snapshots that `volume` came after, oldest first: copy name -> snapshot.

        They are those in its lineage, and those made from a volume of it before the lineage went on from there.
        """
        own = self._copy_of.get(volume)
        until_ns = own.taken_ns if own is not None and not own.writable else None
        found: dict[str, tuple[int, str]] = {}
        for ancestor in self.lineage(volume):
            for child in self._children.get(ancestor, ()):
                copy = self._copy_of[child]
                is_before = until_ns is None or copy.taken_ns <= until_ns
                if is_before and not copy.writable and child != volume:
                    found.setdefault(copy.name, (copy.taken_ns, child))
            made = self._copy_of.get(ancestor)
            until_ns = made.taken_ns if made is not None else None
        return {name: child for name, (_, child) in sorted(found.items(), key=lambda item: item[1][0])}

    def scheduled(self, schedule: str) -> list[CopyDocument]:
        """Return the copies that `schedule` made, newest first by host time: the wall clock may have been set back."""
        made = [copy for copy in self.copies.values() if copy.schedule == schedule]
        return sorted(made, key=lambda copy: (copy.taken_ns, copy.name), reverse=True)

    def expired(self, now_wall_ns: int) -> list[CopyDocument]:
        """Return the copies whose time has come, newest first: children go before what they were made from."""
        due = [copy for copy in self.copies.values() if copy.is_expired(now_wall_ns)]
        return sorted(due, key=lambda copy: (copy.taken_ns, copy.name), reverse=True)


def outside(volumes: Iterable[str], copy: CopyDocument) -> list[str]:
    """Return those of `volumes` that are not of `copy` itself."""
    own = {member.volume for member in copy.members}
    return [volume for volume in volumes if volume not in own]
