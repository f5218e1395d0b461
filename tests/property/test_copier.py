"""The copier beside writes, against the naive secondary: the image ends equal (P2.1), never older than promised (P2.4).

A volume is copied in steps of any size while an application writes and trims anywhere. The naive receiver applies every
record in order. In the end both read the same; and at every moment a track that was sent reads there as it does here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.capture.copier import REREAD_NS_MIN, Copier
from isochrone.model.records import RECORD_DTYPE, RecordBatch, RecordKind
from isochrone.testing.sim_disk import SimDisk, fail_nth
from support.store import TRACK, new_pool, tags, tracks

TRACK_COUNT = 12


@dataclass(frozen=True)
class Write:
    track: int
    count: int
    tag: int


@dataclass(frozen=True)
class Trim:
    track: int
    count: int


@dataclass(frozen=True)
class Step:
    tracks_max: int
    fails: bool


def runs() -> st.SearchStrategy[tuple[int, int]]:
    return st.integers(0, TRACK_COUNT - 1).flatmap(
        lambda track: st.tuples(st.just(track), st.integers(1, TRACK_COUNT - track))
    )


writes = st.builds(lambda run, tag: Write(run[0], run[1], tag), runs(), st.integers(1, 255))
trims = st.builds(lambda run: Trim(*run), runs())
steps = st.builds(Step, st.integers(1, TRACK_COUNT), st.booleans())


@given(
    before=st.lists(writes, max_size=3),
    marked=st.sets(st.integers(0, TRACK_COUNT - 1)),
    events=st.lists(st.one_of(writes, trims, steps), max_size=12),
)
@settings(max_examples=80, deadline=None)
def test_p2_1_copying_beside_any_writes_leaves_both_sides_equal(
    before: list[Write], marked: set[int], events: list[Write | Trim | Step]
) -> None:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk, track_count=32)
    volume = pool.create_volume("a", TRACK_COUNT * TRACK)
    for write in before:
        volume.write(write.track * TRACK, tracks(write.tag) * write.count)
    # The secondary has what was written before, but for the marked tracks: there it holds anything.
    remote = [0xEE if track in marked else tag for track, tag in enumerate(tags(pool, "a", TRACK_COUNT))]
    flags = np.zeros(TRACK_COUNT, np.bool_)
    flags[list(marked)] = True
    copier = Copier(volume, flags, TRACK)
    missing = set(marked)
    copied_count = 0

    def apply(batch: RecordBatch) -> None:
        payload = batch.payload
        for _, _, track, count, kind in np.frombuffer(batch.headers, RECORD_DTYPE).tolist():
            for number in range(track, track + count):
                remote[number] = 0
                if kind & RecordKind.DATA:
                    remote[number], payload = payload[0], payload[TRACK:]
                missing.discard(number)
        assert not payload

    for now_ns, event in enumerate([*events, *[Step(3, False)] * TRACK_COUNT]):
        if isinstance(event, Step):
            if event.fails and copier.remaining:
                disk.hook = fail_nth(1, kind="read")
            batch = copier.step(now_ns, event.tracks_max)
            disk.hook = None
            batch = batch or copier.reread(now_ns + REREAD_NS_MIN)
            assert (batch is None) == (not missing)
            if batch is not None:
                headers = np.frombuffer(batch.headers, RECORD_DTYPE)
                count = int(headers["track_count"].sum())
                assert 0 < count <= event.tracks_max
                copied_count += count
                apply(batch)
        else:
            if isinstance(event, Write):
                volume.write(event.track * TRACK, tracks(event.tag) * event.count)
            else:
                volume.zero(event.track * TRACK, event.count * TRACK, allocate=False)
            sent = copier.sendable_runs(event.track, event.count)
            for first, count in sent:
                assert not missing & set(range(first, first + count))
                for track in range(first, first + count):
                    remote[track] = tags(pool, "a", 1, track)[0]
        assert copier.remaining == len(missing)
        local = tags(pool, "a", TRACK_COUNT)
        assert all(remote[track] == local[track] for track in range(TRACK_COUNT) if track not in missing)
    assert remote == tags(pool, "a", TRACK_COUNT)
    # P2.6: what was marked is copied once each, and nothing else.
    assert copied_count == len(marked)
