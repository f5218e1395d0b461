"""From the files of a pool to its state: root, pages, log. Reads only; `Pool.open` makes the result durable.

Counts of references are not kept while replaying; one pass over all pages afterwards is exact and faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from xxhash import xxh3_64_intdigest

from isochrone.model.errors import DamagedError, NotFoundError
from isochrone.store.arena import PAGE_ENTRY_COUNT
from isochrone.store.chain import read_chain
from isochrone.store.disk import Disk, File
from isochrone.store.head import Trouble
from isochrone.store.history import History
from isochrone.store.history_files import HistoryFiles
from isochrone.store.kept_entries import KeptEntries
from isochrone.store.page_cache import drop_lost_pages
from isochrone.store.page_slots import PAGE_SIZE_BYTES, PAGES_NAME
from isochrone.store.parts import open_part
from isochrone.store.replay import replay
from isochrone.store.root import ROOT_NAME, Root, RootEntries, decode_root, root_damaged
from isochrone.store.runs import neighbours
from isochrone.store.staging import Chunk
from isochrone.store.state import PoolState
from isochrone.store.superblock import (
    SUPERBLOCK_NAME,
    SUPERBLOCK_SIZE_BYTES,
    Superblock,
    decode_superblock,
)
from isochrone.store.tables import VolumeTable

_LOAD_SLOT_COUNT: Final = 1024
"""Page slots read at once: 4 MiB."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the files of a pool say.

    Attributes:
        history_files: files of history that the state reads from.
        next_generation: of the log, never used before. A generation that was begun after the root's may have
            lost its header in a power loss but not all its records, so it is skipped.
        next_sequence: of the record that would come next.
        loss: why what was not synced may be gone, None when nothing can be.
        trouble: what the head tells of: a failed datasync, a loss found by an earlier open.
        replayed_count: log records applied on top of the root.
        cut: where a torn or not vouched for tail was left out, None when nothing was.
    """

    superblock: Superblock
    root: Root
    state: PoolState
    history_files: HistoryFiles
    next_generation: int
    next_sequence: int
    loss: str | None
    trouble: Trouble
    replayed_count: int
    cut: str | None


def recover(disk: Disk) -> Recovered:
    """Return the state of the pool in `disk`, without writing anything. What the cache alone holds may be dropped.

    Raises:
        NotFoundError: there is no pool.
        RefusedError: a later version wrote it.
        DamagedError: its files contradict themselves; says where.
    """
    superblock = load_superblock(disk)
    trouble = drop_lost_pages(disk, superblock)
    check_tracks(disk, superblock)
    root = load_root(disk, superblock)
    files = load_history_files(disk, superblock, root)
    state = load_state(disk, superblock, root, files)
    chain = read_chain(disk, superblock, root)
    replay(state, chain.records)
    state.rebuild()
    return Recovered(
        superblock,
        root,
        state,
        files,
        root.generation + 2,
        chain.end_sequence,
        chain.loss,
        trouble,
        len(chain.records),
        chain.cut,
    )


def load_superblock(disk: Disk) -> Superblock:
    """Return the superblock; NotFoundError when there is none."""
    try:
        file = disk.open(SUPERBLOCK_NAME)
    except FileNotFoundError:
        raise NotFoundError(
            "there is no pool in this folder: create one, or check the path", file=SUPERBLOCK_NAME
        ) from None
    try:
        return decode_superblock(file.pread(SUPERBLOCK_SIZE_BYTES, 0))
    finally:
        file.close()


def check_tracks(disk: Disk, superblock: Superblock) -> None:
    """Raise DamagedError when the tracks are missing or cut short: writing would make a hole look like data."""
    name = superblock.tracks_path
    file = open_part(disk, name)
    try:
        size_bytes = file.size_bytes()
    finally:
        file.close()
    if size_bytes < superblock.tracks_size_bytes:
        raise DamagedError(
            f"{name} ends at byte {size_bytes}, the pool's tracks need {superblock.tracks_size_bytes}: restore the "
            "file or device, or recover the volumes from the other site",
            file=name,
            offset=size_bytes,
        )


def load_root(disk: Disk, superblock: Superblock) -> Root:
    """Return the root; DamagedError when it is missing or broken."""
    file = open_part(disk, ROOT_NAME)
    try:
        return decode_root(file.pread(file.size_bytes(), 0), superblock.uuid)
    finally:
        file.close()


def load_history_files(disk: Disk, superblock: Superblock, root: Root) -> HistoryFiles:
    """Return the files of history that the root names; DamagedError when the index of one is broken."""
    files = HistoryFiles(disk, superblock.uuid)
    files.load(root.history_files)
    return files


def load_state(disk: Disk, superblock: Superblock, root: Root, files: HistoryFiles) -> PoolState:
    """Return the state that the root describes, references not yet counted."""
    page_top = int(root.pages.max(initial=0)) + 1
    state = PoolState(superblock.track_count, superblock.track_size_bytes, page_top)
    state.tables.accounting = False
    counts = np.zeros(page_top, np.uint16)
    for volume in root.volumes:
        table = VolumeTable(volume.number, volume.name, 0, 0, volume.kind)
        table.repeat_count_max = volume.repeat_count_max
        state.tables.resize(table, volume.size_bytes, volume.size_bytes // superblock.track_size_bytes)
        if len(volume.pages) and (
            volume.page_indexes.max() >= len(table.pages) or volume.pages.max() >= page_top
        ):
            raise root_damaged(0, f"volume {volume.name} points outside its table or the pages")
        table.pages[volume.page_indexes] = volume.pages
        np.add.at(counts, volume.pages, np.uint16(1))
        state.volumes[volume.number] = table
    if np.count_nonzero(counts) != len(root.pages) or not counts[root.pages].all():
        raise root_damaged(0, "the volumes and the page directory do not name the same pages")
    state.arena.load(root.pages, counts[root.pages])
    state.documents.update(root.documents)
    state.sessions.update(root.sessions)
    _load_histories(state, root, files)
    for number in root.unfinished:
        state.delete_volume(number)
    state.volume_number_next = root.volume_number_next
    file = open_part(disk, PAGES_NAME)
    try:
        _load_pages(file, root, state)
    finally:
        file.close()
    return state


def _load_histories(state: PoolState, root: Root, files: HistoryFiles) -> None:
    for kept in root.histories:
        history = History(kept.first_ns)
        history.through_ns, history.rewound_ns = kept.through_ns, kept.rewound_ns
        for stay in kept.volumes:
            if stay.base not in state.volumes:
                raise root_damaged(0, f"session {kept.session} has a history without its base {stay.base}")
            history.join(stay)
        _load_entries(history.entries, kept.entries, files)
        state.histories[kept.session] = history
    _load_entries(state.given_up, root.given_up, files)


def _load_entries(entries: KeptEntries, items: RootEntries, files: HistoryFiles) -> None:
    for item in items:
        if isinstance(item, Chunk):
            entries.add(item)
        elif item.file in files.known:
            file = files.known[item.file]
            entries.extend([file.piece(place) for place in range(item.first, item.first + item.piece_count)])
        else:
            raise root_damaged(0, f"a history is in file {item.file}, which the root does not name")


def _load_pages(file: File, root: Root, state: PoolState) -> None:
    """Read the pages in the order of their slots, neighbours together, and check each."""
    if len(root.slots) and int(root.slots.max()) >= file.size_bytes() // PAGE_SIZE_BYTES:
        raise root_damaged(0, f"a page is beyond the end of {PAGES_NAME}")
    order = np.argsort(root.slots, kind="stable")
    slots = root.slots[order].astype(np.int64)
    entries = state.arena.entries.reshape(-1, PAGE_ENTRY_COUNT)
    for start, stop in neighbours(slots):
        for at in range(start, stop, _LOAD_SLOT_COUNT):
            part = order[at : min(at + _LOAD_SLOT_COUNT, stop)]
            data = file.pread(len(part) * PAGE_SIZE_BYTES, int(slots[at]) * PAGE_SIZE_BYTES)
            _check_pages(memoryview(data), root.checksums[part].tolist(), int(slots[at]))
            loaded = np.frombuffer(data, "<u4").reshape(-1, PAGE_ENTRY_COUNT)
            if int(loaded.max()) > state.allocator.track_count:
                raise page_damaged(int(slots[at]), "a page points beyond the last track")
            entries[root.pages[part]] = loaded


def _check_pages(data: memoryview, checksums: list[int], slot: int) -> None:
    for index, checksum in enumerate(checksums):
        start = index * PAGE_SIZE_BYTES
        if xxh3_64_intdigest(data[start : start + PAGE_SIZE_BYTES]) != checksum:
            raise page_damaged(slot + index, "a table page contradicts its checksum")


def page_damaged(slot: int, what: str) -> DamagedError:
    """Return the error for a contradiction in a page slot."""
    offset = slot * PAGE_SIZE_BYTES
    return DamagedError(
        f"{PAGES_NAME}, byte {offset}: {what}; recover the pool's volumes from the other site and keep the folder for "
        "inspection",
        file=PAGES_NAME,
        offset=offset,
    )
