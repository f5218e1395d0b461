"""`pool check`: proof, without changing a byte, that a pool's files agree with themselves and each other.

First every part by itself, going on after a finding so that one report names them all: superblock, file
sizes, root, the page directory, every page in use against its checksum, the log's segments. If all of them
are whole, the state is recovered as opening would, and all that the pool keeps by adding up (reference
counts, free map, mapped tracks, staged entries) is computed anew from tables and staged entries and compared.

Not in use, and not looked at: free page slots, segments of old generations, what lies behind the end of the
log, `root.new`, and free tracks. Contents of tracks are the user's: only their own checksums could tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import numpy as np
from xxhash import xxh3_64_intdigest

from isochrone.model.errors import DamagedError, IsochroneError
from isochrone.store.chain import read_chain
from isochrone.store.disk import Disk
from isochrone.store.page_cache import drop_lost_pages
from isochrone.store.page_slots import PAGE_SIZE_BYTES, PAGES_NAME
from isochrone.store.parts import open_part
from isochrone.store.recovery import Recovered, load_history_files, load_root, load_superblock, recover
from isochrone.store.root import ROOT_NAME, Root
from isochrone.store.segment import SEGMENT_NAMES
from isochrone.store.superblock import Superblock
from isochrone.store.verify import verify_state

_T = TypeVar("_T")

PROBLEM_COUNT_MAX: Final = 1000
"""Problems listed in one report."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One contradiction: the file, the byte in it, and what is wrong."""

    file: str
    offset: int
    text: str


@dataclass(slots=True)
class CheckReport:
    """What `check_pool` found. Its length is the number of problems: a clean report is empty.

    Attributes:
        problems: at most PROBLEM_COUNT_MAX.
        notes: what is not a problem but worth knowing: what opening would leave out.
        volume_count, track_count, used_track_count, free_track_count, staged_track_count, page_count,
        log_record_count: the pool as it would open; 0 when it would not.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    volume_count: int = 0
    track_count: int = 0
    used_track_count: int = 0
    free_track_count: int = 0
    staged_track_count: int = 0
    page_count: int = 0
    log_record_count: int = 0

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def is_clean(self) -> bool:
        """Whether nothing contradicts itself."""
        return not self.problems

    def add(self, file: str, offset: int, text: str) -> None:
        """Note a problem."""
        if len(self.problems) < PROBLEM_COUNT_MAX:
            self.problems.append(Problem(file, offset, text))


def check_pool(disk: Disk) -> CheckReport:
    """Return what is wrong with the pool in `disk`, which nobody has open (the caller holds its lock).

    Raises:
        NotFoundError: there is no pool.
        RefusedError: a later version wrote it.
        OSError: the disk failed.
    """
    report = CheckReport()
    superblock = _part(report, lambda: load_superblock(disk))
    if superblock is None:
        return report
    _part(report, lambda: drop_lost_pages(disk, superblock))
    _check_sizes(disk, superblock, report)
    root = _part(report, lambda: load_root(disk, superblock))
    if root is None:
        return report
    _check_directory(root, report)
    _part(report, lambda: _check_slots(disk, root, report))
    _part(report, lambda: _check_history(disk, superblock, root, report))
    _part(report, lambda: read_chain(disk, superblock, root))
    if report.is_clean:
        recovered = _part(report, lambda: recover(disk))
        if recovered is not None:
            _check_state(recovered, report)
    return report


def _part(report: CheckReport, check: Callable[[], _T]) -> _T | None:
    """Return what `check` returns; None, with a problem in the report, when it finds damage."""
    try:
        return check()
    except DamagedError as error:
        offset = error.fields.get("offset", 0)
        file = error.fields.get("file", error.fields.get("path", ""))
        report.add(str(file), offset if isinstance(offset, int) else 0, error.message)
        return None


def _check_sizes(disk: Disk, superblock: Superblock, report: CheckReport) -> None:
    """Every file is there and as long as it must be."""
    wanted = {superblock.tracks_path: superblock.tracks_size_bytes}
    wanted |= dict.fromkeys(SEGMENT_NAMES, superblock.log_segment_size_bytes)
    for name, size_bytes in wanted.items():
        try:
            file = open_part(disk, name)
        except IsochroneError as error:
            report.add(name, 0, error.message)
            continue
        try:
            if file.size_bytes() < size_bytes:
                report.add(name, file.size_bytes(), f"the file ends here, {size_bytes} bytes are needed")
        finally:
            file.close()


def _check_directory(root: Root, report: CheckReport) -> None:
    """Pages and slots of the root are distinct, and the volumes point at exactly these pages."""
    for what, numbers in (("page", root.pages), ("slot", root.slots)):
        if len(np.unique(numbers)) != len(numbers):
            report.add(ROOT_NAME, 0, f"the page directory names a {what} twice")
    pointed = np.unique(np.concatenate([root.pages[:0], *(volume.pages for volume in root.volumes)]))
    if not np.array_equal(pointed, np.sort(root.pages)):
        report.add(ROOT_NAME, 0, "the volumes and the page directory do not name the same pages")
    names = [volume.name for volume in root.volumes if not volume.kind.is_hidden]
    if len(set(names)) != len(names):
        report.add(ROOT_NAME, 0, "two volumes have one name")


def _check_slots(disk: Disk, root: Root, report: CheckReport) -> None:
    """Every page in use is there and matches the checksum that the root keeps of it."""
    file = open_part(disk, PAGES_NAME)
    try:
        end = file.size_bytes() // PAGE_SIZE_BYTES
        for slot, checksum in zip(root.slots.tolist(), root.checksums.tolist(), strict=True):
            offset = slot * PAGE_SIZE_BYTES
            if slot >= end:
                report.add(PAGES_NAME, offset, "a table page is beyond the end of the file")
            elif xxh3_64_intdigest(file.pread(PAGE_SIZE_BYTES, offset)) != checksum:
                report.add(PAGES_NAME, offset, "a table page contradicts its checksum")
    finally:
        file.close()


def _check_history(disk: Disk, superblock: Superblock, root: Root, report: CheckReport) -> None:
    """Every piece of the files of history that the root names agrees with its checksum."""
    for file in load_history_files(disk, superblock, root).known.values():
        for place in range(len(file.index)):
            _part(report, partial(file.read, place))


def _check_state(recovered: Recovered, report: CheckReport) -> None:
    """The state as it would open agrees with itself; fill in what the report says of it."""
    state = recovered.state
    for finding in verify_state(state):
        report.add(ROOT_NAME, 0, f"with the log replayed: {finding}")
    if recovered.loss:
        report.notes.append(f"{recovered.loss}: opening leaves out what was not synced")
    if recovered.cut:
        report.notes.append(f"not vouched for and left out at opening: {recovered.cut}")
    report.volume_count = len(state.volumes)
    report.track_count = state.allocator.track_count
    report.used_track_count = state.allocator.used_count
    report.free_track_count = state.allocator.free_count
    report.staged_track_count = state.staged_track_count
    report.page_count = state.arena.live_count
    report.log_record_count = recovered.replayed_count
