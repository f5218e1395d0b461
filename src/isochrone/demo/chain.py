"""The dependent-write chain: a workload whose image tells whether it is a prefix of what was written.

Situation: an application issues write k+1 only after write k was acknowledged; a database does so with its
log and its data. A copy of its volumes may miss the newest writes, but if it holds a write it must hold
every earlier one, on every volume, whole.

Method: writes are numbered 1, 2, 3, ... and dealt to the volumes in turn, so that two neighbours never lie
on the same volume. Each write is a block of several sectors; every sector names its write and its place in
the block, and is filled with bytes that follow from both. A volume is a ring of slots, so that old blocks
are overwritten. Given the newest write that an image holds anywhere, the content of every slot of every
volume is known: the newest write up to it that belongs there. Anything else is a fault: an older block (a
write is missing before a present one), a block of two writes (torn), bytes that no write has written.

`check_chain` is a pure function of the images, so that tests can show it bad ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

SECTOR_SIZE_BYTES: Final = 4096
SECTORS_PER_BLOCK: Final = 3
"""More than one track, so that a write can be torn."""
BLOCK_SIZE_BYTES: Final = SECTOR_SIZE_BYTES * SECTORS_PER_BLOCK
FAULTS_MAX: Final = 20
"""Faults that are described; one is enough to fail."""

_MAGIC: Final = b"isochain"
_HEADER: Final = Struct("<8sQQ")
_EMPTY_SECTOR: Final = bytes(SECTOR_SIZE_BYTES)


@dataclass(frozen=True, slots=True)
class ChainLayout:
    """Where writes go: `volume_count` volumes with a ring of `slot_count` slots each."""

    volume_count: int
    slot_count: int

    @property
    def volume_size_bytes(self) -> int:
        """Bytes of each volume that the chain uses, from its beginning."""
        return self.slot_count * BLOCK_SIZE_BYTES

    def place(self, number: int) -> tuple[int, int]:
        """Return the index of the volume and the byte offset of write `number` (1, 2, ...)."""
        turn, volume = divmod(number - 1, self.volume_count)
        return volume, turn % self.slot_count * BLOCK_SIZE_BYTES

    def newest_in(self, volume: int, slot: int, newest: int) -> int:
        """Return the newest write up to `newest` that belongs in the slot, 0 when there is none."""
        turn_max = (newest - 1 - volume) // self.volume_count
        turn = turn_max - (turn_max - slot) % self.slot_count
        return turn * self.volume_count + volume + 1 if turn >= 0 else 0


@dataclass(frozen=True, slots=True)
class ChainFinding:
    """What an image of the chain's volumes shows.

    Attributes:
        newest: the newest write that is there anywhere, 0 when there is none.
        fault_count: slots that contradict a prefix that ends with `newest`.
        faults: the first of them, in words.
    """

    newest: int
    fault_count: int
    faults: tuple[str, ...]


def make_block(number: int) -> bytes:
    """Return the BLOCK_SIZE_BYTES of write `number`."""
    return b"".join(_make_sector(number, index) for index in range(SECTORS_PER_BLOCK))


def check_chain(images: Sequence[bytes], layout: ChainLayout) -> ChainFinding:
    """Return what the images of the chain's volumes show; no faults means that they are a prefix.

    Args:
        images: for each volume its first `layout.volume_size_bytes`.
    """
    found = {
        (volume, slot): _read_slot(image, slot)
        for volume, image in enumerate(images)
        for slot in range(layout.slot_count)
    }
    newest = max((number for numbers in found.values() for number in numbers if number), default=0)
    faults = []
    for (volume, slot), numbers in found.items():
        fault = _describe(numbers, layout.newest_in(volume, slot, newest), newest)
        if fault:
            faults.append(f"volume {volume}, slot {slot}: {fault}")
    return ChainFinding(newest, len(faults), tuple(faults[:FAULTS_MAX]))


def _make_sector(number: int, index: int) -> bytes:
    head = _HEADER.pack(_MAGIC, number, index)
    filler = hashlib.blake2b(head, digest_size=64).digest() * (SECTOR_SIZE_BYTES // 64)
    return head + filler[len(head) :]


def _read_slot(image: bytes, slot: int) -> list[int | None]:
    """Return the write that each sector of the slot shows: 0 for zeros, None for what nobody wrote there."""
    start = slot * BLOCK_SIZE_BYTES
    return [
        _read_sector(
            image[start + index * SECTOR_SIZE_BYTES : start + (index + 1) * SECTOR_SIZE_BYTES], index
        )
        for index in range(SECTORS_PER_BLOCK)
    ]


def _read_sector(sector: bytes, index: int) -> int | None:
    if sector == _EMPTY_SECTOR:
        return 0
    number = int(_HEADER.unpack_from(sector)[1])
    return number if sector == _make_sector(number, index) else None


def _describe(numbers: list[int | None], expected: int, newest: int) -> str | None:
    if all(number == expected for number in numbers):
        return None
    if None in numbers:
        return "holds bytes that were never written there"
    if len(set(numbers)) > 1:
        return f"holds a torn block, with parts of writes {sorted({number or 0 for number in numbers})}"
    if numbers[0] == 0:
        return f"write {expected} is missing, but write {newest} is there"
    return f"write {expected} is missing (write {numbers[0]} is in its place), but write {newest} is there"
