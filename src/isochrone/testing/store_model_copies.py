"""Point-in-time copies in the store's model: each is one step, also of several volumes and documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from isochrone.model.volume_kind import VolumeKind
from isochrone.testing.store_model import StoreModel

Documents = Mapping[str, bytes | None]
"""Changes of documents: the new value by key, None deletes."""

Extent = tuple[int, int, int]
"""First track of the source, first track of the target, count."""


class Copy(NamedTuple):
    """A new volume that is what `source` is now."""

    source: int
    number: int
    name: str
    kind: VolumeKind


class CopiesModel(StoreModel):
    """A StoreModel whose volumes are copied, together and in part."""

    def copy_together(self, copies: Sequence[Copy], documents: Documents) -> None:
        """New volumes of the cells that their sources map to now, and documents (None: deleted)."""
        volumes = dict(self.state.volumes)
        for copy in copies:
            origin = self.state.volumes[copy.source]
            volumes[copy.number] = replace(origin, name=copy.name, kind=copy.kind)
        self._push(volumes, self._with_documents(documents))

    def delete_together(self, numbers: Sequence[int], documents: Documents) -> None:
        """Several volumes are gone, and documents change."""
        volumes = {number: volume for number, volume in self.state.volumes.items() if number not in numbers}
        self._push(volumes, self._with_documents(documents))

    def establish(
        self, source: int, target: int, extents: Sequence[Extent] | None, documents: Documents
    ) -> None:
        """Tracks of `target` become what those of `source` are at this instant; None: all of it, with its size.

        An extent is (first track of the source, first track of the target, count); no two overlap in the target.
        """
        origin, volume = self.state.volumes[source], self.state.volumes[target]
        if extents is None:
            self._push(
                {
                    **self.state.volumes,
                    target: replace(volume, size_bytes=origin.size_bytes, tracks=origin.tracks),
                },
                self._with_documents(documents),
            )
            return
        tracks = dict(volume.tracks)
        for source_track, target_track, count in extents:
            for at in range(count):
                tracks.pop(target_track + at, None)
                if source_track + at in origin.tracks:
                    tracks[target_track + at] = origin.tracks[source_track + at]
        self._push(
            {**self.state.volumes, target: replace(volume, tracks=tracks)}, self._with_documents(documents)
        )

    def exclusive_bytes(self, numbers: Sequence[int]) -> int:
        """Return what deleting these volumes together gives back: tracks that nothing else maps to or has staged."""
        references = self.state.references()
        mine = Counter(cell for number in numbers for cell in self.state.volumes[number].tracks.values())
        return sum(references[cell] == count for cell, count in mine.items()) * self.track_size_bytes

    def pointers_differ(self, a: int, b: int, first: int, end: int) -> set[int]:
        """Return the tracks in [first, end) that two volumes map to different cells, or only one of them maps."""
        of_a, of_b = self.state.volumes[a].tracks, self.state.volumes[b].tracks
        return {track for track in range(first, end) if of_a.get(track) is not of_b.get(track)}

    def _with_documents(self, changes: Documents) -> dict[str, bytes]:
        after = {**self.state.documents, **changes}
        return {key: value for key, value in after.items() if value is not None}
