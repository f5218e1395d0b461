"""Ranges of a relation: bytes as people give them, to tracks, checked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from isochrone.copies.documents import RelationExtent
from isochrone.model.errors import RefusedError

TrackExtent = tuple[int, int, int]
"""Source track, target track, count."""


def track_extents(extents: Sequence[RelationExtent], track_size_bytes: int) -> list[TrackExtent]:
    """Return `extents` in tracks."""
    return [
        (
            extent.source_offset // track_size_bytes,
            extent.target_offset // track_size_bytes,
            extent.length // track_size_bytes,
        )
        for extent in extents
    ]


def check_extents(
    extents: Sequence[RelationExtent],
    *,
    track_size_bytes: int,
    source_size_bytes: int,
    target_size_bytes: int,
) -> None:
    """Raise RefusedError unless every extent is of whole tracks, lies in both volumes, and no two overlap in the target."""
    for extent in extents:
        if (extent.source_offset | extent.target_offset | extent.length) % track_size_bytes:
            raise RefusedError(
                f"extent {_text(extent)} is not of whole tracks: use multiples of {track_size_bytes}",
                track_size_bytes=track_size_bytes,
            )
        if extent.source_offset + extent.length > source_size_bytes:
            raise RefusedError(
                f"extent {_text(extent)} ends beyond the source, which has {source_size_bytes} bytes"
            )
        if extent.target_offset + extent.length > target_size_bytes:
            raise RefusedError(
                f"extent {_text(extent)} ends beyond the target, which has {target_size_bytes} bytes"
            )
    ordered = sorted(extents, key=lambda extent: extent.target_offset)
    for first, second in itertools.pairwise(ordered):
        if first.target_offset + first.length > second.target_offset:
            raise RefusedError(
                f"extents {_text(first)} and {_text(second)} overlap in the target: leave one out"
            )


def _text(extent: RelationExtent) -> str:
    return f"{extent.source_offset}:{extent.length}:{extent.target_offset}"
