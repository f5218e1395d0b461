"""From the files of a pool to its state: root, pages, log. Reads only; `Pool.open` makes the result durable.

What the log may be trusted for depends on what was lost:

- Only the process died (same boot): everything it had written is there. All records count, and the log must
  reach the end that its head says; anything short of that is damage. What lies beyond is a write cut off by
  the death.
- The machine went down: tracks, log and head hold whatever had reached the disk. A record may point at a
  track whose content never did, so replay ends at the last *barrier* of the unbroken chain: "all tracks that
  records before N refer to are durable". Breaks behind it are torn tails, unless a barrier that survived
  behind the break says that the log had been durable beyond it: that is damage.

Counts of references are not kept while replaying; one pass over all pages afterwards is exact and faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import error as StructError  # noqa: N812 (struct names its error in lower case)
from typing import Final

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from isochrone.model.errors import DamagedError, NotFoundError
from isochrone.store.arena import PAGE_ENTRY_COUNT
from isochrone.store.disk import Disk, File
from isochrone.store.log import HEAD, HEAD_NAME, decode_head
from isochrone.store.log_records import (
    BARRIER,
    NUMBER,
    SESSION,
    SESSION_TIME,
    UNMAP,
    VOLUME,
    VOLUME_COPY,
    RecordType,
    unpack_document,
    unpack_stage,
)
from isochrone.store.page_slots import PAGE_SIZE_BYTES, PAGES_NAME
from isochrone.store.root import ROOT_NAME, Root, decode_root, root_damaged
from isochrone.store.runs import neighbours
from isochrone.store.segment import (
    SEGMENT_HEADER_SIZE_BYTES,
    LogRecord,
    Scan,
    SegmentHeader,
    durable_claim_after,
    log_damaged,
    read_segment_header,
    scan_segment,
    segment_name,
)
from isochrone.store.state import PoolState, decode_map
from isochrone.store.superblock import (
    SUPERBLOCK_NAME,
    SUPERBLOCK_SIZE_BYTES,
    Superblock,
    decode_superblock,
)
from isochrone.store.tables import VolumeTable

_LOAD_SLOT_COUNT: Final = 1024
_REPLAY_TRACK_COUNT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the files of a pool say.

    Attributes:
        next_generation: of the log, never used before. A generation that was begun after the root's may have
            lost its header in a power loss but not all its records, so it is skipped.
        next_sequence: of the record that would come next.
        lost_power: the machine was restarted since the pool was last open, and it was not closed.
        replayed_count: log records applied on top of the root.
        cut: where a torn or not vouched for tail was left out, None when nothing was.
    """

    superblock: Superblock
    root: Root
    state: PoolState
    next_generation: int
    next_sequence: int
    lost_power: bool
    replayed_count: int
    cut: str | None


@dataclass(frozen=True, slots=True)
class Chain:
    """Log records that count, in order, with the segment they are in."""

    records: list[tuple[str, LogRecord]]
    end_sequence: int
    lost_power: bool
    cut: str | None


def recover(disk: Disk) -> Recovered:
    """Return the state of the pool in `disk`, without writing anything.

    Raises:
        NotFoundError: there is no pool.
        RefusedError: a later version wrote it.
        DamagedError: its files contradict themselves; says where.
    """
    superblock = load_superblock(disk)
    check_tracks(disk, superblock)
    root = load_root(disk, superblock)
    state = load_state(disk, superblock, root)
    chain = read_chain(disk, superblock, root)
    replay(state, chain.records)
    state.rebuild()
    return Recovered(
        superblock,
        root,
        state,
        root.generation + 2,
        chain.end_sequence,
        chain.lost_power,
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


def open_part(disk: Disk, name: str) -> File:
    """Open a file that a pool must have."""
    try:
        return disk.open(name)
    except FileNotFoundError:
        raise DamagedError(
            f"{name} is missing from the pool: restore the file, or recover the volumes from the other site",
            file=name,
        ) from None


def open_tracks(disk: Disk, superblock: Superblock) -> File:
    """Open the tracks; DamagedError when there are fewer than there must be."""
    file = open_part(disk, superblock.tracks_path)
    if file.size_bytes() < superblock.tracks_size_bytes:
        size_bytes = file.size_bytes()
        file.close()
        raise DamagedError(
            f"{superblock.tracks_path} ends at byte {size_bytes}, {superblock.tracks_size_bytes} are needed: restore the "
            "file, or recover the volumes from the other site",
            file=superblock.tracks_path,
            offset=size_bytes,
        )
    return file


def load_state(disk: Disk, superblock: Superblock, root: Root) -> PoolState:
    """Return the state that the root describes, references not yet counted."""
    page_top = int(root.pages.max(initial=0)) + 1
    state = PoolState(superblock.track_count, superblock.track_size_bytes, page_top)
    state.tables.accounting = False
    counts = np.zeros(page_top, np.uint16)
    for volume in root.volumes:
        table = VolumeTable(volume.number, volume.name, 0, 0)
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
    state.volume_number_next = root.volume_number_next
    file = open_part(disk, PAGES_NAME)
    try:
        _load_pages(file, root, state)
    finally:
        file.close()
    return state


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


def read_chain(disk: Disk, superblock: Superblock, root: Root) -> Chain:
    """Return the log records that count on top of `root`; DamagedError when the log is broken before its end."""
    scans, images = _scan(disk, superblock, root)
    records = [(segment_name(root.generation), record) for record in scans[0].records]
    last = scans[0]
    if len(scans) > 1:
        if last.end_sequence > scans[1].header.first_sequence:
            name = segment_name(scans[1].header.generation)
            raise log_damaged(name, 0, "the segment begins before the one before it ends")
        if last.end_sequence == scans[1].header.first_sequence:
            last = scans[1]
            records += [(segment_name(last.header.generation), record) for record in last.records]
    same_boot = all(scan.header.boot_id == disk.boot_id for scan in scans)
    lost_power = not same_boot and not root.is_clean
    broken = segment_name(last.header.generation), last.end_offset
    if not lost_power:
        if not root.is_clean or records:
            _check_head(disk, last.end_sequence, broken)
        return Chain(records, last.end_sequence, lost_power, None)
    claim, _ = max(
        (durable_claim_after(image, scan, superblock.seed) for scan, image in zip(scans, images, strict=True)
         if scan is last or scan.header.generation > last.header.generation),
    )  # fmt: skip
    if last is scans[0] and len(scans) > 1:
        barriers = [
            BARRIER.unpack_from(r.payload)[1] for r in scans[1].records if r.kind == RecordType.BARRIER
        ]
        claim = max([claim, *barriers])
    if claim > last.end_sequence:
        raise log_damaged(*broken, f"record {last.end_sequence} is broken, but had been made durable")
    through = root.first_sequence
    for _, record in records:
        if record.kind == RecordType.BARRIER:
            through = max(through, BARRIER.unpack_from(record.payload)[0])
    kept = [item for item in records if item[1].sequence < through]
    cut = None
    if len(kept) < len(records):
        name, first = records[len(kept)]
        cut = f"{name}, byte {first.offset}: {len(records) - len(kept)} records after the last barrier"
    return Chain(kept, last.end_sequence, lost_power, cut)


def _scan(disk: Disk, superblock: Superblock, root: Root) -> tuple[list[Scan], list[memoryview]]:
    """Scan the root's generation and, if it was begun, the one after it."""
    scans: list[Scan] = []
    images: list[memoryview] = []
    headers: list[SegmentHeader] = []
    for generation in (root.generation, root.generation + 1):
        name = segment_name(generation)
        file = open_part(disk, name)
        try:
            header = read_segment_header(file, name, superblock.uuid)
            headers.append(header)
            if header.generation > root.generation + 1:
                raise log_damaged(name, 0, "the segment is newer than the root allows")
            if header.generation == generation:
                images.append(memoryview(file.pread(superblock.log_segment_size_bytes, 0)))
                scans.append(scan_segment(images[-1], header, superblock.seed))
        finally:
            file.close()
    if not scans or scans[0].header.generation != root.generation:
        # The root is durable before its segment is begun: an empty one of the newest boot that is known.
        newest = max(headers, key=lambda header: header.generation)
        empty = SegmentHeader(superblock.uuid, root.generation, root.first_sequence, newest.boot_id)
        scans.insert(0, Scan(empty, [], SEGMENT_HEADER_SIZE_BYTES, root.first_sequence))
        images.insert(0, memoryview(b""))
    return scans, images


def _check_head(disk: Disk, end_sequence: int, broken: tuple[str, int]) -> None:
    """Raise DamagedError when the log ends before the head, which no kill of the process can outrun, says it
    does.
    """
    file = open_part(disk, HEAD_NAME)
    try:
        head = decode_head(file.pread(HEAD.size, 0))
    finally:
        file.close()
    if head is None:
        raise log_damaged(HEAD_NAME, 0, "the log's head contradicts itself")
    if end_sequence < head:
        raise log_damaged(
            *broken, f"record {end_sequence} is broken, but {head - end_sequence} more were written"
        )


def replay(state: PoolState, records: list[tuple[str, LogRecord]]) -> None:
    """Apply log records in order. Consecutive MAP records, also across barriers, are applied together."""
    maps: list[memoryview] = []
    for name, record in records:
        if record.kind == RecordType.MAP:
            maps.append(record.payload)
        elif record.kind != RecordType.BARRIER:
            _apply_maps(state, maps, name, record.offset)
            maps = []
            _apply(state, name, record)
    if maps:
        _apply_maps(state, maps, *(records[-1][0], records[-1][1].offset))


def _apply_maps(state: PoolState, payloads: list[memoryview], name: str, offset: int) -> None:
    """Apply MAP entries in pieces that expand to bounded arrays."""
    if not payloads:
        return
    entries = decode_map(payloads)
    ends = np.cumsum(entries["count"], dtype=np.int64)
    _check_entries(state, entries, name, offset)
    piece: NDArray[np.int64] = ends // _REPLAY_TRACK_COUNT
    starts = np.flatnonzero(np.diff(piece, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(entries)], strict=True):
        state.map(entries[start:stop])


def _check_entries(state: PoolState, entries: NDArray[np.void], name: str, offset: int) -> None:
    ends = entries["physical"].astype(np.int64) + entries["count"] * (entries["physical"] != 0)
    if int(ends.max()) > state.allocator.track_count + 1:
        raise log_damaged(name, offset, "an entry at or before this record points beyond the last track")
    for number in np.unique(entries["volume"]).tolist():
        table = state.volumes.get(number)
        mine = entries[entries["volume"] == number]
        if table is None or int((mine["track"].astype(np.int64) + mine["count"]).max()) > table.track_count:
            raise log_damaged(name, offset, f"an entry at or before this record is not in volume {number}")


def _apply(state: PoolState, name: str, record: LogRecord) -> None:
    """Apply one record of a type other than MAP and BARRIER."""
    payload = record.payload
    try:
        match record.kind:
            case RecordType.UNMAP:
                state.unmap(*UNMAP.unpack(payload))
            case RecordType.VOLUME_CREATE:
                number, size_bytes = VOLUME.unpack_from(payload)
                state.create_volume(number, str(payload[VOLUME.size :], "utf-8"), size_bytes)
            case RecordType.VOLUME_RESIZE:
                state.resize_volume(*VOLUME.unpack(payload))
            case RecordType.VOLUME_DELETE:
                state.delete_volume(*NUMBER.unpack(payload))
            case RecordType.VOLUME_COPY:
                source, number = VOLUME_COPY.unpack_from(payload)
                state.copy_volume(source, number, str(payload[VOLUME_COPY.size :], "utf-8"))
            case RecordType.DOCUMENT_PUT:
                key, value = unpack_document(payload)
                state.documents[key] = value
            case RecordType.DOCUMENT_DELETE:
                del state.documents[unpack_document(payload)[0]]
            case RecordType.STAGE:
                state.stage(unpack_stage(payload))
            case RecordType.COMMIT:
                state.commit(*SESSION_TIME.unpack(payload))
            case RecordType.DISCARD:
                state.discard(*SESSION_TIME.unpack(payload))
            case RecordType.END_SESSION:
                state.end_session(*SESSION.unpack(payload))
            case _:
                raise log_damaged(name, record.offset, f"record type {record.kind} is unknown")
    except (KeyError, IndexError, ValueError, StructError) as error:
        raise log_damaged(
            name, record.offset, f"the record does not fit the state before it ({error})"
        ) from error
