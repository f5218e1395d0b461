"""A pool with a session that keeps its history, and the truth beside it: the rules that may come in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isochrone.model.records import RecordKind
from isochrone.model.volume_kind import VolumeKind
from isochrone.store import history_files, history_keeper, kept_entries
from isochrone.store.check import check_pool
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk
from support.history import SESSION, image, rewound, shown
from support.store import TRACK, records, run, tracks

VOLUME_TRACKS = 6
NAMES = ("a", "b", "c")

RARELY = st.integers(0, 4).map(lambda number: number == 4)

Content = dict[int, int]
"""Tag by track; none for zeros."""


@dataclass
class Stay:
    """A volume in the history: what it was at `from_ns`, what was committed since, and until when that is kept."""

    from_ns: int
    base: Content
    until_ns: int | None = None
    written: list[tuple[int, int, int]] = field(default_factory=list)
    """(time, track, tag), tag 0 for zeros."""


@dataclass
class Truth:
    """What must be shown: everything that was ever committed, by time, in plain values."""

    now_ns: int = 0
    committed_ns: int = 0
    first_ns: int | None = None
    contents: dict[int, Content] = field(default_factory=dict)
    stays: dict[int, list[Stay]] = field(default_factory=dict)
    staged: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(time, volume, track, tag)."""
    newest_ns: dict[int, int] = field(default_factory=dict)
    """Of what was committed, by volume."""

    def at(self, number: int, at_ns: int) -> Content | None:
        """What a volume was at a time, None when no image of it may be had."""
        if self.first_ns is None or not self.first_ns <= at_ns <= self.committed_ns:
            return None
        for stay in reversed(self.stays.get(number, [])):
            until_ns = self.committed_ns if stay.until_ns is None else stay.until_ns
            if stay.from_ns <= at_ns <= until_ns:
                content = dict(stay.base)
                rows = sorted((row for row in stay.written if row[0] <= at_ns), key=lambda row: row[0])
                content.update((track, tag) for _, track, tag in rows)
                return content
        return None

    def commit(self, through_ns: int) -> None:
        """What is staged up to a time is seen, and kept."""
        done = sorted((row for row in self.staged if row[0] <= through_ns), key=lambda row: row[0])
        self.staged = [row for row in self.staged if row[0] > through_ns]
        for time_ns, number, track, tag in done:
            self.contents[number][track] = tag
            self.newest_ns[number] = time_ns
            stays = self.stays.get(number)
            if stays and stays[-1].until_ns is None:
                stays[-1].written.append((time_ns, track, tag))
        self.committed_ns = through_ns
        self.now_ns = max(self.now_ns, through_ns)


class HistoryMachine(RuleBasedStateMachine):
    """A pool with a session, and the truth beside it."""

    @initialize(
        step=st.integers(1, 5),
        piece=st.integers(1, 8),
        sealed=st.sampled_from([1, 3, 8, 1000]),
        kept=st.sets(st.sampled_from([1, 2, 3]), min_size=1),
    )
    def create(self, step: int, piece: int, sealed: int, kept: set[int]) -> None:
        """Small steps and pieces, so that their borders are met."""
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(history_keeper, "HISTORY_STEP_RECORD_COUNT_MAX", step)
        self._patch.setattr(kept_entries, "PIECE_ENTRY_COUNT_MAX", piece)
        self._patch.setattr(history_files, "HISTORY_SEAL_RECORD_COUNT", sealed)
        self.disk = SimDisk(seed=1)
        Pool.create(self.disk, size_bytes=512 * TRACK)
        self.pool = Pool.open(self.disk)
        self.truth = Truth()
        for name in NAMES:
            self.pool.create_volume(name, VOLUME_TRACKS * TRACK)
        for number in (1, 2, 3):
            self.truth.contents[number] = {}
        for number in sorted(kept):
            self.begin(number)

    def teardown(self) -> None:
        """Give the constants back."""
        if hasattr(self, "_patch"):
            self._patch.undo()

    @rule(
        number=st.sampled_from([1, 2, 3]),
        rows=st.lists(
            st.tuples(
                st.integers(0, 3), st.integers(0, VOLUME_TRACKS - 1), st.integers(1, 3), st.integers(0, 255)
            ),
            min_size=1,
            max_size=5,
        ),
        commit=st.booleans(),
    )
    def stage(self, number: int, rows: list[tuple[int, int, int, int]], commit: bool) -> None:
        """Stage records of a volume, each volume by a source of its own, and commit at times; a tag of 0 is zeros."""
        truth = self.truth
        time_ns = truth.now_ns
        array = []
        payload: list[int] = []
        for gap, track, count, tag in rows:
            time_ns += gap
            length = min(count, VOLUME_TRACKS - track)
            kind = RecordKind.DATA if tag else RecordKind.ZERO
            array.append((time_ns, number, track, length, kind))
            payload += [tag] * (length if tag else 0)
            truth.staged += [(time_ns, number, track + i, tag) for i in range(length)]
        self.pool.stage(SESSION, number, time_ns, records(*array), tracks(*payload))
        truth.now_ns = time_ns
        if commit:
            self.commit(0)

    @rule(number=st.sampled_from([2, 3]), back=st.integers(0, 30), track=st.integers(0, VOLUME_TRACKS - 1))
    def stage_late(self, number: int, back: int, track: int) -> None:
        """A source that was behind sends what is older than what others have committed."""
        truth = self.truth
        floor_ns = self.pool.staged_through_ns(SESSION, number)
        time_ns = max(floor_ns, truth.now_ns - back)
        if time_ns < max(
            [truth.newest_ns.get(number, 0), *(row[0] for row in truth.staged if row[1] == number)]
        ):
            return  # within a volume times ascend
        self.pool.stage(
            SESSION, number, time_ns, records((time_ns, number, track, 1, RecordKind.DATA)), tracks(99)
        )
        truth.staged.append((time_ns, number, track, 99))

    @rule(ahead=st.integers(-4, 3))
    def commit(self, ahead: int) -> None:
        """Commit up to a time around the newest."""
        truth = self.truth
        through_ns = max(truth.committed_ns, truth.now_ns + ahead)
        self.pool.commit(SESSION, through_ns)
        truth.commit(through_ns)

    @rule(number=st.sampled_from([1, 2, 3]))
    def begin(self, number: int) -> None:
        """A volume is kept from now on."""
        truth = self.truth
        stays = truth.stays.setdefault(number, [])
        self.pool.history_begin(SESSION, [number])
        if not stays or stays[-1].until_ns is not None:
            stays.append(Stay(truth.committed_ns, dict(truth.contents[number])))
            if truth.first_ns is None:
                truth.first_ns = truth.committed_ns

    @rule(number=st.sampled_from([1, 2, 3]), is_meant=RARELY)
    def end(self, number: int, is_meant: bool) -> None:
        """A volume is not kept any more."""
        if not is_meant:
            return
        stays = self.truth.stays.get(number)
        self.pool.history_end(SESSION, number)
        if stays and stays[-1].until_ns is None:
            stays[-1].until_ns = self.truth.committed_ns
            self._forget_passed()

    @precondition(lambda self: self.truth.first_ns is not None)
    @rule(back=st.integers(0, 20))
    def release(self, back: int) -> None:
        """Give the oldest up."""
        done = self.pool.history_release(SESSION, max(0, self.truth.committed_ns - back))
        assert self.truth.first_ns is not None
        assert done.first_ns >= self.truth.first_ns
        self.truth.first_ns = done.first_ns
        self._forget_passed()

    @rule(is_meant=RARELY)
    def give_up(self, is_meant: bool) -> None:
        """The pool is full: a step's worth goes, or all if the bases alone hold tracks."""
        if not is_meant:
            return
        self.pool._histories.give_up_oldest()
        stats = self.pool.history(SESSION)
        if stats is None:
            self.truth.first_ns = None
            self.truth.stays.clear()
        else:
            self.truth.first_ns = stats.first_ns
            self._forget_passed()

    def _forget_passed(self) -> None:
        truth = self.truth
        assert truth.first_ns is not None
        for number, stays in truth.stays.items():
            truth.stays[number] = [s for s in stays if s.until_ns is None or s.until_ns > truth.first_ns]
        if not any(truth.stays.values()):
            truth.first_ns = None
            assert self.pool.histories == ()

    @precondition(lambda self: self.truth.first_ns is not None)
    @rule(is_meant=RARELY)
    def drop(self, is_meant: bool) -> None:
        """Give all of it up."""
        if not is_meant:
            return
        self.pool.history_drop(SESSION)
        self.truth.first_ns = None
        self.truth.stays.clear()

    @precondition(lambda self: self.truth.first_ns is not None)
    @rule(back=st.integers(0, 12), is_meant=RARELY)
    def rewind(self, back: int, is_meant: bool) -> None:
        """Go back; what is staged behind it is discarded first. The next commit shows that another future began."""
        truth = self.truth
        assert truth.first_ns is not None
        if not is_meant:
            return
        at_ns = max(truth.first_ns, truth.committed_ns - back)
        present = [n for n, stays in truth.stays.items() if stays and stays[-1].until_ns is None]
        present = [n for n in present if truth.stays[n][-1].from_ns <= at_ns]
        if len(present) < sum(bool(stays) for stays in truth.stays.values()):
            return  # volumes that stay as they are: logic tests have them
        if any(stay.from_ns > at_ns for stays in truth.stays.values() for stay in stays):
            return
        self.pool.discard(SESSION, at_ns)
        changed = rewound(self.pool.history_rewind(SESSION, at_ns))
        for number in present:
            content = truth.at(number, at_ns)
            assert content is not None
            before = truth.contents[number]
            differs = {t for t in range(VOLUME_TRACKS) if before.get(t, 0) != content.get(t, 0)}
            assert differs <= set(changed[number])
            truth.contents[number] = content
        truth.staged = [row for row in truth.staged if row[0] <= at_ns]
        for number in present:
            stay = truth.stays[number][-1]
            stay.written = [row for row in stay.written if row[0] <= at_ns]
            truth.newest_ns[number] = min(truth.newest_ns.get(number, 0), at_ns)
        truth.now_ns = max(at_ns, *truth.newest_ns.values())
        self.pool.commit(SESSION, truth.now_ns + 1)
        truth.commit(truth.now_ns + 1)

    @rule()
    def sync(self) -> None:
        """Make durable; give back."""
        run(self.pool.sync())

    @rule()
    def checkpoint(self) -> None:
        """Write the state."""
        run(self.pool.checkpoint())

    @rule(power=st.booleans())
    def crash(self, power: bool) -> None:
        """The process dies, or the machine after a sync; everything must be as it was."""
        if power:
            run(self.pool.sync())
            self.disk.power_loss(Random(1))
        else:
            self.pool.log_write()
            self.disk.kill()
        assert not check_pool(self.disk).problems
        self.pool = Pool.open(self.disk)

    @precondition(lambda self: self.truth.first_ns is not None)
    @rule(number=st.sampled_from([1, 2, 3]), data=st.data())
    def interrupted_image(self, number: int, data: st.DataObject) -> None:
        """An image whose maker dies in the middle, with a checkpoint or without."""
        truth = self.truth
        assert truth.first_ns is not None
        at_ns = data.draw(st.integers(truth.first_ns, truth.committed_ns))
        if truth.at(number, at_ns) is None:
            return
        steps = self.pool.history_image(SESSION, at_ns, {number: "half"}, VolumeKind.COPY)
        for _ in range(data.draw(st.integers(0, 2))):
            call = next(steps, None)
            if call is not None:
                call()
        if data.draw(st.booleans()):
            run(self.pool.checkpoint())
        if data.draw(st.booleans()):
            self.crash(power=False)
        else:
            steps.close()
        if "half" in self.pool.volumes:
            self.pool.delete_volume("half")

    @invariant()
    def every_instant_is_shown(self) -> None:
        """At each time that anything happened, and volumes as they are."""
        if not hasattr(self, "truth"):
            return
        truth, pool = self.truth, self.pool
        for number, name in zip((1, 2, 3), NAMES, strict=True):
            expected = [truth.contents[number].get(track, 0) for track in range(VOLUME_TRACKS)]
            assert shown(pool.volumes[name]) == expected
        stats = pool.history(SESSION)
        assert (stats.first_ns if stats else None) == truth.first_ns
        assert len(pool._state.volumes) == len(NAMES) + sum(map(len, truth.stays.values()))
        if truth.first_ns is not None:
            assert stats is not None
            assert stats.through_ns == truth.committed_ns
            stays = [stay for stays in truth.stays.values() for stay in stays]
            times = {row[0] for stay in stays for row in stay.written} | {stay.from_ns for stay in stays}
            times |= {truth.first_ns, truth.committed_ns}
            within = sorted(time for time in times if truth.first_ns <= time <= truth.committed_ns)
            for at_ns in (*within[:2], *within[-2:]):
                self._check_image(at_ns)
        pool.verify()

    def _check_image(self, at_ns: int) -> None:
        wanted = {n: content for n in (1, 2, 3) if (content := self.truth.at(n, at_ns)) is not None}
        volumes = image(self.pool, at_ns, {number: f"i{number}" for number in wanted})
        for volume, content in zip(volumes, wanted.values(), strict=True):
            assert shown(volume) == [content.get(track, 0) for track in range(VOLUME_TRACKS)], at_ns
        self.pool.delete_volumes([volume.name for volume in volumes])
