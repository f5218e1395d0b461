"""The head of the log: a few words in shared memory, which outlive the process that stored them.

Three things are told from one life of the process to the next:

- the **end**: up to which sequence the log had been written. Exact while the machine has not been restarted;
- the **claim**: up to which sequence the log had been made durable. Nothing makes the claim itself durable, but
  the kernel writes it out within seconds, and what arrives was true when it was stored;
- **trouble**: what the next open must know beyond that.

Trouble is here because nothing else tells of it. When a datasync fails, Linux marks the pages clean: from then on
they read as written, a second datasync succeeds, and the device never got them. So the failure is noted here
before anybody hears of it, and the open that finds the note believes nothing that a power loss could have taken.
It is also made durable, if the device still can: the page would otherwise be at the mercy of the cache that
failed.

A process killed between the kernel's answer and the store of the note loses it: some instructions, during which
the device and the process would both have to fail. Rejected: noting each datasync before it is made, which tells
of every kill in the middle of one and would take each of them for a power loss.
"""

from __future__ import annotations

from contextlib import suppress
from enum import IntFlag
from struct import Struct
from threading import Lock
from typing import Final

from isochrone.store.disk import Buffer, Disk, File
from isochrone.store.parts import open_part

HEAD_NAME: Final = "log.head"
HEAD_SIZE_BYTES: Final = 4096
HEAD: Final = Struct("<QQ")
"""End sequence, and the same xored with HEAD_MARK."""
CLAIM_OFFSET: Final = 64
CLAIM: Final = Struct("<QQQ")
"""Generation, a sequence before which all records are durable, and both xored with HEAD_MARK."""
TROUBLE_OFFSET: Final = 128
TROUBLE: Final = Struct("<QQ")
"""Trouble, and the same xored with HEAD_MARK; both 0 while there never was any."""
HEAD_MARK: Final = int.from_bytes(b"ISOCHEAD", "little")


class Trouble(IntFlag):
    """What the next open must know."""

    NONE = 0
    CACHE_LOST = 1
    """A datasync failed: what was written since the last good one may read as written and not be stored."""
    LOSS_UNTOLD = 2
    """An open found that writes had been lost, and nobody has yet drawn the consequences."""


def encode_head(end_sequence: int) -> bytes:
    """Return the file's bytes for a new pool."""
    return HEAD.pack(end_sequence, end_sequence ^ HEAD_MARK).ljust(HEAD_SIZE_BYTES, b"\0")


def read_head(disk: Disk) -> bytes:
    """Return the words of the head; DamagedError when the file is missing or short."""
    file = open_part(disk, HEAD_NAME)
    try:
        return file.pread(TROUBLE_OFFSET + TROUBLE.size, 0)
    finally:
        file.close()


def decode_head(data: Buffer) -> int | None:
    """Return the end sequence that the head says, None when its two words contradict each other."""
    sequence, mark = HEAD.unpack_from(data)
    return sequence if sequence ^ mark == HEAD_MARK else None


def decode_claim(data: Buffer, generations: range) -> int:
    """Return up to which sequence the head claims the log durable; 0 when it does not, for these generations."""
    generation, through, mark = CLAIM.unpack_from(data, CLAIM_OFFSET)
    if generation not in generations or generation ^ through ^ mark != HEAD_MARK:
        return 0
    return int(through)


def decode_trouble(data: Buffer) -> Trouble:
    """Return what trouble the head tells of; words that contradict each other are the worst of it."""
    trouble, mark = TROUBLE.unpack_from(data, TROUBLE_OFFSET)
    if not trouble and not mark:
        return Trouble.NONE
    if trouble ^ mark != HEAD_MARK or trouble & ~int(Trouble.CACHE_LOST | Trouble.LOSS_UNTOLD):
        return Trouble.CACHE_LOST | Trouble.LOSS_UNTOLD
    return Trouble(trouble)


class Head:
    """The head of an open pool. Each store is complete when it returns, whatever becomes of the process."""

    def __init__(self, disk: Disk) -> None:
        self._file: File = disk.open(HEAD_NAME)
        self._words = self._file.map_shared()
        self._lock = Lock()

    def store_end(self, sequence: int) -> None:
        """All records before `sequence` have been written."""
        self._words[: HEAD.size] = HEAD.pack(sequence, sequence ^ HEAD_MARK)

    def store_claim(self, generation: int, through: int) -> None:
        """All records before `through` are durable."""
        claim = CLAIM.pack(generation, through, generation ^ through ^ HEAD_MARK)
        self._words[CLAIM_OFFSET : CLAIM_OFFSET + CLAIM.size] = claim

    def add_trouble(self, trouble: Trouble) -> None:
        """From now on an open is told of `trouble` too. May be called in any thread."""
        with self._lock:
            self._store_trouble(decode_trouble(self._words) | trouble)

    def clear_trouble(self, trouble: Trouble) -> None:
        """An open is no longer told of `trouble`. May be called in any thread."""
        with self._lock:
            self._store_trouble(decode_trouble(self._words) & ~trouble)

    def note_failed_datasync(self) -> None:
        """Note that a datasync of any file of the pool has failed. May be called in any thread."""
        self.add_trouble(Trouble.CACHE_LOST)
        with suppress(OSError):  # the failure that is being noted is raised; this one would add nothing
            self._file.datasync()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _store_trouble(self, trouble: Trouble) -> None:
        words = TROUBLE.pack(trouble, trouble ^ HEAD_MARK)
        self._words[TROUBLE_OFFSET : TROUBLE_OFFSET + TROUBLE.size] = words
