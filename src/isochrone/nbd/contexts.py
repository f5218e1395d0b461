"""Metadata contexts: what block status tells besides data and holes, and how a client selects it.

`base:allocation` is every export's. `isochrone:changed:NAME` is offered for each point-in-time copy NAME that the export
came after: bit 0 of an extent is set where it may differ from that copy, as in QEMU's dirty bitmaps. What a
connection selected stays open until it ends, so the copy cannot go away under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from isochrone.nbd import constants as c
from isochrone.nbd.export import Export, StatusMap

CONTEXTS_SELECTED_MAX: Final = 8
"""Contexts of one connection: their extents share the memory of one reply."""
CONTEXTS_LISTED_MAX: Final = 4096
"""Contexts in one answer to LIST_META_CONTEXT."""

assert 8 * c.EXTENTS_PER_REPLY_MAX * CONTEXTS_SELECTED_MAX <= c.REPLY_BYTES_PER_BATCH


@dataclass(frozen=True, slots=True)
class SelectedContext:
    """One context of a connection: the number it was given, its name, and what it tells."""

    id: int
    name: str
    states: StatusMap


class AllocationMap:
    """base:allocation of an export: flags 0 for data, HOLE and ZERO for what is not mapped."""

    def __init__(self, export: Export) -> None:
        self._export = export

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (length, flags) that cover the range in order."""
        hole = c.STATE_HOLE | c.STATE_ZERO
        for _, run_length, mapped in self._export.block_status(offset, length):
            yield run_length, 0 if mapped else hole

    def close(self) -> None:
        """Nothing is held."""


def listed_contexts(offered: Sequence[str], queries: Iterable[str]) -> list[str]:
    """Return the contexts that a LIST_META_CONTEXT with `queries` finds; all for no query.

    Args:
        offered: what the export has besides base:allocation.
        queries: names, or beginnings that end with a colon (`isochrone:`, `isochrone:changed:`).
    """
    contexts = [c.META_CONTEXT_ALLOCATION, *offered][:CONTEXTS_LISTED_MAX]
    wanted = list(queries)
    if not wanted:
        return contexts
    exact = set(wanted)
    beginnings = tuple({query for query in wanted if query in _NAMESPACES})
    return [name for name in contexts if name in exact or (beginnings and name.startswith(beginnings))]


def selected_contexts(offered: Sequence[str], queries: Iterable[str]) -> list[str]:
    """Return the contexts that a SET_META_CONTEXT with `queries` selects: by whole name, in the order they are asked for."""
    known = {c.META_CONTEXT_ALLOCATION, *offered}
    return list(dict.fromkeys(query for query in queries if query in known))


def open_contexts(export: Export, names: Sequence[str]) -> tuple[SelectedContext, ...]:
    """Open what a connection selected on `export`; all or none. Raises IsochroneError when one is gone since."""
    opened: list[SelectedContext] = []
    try:
        for position, name in enumerate(names):
            states = AllocationMap(export) if name == c.META_CONTEXT_ALLOCATION else export.open_map(name)
            opened.append(SelectedContext(context_id(position), name, states))
    except Exception:
        close_contexts(opened)
        raise
    return tuple(opened)


def close_contexts(contexts: Iterable[SelectedContext]) -> None:
    """Let go of what `open_contexts` gave."""
    for context in contexts:
        context.states.close()


def context_id(position: int) -> int:
    """Return the number of the context that a connection selected at `position`."""
    return position + 1


_NAMESPACES: Final = frozenset(
    {c.META_CONTEXT_NAMESPACE, c.META_CONTEXT_CHANGED_NAMESPACE, c.META_CONTEXT_CHANGED_PREFIX}
)
