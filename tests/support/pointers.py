"""Tables of a pool beside plain lists of what they refer to, and steps that hypothesis chooses for both."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from isochrone.model.volume_kind import VolumeKind
from isochrone.store.state import PoolState
from isochrone.store.verify import verify_state

TRACK = 4096
SIZES = st.sampled_from([3, 1000, 1024, 1500, 2048, 3000])
TRACKS = st.one_of(
    st.integers(0, 4), st.integers(1020, 1028), st.sampled_from([0, 1024, 2048]), st.integers(0, 2999)
)
COUNTS = st.one_of(st.integers(1, 5), st.sampled_from([1024, 2048, 3000]), st.integers(1, 3000))


class Pointers:
    """A state, and beside it what each volume's tracks point at, as plain lists."""

    def __init__(self) -> None:
        self.state = PoolState(60_000, TRACK)
        self.state.rebuild()
        self.lists: dict[int, list[int]] = {}
        self.create(3000)

    def create(self, track_count: int) -> None:
        number = self.state.volume_number_next
        self.state.create_volume(number, f"v{number}", track_count * TRACK)
        self.lists[number] = [0] * track_count

    def write(self, number: int, first: int, count: int) -> None:
        """Redirect some tracks to fresh ones."""
        tracks = np.arange(first, first + count)
        self.give_pending_back()
        if self.state.allocator.free_count < count:
            self.reclaim()
            self.give_pending_back()
            if self.state.allocator.free_count < count:
                return
        fresh = self.state.allocator.take(count)
        self.state.tables.assign(self.state.volumes[number], tracks, fresh)
        self.lists[number][first : first + count] = fresh.tolist()

    def trim(self, number: int, first: int, count: int) -> None:
        self.state.unmap(number, first, count)
        self.lists[number][first : first + count] = [0] * count

    def copy(self, number: int) -> None:
        new = self.state.volume_number_next
        self.state.copy_volume(number, new, f"v{new}", VolumeKind.COPY)
        self.lists[new] = list(self.lists[number])

    def establish(self, source: int, target: int, extents: list[tuple[int, int, int]] | None) -> None:
        if extents is None:
            self.state.establish(source, target, None)
            self.lists[target] = list(self.lists[source])
            return
        self.state.establish(source, target, np.array(extents, np.int64))
        before = list(self.lists[source])
        for first, to, count in extents:
            self.lists[target][to : to + count] = before[first : first + count]

    def delete(self, number: int) -> None:
        self.state.delete_volume(number)
        del self.lists[number]

    def resize(self, number: int, track_count: int) -> None:
        self.state.resize_volume(number, track_count * TRACK)
        tracks = self.lists[number]
        self.lists[number] = (tracks + [0] * track_count)[:track_count]

    def give_pending_back(self) -> None:
        """As a sync does."""
        end = self.state.arena.held_end()
        self.state.allocator.release(self.state.allocator.take_pending())
        self.state.arena.release(end)

    def reclaim(self) -> None:
        while self.state.tables.doomed.reclaim():
            pass

    def check(self) -> None:
        for number, wanted in self.lists.items():
            table = self.state.volumes[number]
            assert self.state.tables.lookup(table, 0, table.track_count).tolist() == wanted
        assert not verify_state(self.state)
        self.reclaim()
        assert not verify_state(self.state)
        owned = {p for p, n in self.references().items() if n == 1}
        assert self.state.allocator.used_count == len(self.references())
        for number, tracks in self.lists.items():
            table = self.state.volumes[number]
            entries = self.state.tables.lookup(table, 0, table.track_count)
            for track in np.flatnonzero(self.state.tables.owned(table, 0, entries)).tolist():
                assert tracks[track] in owned, "a shared track would be overwritten in place"

    def references(self) -> dict[int, int]:
        counts: dict[int, int] = {}
        for tracks in self.lists.values():
            for physical in tracks:
                if physical:
                    counts[physical] = counts.get(physical, 0) + 1
        return counts


def draw_extents(data: DataObject, source_count: int, target_count: int) -> list[tuple[int, int, int]]:
    """Ranges that do not overlap in the target, often alike within their pages."""
    extents: list[tuple[int, int, int]] = []
    at = 0
    for _ in range(data.draw(st.integers(1, 4), "ranges")):
        to = at + data.draw(st.sampled_from([0, 0, 1, 24, 1024]), "gap")
        first = data.draw(st.one_of(st.just(to % 1024), st.just(to), TRACKS), "from") % source_count
        count = min(data.draw(COUNTS, "count"), source_count - first, target_count - to)
        if count < 1:
            break
        extents.append((first, to, count))
        at = to + count
    return extents


def step(data: DataObject, pointers: Pointers) -> None:
    numbers = st.sampled_from(sorted(pointers.lists))
    number = data.draw(numbers, "volume")
    track_count = len(pointers.lists[number])
    first = data.draw(TRACKS, "first") % track_count
    count = min(data.draw(COUNTS, "count"), track_count - first)
    match data.draw(st.sampled_from(STEPS), "step"):
        case "write":
            pointers.write(number, first, count)
        case "trim":
            pointers.trim(number, first, count)
        case "copy" if len(pointers.lists) < 5:
            pointers.copy(number)
        case "create" if len(pointers.lists) < 5:
            pointers.create(data.draw(SIZES, "size"))
        case "delete" if len(pointers.lists) > 1:
            pointers.delete(number)
        case "resize":
            pointers.resize(number, data.draw(SIZES, "size"))
        case "restore":
            pointers.establish(number, data.draw(numbers, "target"), None)
        case "establish":
            target = data.draw(numbers, "target")
            extents = draw_extents(data, track_count, len(pointers.lists[target]))
            if extents:
                pointers.establish(number, target, extents)
        case "sync":
            pointers.give_pending_back()


STEPS = [
    "write",
    "write",
    "trim",
    "copy",
    "create",
    "delete",
    "resize",
    "restore",
    *["establish"] * 4,
    "sync",
]
