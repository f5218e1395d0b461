"""What the store asks of a disk: one folder of files, written through the page cache.

Two implementations keep one contract (tests/contract/test_disk_contract.py): `os_disk.OsDisk`, a real folder,
and `isochrone.testing.sim_disk.SimDisk`, which forgets what a crash may forget. A write is one of

- **completed** (the call returned): every later read sees it, and it survives the death of the process. A
  process killed inside a write may leave a prefix of it;
- **durable** (`File.datasync` returned after it; for names `Disk.sync`): it survives power loss;
- **neither**: after power loss each 512-byte sector of a file holds its last durable content or any content
  it was given since, independently of all other sectors. One thing only is promised: a sector is never a
  mixture.

After `datasync` has failed, nothing is known of what was written since the last one that succeeded: Linux
marks the pages clean, so a second call succeeds without having stored them. The caller must not try again.
Nor may another process, which cannot know: the store notes the failure (see head), and drops the cache at the
next open (`File.drop_cache`).

Buffers are C-contiguous and counted in bytes (a memoryview has format "B"). Offsets and lengths are in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

Buffer = bytes | bytearray | memoryview
"""Bytes to be written; never changed."""

WritableBuffer = bytearray | memoryview
"""Room for bytes to be read; a memoryview must be writable."""

SECTOR_SIZE_BYTES: Final = 512
"""Largest piece of a file whose content is never a mixture of two writes after power loss."""


LOCK_NAME: Final = "lock"
"""Name in a folder that belongs to its lock."""


class File(Protocol):
    """An open file or block device of fixed position-addressed bytes.

    Every method but `close` raises OSError when the device or file system reports an error. `datasync` may
    run in another thread while the owner goes on reading and writing; all else belongs to one thread.
    """

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset`.

        Raises:
            DamagedError: the file ends before `offset + length`.
        """
        ...

    def preadv(self, buffers: Sequence[WritableBuffer], offset: int) -> None:
        """Fill all `buffers`, in order, with the bytes from `offset` on. Any number of buffers, also none.

        Raises:
            DamagedError: the file ends before the last buffer is full.
        """
        ...

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of `data` at `offset`. A file that ends before it grows; gaps read as zeros.

        After an OSError (ENOSPC, EIO) a prefix of `data` may have been written.
        """
        ...

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all `buffers` back to back at `offset`; otherwise as `pwrite`. Any number, also none."""
        ...

    def datasync(self) -> None:
        """Make durable what was completed before the call: writes, the size, stores through `map_shared`.

        The file's name is not included: see `Disk.sync`.

        Raises:
            OSError: what was written since the last successful call is in an unknown state; never
                call again.
        """
        ...

    def drop_cache(self) -> None:
        """Forget clean cached content: later reads see what the device holds, and what is not yet written out.

        For a file that is not mapped. What is durable reads the same afterwards; what a failed `datasync` left
        out reads as it is on the device.
        """
        ...

    def size_bytes(self) -> int:
        """Return the present size."""
        ...

    def allocate(self, size_bytes: int) -> None:
        """Reserve real space for the first `size_bytes` and extend the file to at least that size.

        Later writes below `size_bytes` never meet ENOSPC. New space reads as zeros. Never shrinks. On a block
        device it only checks the size.

        Raises:
            OSError: ENOSPC when the file system (or device) is too small; the size is unchanged.
        """
        ...

    def truncate(self, size_bytes: int) -> None:
        """Set the size: cut the tail off, or extend with a hole that reads as zeros and reserves no space."""
        ...

    def map_shared(self) -> memoryview:
        """Return the whole file as writable shared memory, shape (size_bytes,), format "B".

        A store into it is completed at once: reads see it and it survives the death of the process. It
        becomes durable by `datasync`, or earlier in any order. The file must not be empty, nor resized while
        mapped. The view belongs to this handle: it is not to be used after `close`.
        """
        ...

    def close(self) -> None:
        """Give the handle back. Durable or not, completed writes stay. May be called again."""
        ...


class Disk(Protocol):
    """One folder of files."""

    @property
    def boot_id(self) -> str:
        """Changes whenever completed but not durable writes may have been lost: the machine was restarted."""
        ...

    def open(self, name: str, *, create: bool = False) -> File:
        """Open the file `name` for reading and writing.

        Args:
            name: a name in this folder without "/"; or an absolute path, for a block device or a tracks file
                that the user keeps elsewhere.
            create: make an empty file when there is none; its name is durable after `sync`.

        Raises:
            FileNotFoundError: no such file, and `create` is False.
            RefusedError: `name` is neither a plain name nor an absolute path.
        """
        ...

    def names(self) -> list[str]:
        """Return the names of the folder's files, sorted; without the lock and absolute paths."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give the file `old` the name `new`, atomically replacing a file of that name. Durable after `sync`.

        Raises:
            FileNotFoundError: there is no file `old`.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove the file `name`. Open handles stay usable. Durable after `sync`.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def sync(self) -> None:
        """Make names durable: all creations, renames and removals before the call."""
        ...

    def lock(self) -> None:
        """Take the folder for this process until `close` or the process's death.

        Raises:
            BusyError: it is taken; the field `pid` names the holder (0 when not known).
        """
        ...

    def close(self) -> None:
        """Release the lock and the folder. Files still open stay open. May be called again."""
        ...
