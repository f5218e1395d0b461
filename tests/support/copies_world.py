"""A `StoreWorld` whose volumes are copied, established onto each other, compared and weighed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from isochrone.model.errors import RefusedError
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.establish import Extent as StoreExtent
from isochrone.store.volume_set import CopyItem
from isochrone.testing.store_model_copies import CopiesModel, Copy, Documents, Extent
from support.store_world import TRACK, StoreWorld


class CopiesWorld(StoreWorld):
    """One pool of volumes and their copies through many lives."""

    model: CopiesModel

    def _make_model(self) -> CopiesModel:
        return CopiesModel(TRACK)

    def name(self, number: int) -> str:
        """The name of a volume."""
        return self.model.state.volumes[number].name

    def create_copies(self, copies: Mapping[str, tuple[int, VolumeKind]], documents: Documents) -> None:
        """Copy several volumes, given as new name -> (source, kind), at one instant."""
        items = [CopyItem(self.name(source), name, kind) for name, (source, kind) in copies.items()]

        def change_model(numbers: list[int]) -> None:
            made = [
                Copy(source, number, name, kind)
                for number, (name, (source, kind)) in zip(numbers, copies.items(), strict=True)
            ]
            self.model.copy_together(made, documents)

        self._create(
            list(copies),
            change_model,
            lambda: [volume.number for volume in self.pool.create_copies(items, documents)],
        )

    def delete_volumes(self, numbers: Sequence[int], documents: Documents) -> None:
        """Delete several volumes at one instant: exactly what they held alone comes back (P5.6)."""
        names = [self.name(number) for number in numbers]
        gives_back = self.model.exclusive_bytes(numbers)
        used_before = self.pool.used_track_count
        done = self._do(
            lambda: self.model.delete_together(numbers, documents),
            lambda: self.pool.delete_volumes(names, documents),
        )
        if done:
            self.model.logged()
            assert (used_before - self.pool.used_track_count) * TRACK == gives_back

    def establish(
        self, source: int, target: int, extents: Sequence[Extent] | None, documents: Documents
    ) -> None:
        """Make tracks of one volume what those of another are now; None: all of it."""
        names = self.name(source), self.name(target)
        told = None if extents is None else [StoreExtent(*extent) for extent in extents]
        tracks = [to + at for _, to, count in extents or () for at in range(count)]
        if len(tracks) != len(set(tracks)):
            assert is_refused(lambda: self.pool.establish(*names, told, documents))
            return
        done = self._do(
            lambda: self.model.establish(source, target, extents, documents),
            lambda: self.pool.establish(*names, told, documents),
        )
        if done:
            self.model.logged()

    def check_refused(self, number: int) -> None:
        """A snapshot takes no write, trim, resize, establish or staged record, and stays what it is."""
        volume = self.pool.volume_by_number(number)
        name, size_bytes = volume.name, volume.size_bytes
        for attempt in (
            lambda: volume.write(0, self.new_bytes(TRACK)),
            lambda: volume.write(5, b"x"),
            lambda: volume.zero(0, TRACK, allocate=False),
            lambda: volume.zero(0, TRACK, allocate=True),
            lambda: self.pool.resize_volume(name, size_bytes + TRACK),
            lambda: self.pool.establish(self.name(self.numbers()[0]), name, None),
        ):
            assert is_refused(attempt), "a snapshot was changed"
        self.check_now()

    def check_diff(self, a: int, b: int, first: int, end: int) -> None:
        """Every track that differs is told, and none that was written in neither since they were one."""
        firsts, counts = self.pool.diff(a, b, first, end)
        runs = list(zip(firsts.tolist(), counts.tolist(), strict=True))
        assert all(at + count < later for (at, count), (later, _) in pairwise(runs)), "runs touch"
        told = {track for at, count in runs for track in range(at, at + count)}
        contents = [self._padded(number, end) for number in (a, b)]
        for track in range(first, end):
            at = slice(track * TRACK, (track + 1) * TRACK)
            assert contents[0][at] == contents[1][at] or track in told, f"track {track} differs: not told"
        assert told == self.model.pointers_differ(a, b, first, end)

    def _padded(self, number: int, end: int) -> bytes:
        """Content of the first `end` tracks; beyond its end a volume is zeros."""
        volume = self.pool.volume_by_number(number)
        return volume.read(0, min(volume.size_bytes, end * TRACK)).ljust(end * TRACK, b"\0")

    def check_space(self, numbers: Sequence[int]) -> None:
        """What volumes hold alone, and what they show, is exact."""
        space = self.pool.space([self.name(number) for number in numbers])
        maps = [self.model.state.volumes[number].tracks for number in numbers]
        assert space.mapped_bytes == sum(map(len, maps)) * TRACK
        assert space.exclusive_bytes == self.model.exclusive_bytes(numbers)


def is_refused(attempt: Callable[[], object]) -> bool:
    """Whether the store says that it will not."""
    try:
        attempt()
    except RefusedError:
        return True
    return False
