"""The log read back: which of its records count.

What the log may be trusted for depends on what was lost:

- Only the process died (same boot): everything it had written is there. All records count, and the log must
  reach the end that its head says; anything short of that is damage. What lies beyond is a write cut off by
  the death.
- The machine went down, or a datasync failed and the cache was dropped (see page_cache): tracks, log and head
  hold whatever had reached the disk. A record may point at a track whose content never did, so replay ends at
  the last *barrier* of the unbroken chain: "all tracks that records before N refer to are durable". Breaks
  behind it are torn tails, unless a barrier that survived behind the break says that the log had been durable
  beyond it: that is damage.
"""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.store.disk import Disk
from isochrone.store.head import HEAD_NAME, Trouble, decode_claim, decode_head, decode_trouble, read_head
from isochrone.store.log_records import BARRIER, RecordType
from isochrone.store.parts import open_part
from isochrone.store.root import Root
from isochrone.store.segment import (
    SEGMENT_HEADER_SIZE_BYTES,
    LogRecord,
    Scan,
    SegmentHeader,
    begins_record,
    durable_claim_after,
    log_damaged,
    read_segment_header,
    scan_segment,
    segment_name,
)
from isochrone.store.superblock import Superblock


@dataclass(frozen=True, slots=True)
class Chain:
    """Log records that count, in order, with the segment they are in.

    Attributes:
        loss: why what was not synced may be gone, None when nothing can be.
        cut: where a torn or not vouched for tail was left out, None when nothing was.
    """

    records: list[tuple[str, LogRecord]]
    end_sequence: int
    loss: str | None
    cut: str | None


def read_chain(disk: Disk, superblock: Superblock, root: Root) -> Chain:
    """Return the log records that count on top of `root`; DamagedError when the log is broken before its end."""
    scans, images = _scan(disk, superblock, root)
    last = scans[0]
    name = segment_name(root.generation)
    if last.header.first_sequence < root.first_sequence and last.end_sequence < root.first_sequence:
        raise log_damaged(
            name, last.end_offset, f"record {last.end_sequence} is broken, but the root counts on it"
        )
    # A root that waited for room may begin behind records of its segment.
    records = [(name, record) for record in last.records if record.sequence >= root.first_sequence]
    if len(scans) > 1:
        if last.end_sequence > scans[1].header.first_sequence:
            name = segment_name(scans[1].header.generation)
            raise log_damaged(name, 0, "the segment begins before the one before it ends")
        if last.end_sequence == scans[1].header.first_sequence:
            last = scans[1]
            records += [(segment_name(last.header.generation), record) for record in last.records]
    same_boot = all(scan.header.boot_id == disk.boot_id for scan in scans)
    loss = _loss(read_head(disk), lost_power=not same_boot and not root.is_clean)
    broken = segment_name(last.header.generation), last.end_offset
    if loss is None:
        if not root.is_clean or records:
            _check_head(disk, last.end_sequence, broken)
        return Chain(records, last.end_sequence, None, None)
    behind = [
        (scan, image) for scan, image in zip(scans, images, strict=True) if scan is last or last is scans[0]
    ]
    if _durable_claim(disk, root, last, behind, superblock.seed) > last.end_sequence:
        raise log_damaged(*broken, f"record {last.end_sequence} is broken, but had been made durable")
    through = max(
        [root.first_sequence, *(barrier[0] for _, record in records for barrier in _barrier(record))]
    )
    kept = [item for item in records if item[1].sequence < through]
    cut = None
    if len(kept) < len(records):
        name, first = records[len(kept)]
        cut = f"{name}, byte {first.offset}: {len(records) - len(kept)} records after the last barrier"
    elif any(scan is last and begins_record(image, scan) for scan, image in behind):
        cut = f"{broken[0]}, byte {broken[1]}: a record that was cut off, or damage since the last sync"
    return Chain(kept, last.end_sequence, loss, cut)


def _loss(head: bytes, *, lost_power: bool) -> str | None:
    """Return why what was not synced may be gone, None when all that was written is there."""
    if lost_power:
        return "the machine was restarted while the pool was open"
    if Trouble.CACHE_LOST in decode_trouble(head):
        return "the device had failed to make writes durable"
    return None


def _durable_claim(
    disk: Disk, root: Root, last: Scan, behind: list[tuple[Scan, memoryview]], pool_seed: int
) -> int:
    """Return up to which sequence anything that survived says that the log had been durable.

    Args:
        last: where the chain ends.
        behind: segments that hold bytes behind that end, with their content.
    """
    claims = [durable_claim_after(image, scan, pool_seed)[0] for scan, image in behind]
    claims += [
        barrier[1]
        for scan, _ in behind
        if scan is not last
        for record in scan.records
        for barrier in _barrier(record)
    ]
    return max([*claims, decode_claim(read_head(disk), range(root.generation, root.generation + 2))])


def _barrier(record: LogRecord) -> list[tuple[int, int]]:
    """Return (tracks_through, log_through) when the record is a barrier."""
    return [BARRIER.unpack_from(record.payload)] if record.kind == RecordType.BARRIER else []


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
    head = decode_head(read_head(disk))
    if head is None:
        raise log_damaged(HEAD_NAME, 0, "the log's head contradicts itself")
    if end_sequence < head:
        raise log_damaged(
            *broken, f"record {end_sequence} is broken, but {head - end_sequence} more were written"
        )
