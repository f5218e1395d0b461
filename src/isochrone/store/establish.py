"""Flash copies on an open pool: an existing volume, or ranges of it, become what another one is now.

The whole of a volume is the way back, too: `establish` of a snapshot onto the volume that it was made of restores it.
Only what differs is touched, so making the same copy again costs what has changed since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from isochrone.model.errors import RefusedError
from isochrone.store.documents import Documents
from isochrone.store.limits import ESTABLISH_ENTRY_COUNT_MAX, EXTENT_COUNT_MAX
from isochrone.store.log_records import RecordType, pack_establish
from isochrone.store.pointer_copy import Extents, entry_count, pages_to_change, repeats_after
from isochrone.store.references import check_references
from isochrone.store.tables import VolumeTable
from isochrone.store.volume import Volume, VolumeParts
from isochrone.store.volume_set import VolumeSet, check_writable


class Extent(NamedTuple):
    """A range to be copied: `track_count` tracks from `source_track` on become those from `target_track` on."""

    source_track: int
    target_track: int
    track_count: int


def establish(
    parts: VolumeParts,
    volumes: VolumeSet,
    documents: Documents,
    names: tuple[str | int, str],
    extents: Sequence[Extent] | None,
    changes: Mapping[str, bytes | None],
) -> None:
    """Copy all, or `extents`, of the first of `names` onto the second; see `Pool.establish`."""
    parts.health.check()
    source, target = (volumes.volume(name) for name in names)
    check_writable(target, "copied onto")
    documents.check(changes)
    tables = parts.state.volumes[source.number], parts.state.volumes[target.number]
    ranges = None if extents is None else _checked(source, target, extents)
    if ranges is None:
        volumes.check_sizes([(source.size_bytes, target.size_bytes)])
        page_count = 0
    else:
        _check_entries(*tables, ranges)
        page_count = pages_to_change(*tables, ranges)
    check_references(parts.state, lambda: _growth(*tables, ranges))
    volumes.reserve_shared({source.number, target.number})
    if page_count:
        parts.reserve(0, page_count)
    parts.state.establish(source.number, target.number, ranges)
    target.refresh()
    record = (RecordType.ESTABLISH, pack_establish(source.number, target.number, ranges))
    volumes.log_together([record, *documents.change(changes)])


def _checked(source: Volume, target: Volume, extents: Sequence[Extent]) -> Extents:
    """Return `extents` as an array; RefusedError when one is not within its volume, or two write the same track."""
    if not 1 <= len(extents) <= EXTENT_COUNT_MAX:
        raise RefusedError(
            f"{len(extents)} ranges cannot be copied in one step: name 1 to {EXTENT_COUNT_MAX}, or copy the whole",
            count=len(extents),
        )
    for extent in extents:
        first, to, count = extent
        is_inside = 0 <= first <= source.track_count - count and 0 <= to <= target.track_count - count
        if count < 1 or not is_inside:
            raise RefusedError(
                f"{count} tracks from {first} on of {source.name} cannot become those from {to} on of {target.name}: "
                f"they have {source.track_count} and {target.track_count} tracks",
                extent=tuple(extent),
            )
    ranges: Extents = np.array(extents, np.int64)
    ordered = ranges[np.argsort(ranges[:, 1], kind="stable")]
    overlaps = np.flatnonzero(ordered[1:, 1] < ordered[:-1, 1] + ordered[:-1, 2])
    if len(overlaps):
        track = int(ordered[overlaps[0] + 1, 1])
        raise RefusedError(f"two of the ranges would become track {track} of {target.name}", track=track)
    return ranges


def _check_entries(source: VolumeTable, target: VolumeTable, ranges: Extents) -> None:
    count = entry_count(source, target, ranges)
    if count > ESTABLISH_ENTRY_COUNT_MAX:
        raise RefusedError(
            f"{count} tracks would have to be copied one by one, {ESTABLISH_ENTRY_COUNT_MAX} are the limit: copy in several "
            "steps, or choose ranges whose two places differ by a multiple of 1,024 tracks",
            count=count,
        )


def _growth(source: VolumeTable, target: VolumeTable, ranges: Extents | None) -> int:
    """Return by how much references to one track may come to be more, also for a moment while they are copied."""
    after = source.repeat_count_max if ranges is None else repeats_after(source, target, ranges)
    return max(after - target.repeat_count_max, 0) + source.repeat_count_max
