"""A disk in memory that forgets what a crash may forget, and fails when told to.

A `SimDisk` is one process's view of a folder. Two kinds of crash:

- `kill()`: the process died. Completed writes and stores into shared memory stay; its handles, mappings and
  lock are gone. Whatever still holds an old handle gets SimulatedCrash: a dead process writes nothing.
- `power_loss(rng)`: the machine died. Of everything not confirmed by a datasync each sector is lost, kept or
  (for a write of several) torn, see `sim_file`; each unsynced creation, rename and removal may be undone on
  its own; the boot id changes.

After either, the same object serves the next life of the process. Every operation is numbered and shown to
the `hook` before it happens. The hook may raise OSError (the device reports an error) or SimulatedCrash (the
process dies right there). A write that crashes leaves a prefix of whole sectors; a datasync that fails
leaves, as on Linux, an unknown part stored and all of it clean. After a crash from the hook every operation
raises SimulatedCrash until `kill` or `power_loss` is called, so that code which catches too much cannot limp
on. Beside the hook there is `trouble`: a second one for what is wrong with the device itself, which no crash cures.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from isochrone.model.errors import BusyError, DamagedError, RefusedError
from isochrone.store.disk import LOCK_NAME, SECTOR_SIZE_BYTES, Buffer, WritableBuffer
from isochrone.store.superblock import TRACKS_NAME
from isochrone.store.volume import Volume
from isochrone.testing.bad_sectors import BadSectors
from isochrone.testing.sim_file import SimInode, SimSpace

SIMULATED_PID: Final = 4242
"""Process id that a refused second opener is told."""


class SimulatedCrash(BaseException):
    """The process has died at this operation. Not an Exception: no handler of the program may stop it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a disk or file, as the hook sees it before it happens.

    Attributes:
        number: 0, 1, ... since the disk was made.
        kind: name of the method of Disk or File, "pread" and "preadv" both as "read", the writes as "write".
        name: the file ("" for the folder itself).
        offset: first byte read or written; 0 otherwise.
        length: bytes read, written or asked for; 0 otherwise.
    """

    number: int
    kind: str
    name: str
    offset: int = 0
    length: int = 0


Hook = Callable[[Operation], None]


def fail_nth(
    n: int, error_number: int = errno.EIO, *, kind: str | None = None, name: str | None = None
) -> Hook:
    """Return a hook that fails the n-th (1, 2, ...) operation of that kind and file from now on, once.

    `name` ending in "-" stands for all files whose names begin with it.
    """
    return _at_nth(n, OSError(error_number, "simulated device error"), kind, name)


def crash_nth(n: int, *, kind: str | None = None, name: str | None = None) -> Hook:
    """Return a hook that kills the process at the n-th (1, 2, ...) operation of that kind and file."""
    return _at_nth(n, SimulatedCrash(f"operation {n}"), kind, name)


def _at_nth(n: int, error: BaseException, kind: str | None, name: str | None) -> Hook:
    left = n

    def hook(operation: Operation) -> None:
        nonlocal left
        if kind in (None, operation.kind) and _names(name, operation.name):
            left -= 1
            if left == 0:
                raise error

    return hook


def _names(name: str | None, file_name: str) -> bool:
    if name is not None and name.endswith("-"):
        return file_name.startswith(name)
    return name in (None, file_name)


@dataclass
class _NameChange:
    """One change of the folder: names that go, names that come."""

    gone: list[str]
    come: dict[str, SimInode]

    def apply(self, names: dict[str, SimInode]) -> None:
        for name in self.gone:
            names.pop(name, None)
        names.update(self.come)


@dataclass
class _Folder:
    """What outlives a process: shared by all views of one folder."""

    space: SimSpace
    boot_number: int = 1
    names: dict[str, SimInode] = field(default_factory=dict)
    durable_names: dict[str, SimInode] = field(default_factory=dict)
    name_changes: list[_NameChange] = field(default_factory=list)
    holder: SimDisk | None = None

    def change_names(self, change: _NameChange) -> None:
        before = self.inodes()
        change.apply(self.names)
        self.name_changes.append(change)
        self._release(before)

    def sync(self) -> None:
        before = self.inodes()
        for change in self.name_changes:
            change.apply(self.durable_names)
        self.name_changes.clear()
        self._release(before)

    def power_loss(self, rng: Random) -> None:
        before = self.inodes()
        for change in self.name_changes:
            if rng.random() < 0.5:
                change.apply(self.durable_names)
        self.name_changes.clear()
        self.names = dict(self.durable_names)
        self._release(before)
        for name in sorted(self.names):
            self.names[name].power_loss(rng)
        self.boot_number += 1
        self.holder = None

    def inodes(self) -> dict[int, SimInode]:
        """Every file that has a name or may get one back."""
        return {id(inode): inode for names in (self.names, self.durable_names) for inode in names.values()}

    def _release(self, before: dict[int, SimInode]) -> None:
        for key in before.keys() - self.inodes().keys():
            before[key].release_space()


class SimDisk:
    """A folder in memory (`store.disk.Disk`) with crashes and faults.

    Attributes:
        hook: sees every operation before it happens, and may fail it.
        bad_sectors: what cannot be read until it is written again.
    """

    def __init__(self, *, seed: int = 0, space_bytes_max: int | None = None) -> None:
        """Make an empty folder.

        Args:
            seed: of the choices that a fault leaves open (length of a torn write, what a failed datasync
            stored). space_bytes_max: room for data in all files, in blocks of 4 KiB; None for any amount.
        """
        self.hook: Hook | None = None
        self.trouble: Hook | None = None
        self.bad_sectors = BadSectors()
        self.operation_count = 0
        self._folder = _Folder(SimSpace(space_bytes_max))
        self._rng = Random(seed)
        self._life = 0
        self._crashed = False

    def second_view(self) -> SimDisk:
        """Return the same folder as another process of the same machine sees it."""
        other = SimDisk()
        other._folder = self._folder
        other.bad_sectors = self.bad_sectors
        return other

    def kill(self) -> None:
        """The process dies; the next one may open the folder through this same object."""
        self._life += 1
        self._crashed = False
        self.hook = None
        for inode in self._folder.inodes().values():
            inode.detach_mapping()
        if self._folder.holder is self:
            self._folder.holder = None

    def power_loss(self, rng: Random) -> None:
        """The machine dies and starts again: unsynced writes and names are lost or kept as `rng` says."""
        self.kill()
        self._folder.power_loss(rng)

    def spoil_track(self, volume: Volume, track: int) -> bool:
        """Make what `track` of a volume of the pool here is stored on unreadable; returns False for an unmapped one."""
        size_bytes = volume.size_bytes // volume.track_count
        physical = volume._entry(track)
        if physical:
            self.bad_sectors.spoil(TRACKS_NAME, (physical - 1) * size_bytes, size_bytes)
        return bool(physical)

    def evict(self) -> None:
        """Memory pressure drops clean pages: what a failed datasync lost now reads as before."""
        for inode in self._folder.inodes().values():
            inode.evict()

    @property
    def used_bytes(self) -> int:
        """Space taken by all files."""
        return self._folder.space.used_bytes

    @property
    def space_bytes_max(self) -> int | None:
        """Room in the simulated file system; may be set at any time."""
        return self._folder.space.size_bytes_max

    @space_bytes_max.setter
    def space_bytes_max(self, size_bytes_max: int | None) -> None:
        self._folder.space.size_bytes_max = size_bytes_max

    @property
    def boot_id(self) -> str:
        """Changes with every power loss."""
        return f"boot-{self._folder.boot_number}"

    def open(self, name: str, *, create: bool = False) -> SimFile:
        """Open a file for reading and writing (see Disk)."""
        _check_file_name(name)
        self._step("open", name)
        inode = self._folder.names.get(name)
        if inode is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such simulated file", name)
            inode = SimInode(self._folder.space)
            self._folder.change_names(_NameChange([], {name: inode}))
        return SimFile(self, inode, name)

    def names(self) -> list[str]:
        """Return the names of the folder's files, sorted (see Disk)."""
        self._check_alive(self._life)
        return sorted(name for name in self._folder.names if not name.startswith("/"))

    def rename(self, old: str, new: str) -> None:
        """Rename atomically, replacing `new` (see Disk)."""
        _check_file_name(new)
        self._step("rename", old)
        self._folder.change_names(_NameChange([old], {new: self._existing(old)}))

    def remove(self, name: str) -> None:
        """Remove a file (see Disk)."""
        self._step("remove", name)
        self._existing(name)
        self._folder.change_names(_NameChange([name], {}))

    def sync(self) -> None:
        """Make names durable (see Disk)."""
        self._step("sync", "")
        self._folder.sync()

    def lock(self) -> None:
        """Take the folder until `close`, `kill` or `power_loss` (see Disk)."""
        self._step("lock", "")
        if self._folder.holder is not None:
            raise BusyError(
                f"the simulated folder is in use by process {SIMULATED_PID}: stop that controller first",
                pid=SIMULATED_PID,
            )
        self._folder.holder = self

    def close(self) -> None:
        """Release the lock (see Disk)."""
        if self._folder.holder is self and not self._crashed:
            self._folder.holder = None

    @property
    def life(self) -> int:
        """Number of the process's life: handles of an earlier one are dead."""
        return self._life

    @property
    def rng(self) -> Random:
        """Decides what a fault leaves open."""
        return self._rng

    def is_alive(self, life: int) -> bool:
        """Whether a handle of `life` may still do anything."""
        return life == self._life and not self._crashed

    def step(self, life: int, kind: str, name: str, offset: int = 0, length: int = 0) -> None:
        """Count one operation of a handle of `life` and let the hook have its say."""
        self._check_alive(life)
        number = self.operation_count
        self.operation_count += 1
        if self.trouble is not None:
            self.trouble(Operation(number, kind, name, offset, length))
        if self.hook is not None:
            try:
                self.hook(Operation(number, kind, name, offset, length))
            except SimulatedCrash:
                self._crashed = True
                raise

    def _step(self, kind: str, name: str) -> None:
        self.step(self._life, kind, name)

    def _check_alive(self, life: int) -> None:
        if not self.is_alive(life):
            raise SimulatedCrash("this process is dead; its handles are gone")

    def _existing(self, name: str) -> SimInode:
        try:
            return self._folder.names[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such simulated file", name) from None


class SimFile:
    """An open file of a SimDisk (`store.disk.File`)."""

    def __init__(self, disk: SimDisk, inode: SimInode, name: str) -> None:
        self._disk = disk
        self._inode = inode
        self._name = name
        self._life = disk.life
        self._has_mapping = False

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset` (see File)."""
        self._step("read", offset, length)
        self._disk.bad_sectors.check(self._name, offset, length)
        self._check_end(offset, length)
        return bytes(memoryview(self._inode.data)[offset : offset + length])

    def preadv(self, buffers: Sequence[WritableBuffer], offset: int) -> None:
        """Fill all `buffers` from `offset` on (see File)."""
        length = sum(map(len, buffers))
        self._step("read", offset, length)
        self._disk.bad_sectors.check(self._name, offset, length)
        self._check_end(offset, length)
        with memoryview(self._inode.data) as data:
            for buffer in buffers:
                memoryview(buffer)[:] = data[offset : offset + len(buffer)]
                offset += len(buffer)

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of `data` at `offset` (see File)."""
        alive = self._disk.is_alive(self._life)
        try:
            self._step("write", offset, len(data))
        except SimulatedCrash:
            if alive:
                self._write_prefix(data, offset)
            raise
        if len(data):
            self._inode.write(data, offset)
            self._disk.bad_sectors.written(self._name, offset, len(data))

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all `buffers` back to back at `offset` (see File)."""
        self.pwrite(b"".join(buffers), offset)

    def datasync(self) -> None:
        """Make durable what was written, also through `map_shared` (see File)."""
        try:
            self._step("datasync")
        except OSError:
            self._inode.datasync_failed(self._disk.rng)
            raise
        self._inode.datasync()

    def drop_cache(self) -> None:
        """Forget clean cached content (see File)."""
        self._step("drop_cache")
        self._inode.evict()

    def size_bytes(self) -> int:
        """Return the present size."""
        return len(self._inode.data)

    def allocate(self, size_bytes: int) -> None:
        """Take real space and extend (see File)."""
        self._step("allocate", 0, size_bytes)
        self._inode.allocate(size_bytes)

    def truncate(self, size_bytes: int) -> None:
        """Set the size (see File)."""
        self._step("truncate", 0, size_bytes)
        self._inode.truncate(size_bytes)

    def map_shared(self) -> memoryview:
        """Return the whole file as shared memory (see File)."""
        self._step("map_shared")
        if not self._inode.data:
            raise ValueError("cannot map an empty file")
        self._has_mapping = True
        return self._inode.map_shared()

    def close(self) -> None:
        """Give the handle back; its mappings end (see File)."""
        if self._has_mapping and self._life == self._disk.life:
            self._inode.detach_mapping()
        self._has_mapping = False
        self._life = -1

    def _step(self, kind: str, offset: int = 0, length: int = 0) -> None:
        if self._life < 0:
            raise OSError(errno.EBADF, "the file is closed", self._name)
        self._disk.step(self._life, kind, self._name, offset, length)

    def _write_prefix(self, data: Buffer, offset: int) -> None:
        """Write what a process killed in the call may have written: up to a sector boundary, or all of it."""
        first, last = offset // SECTOR_SIZE_BYTES, -(-(offset + len(data)) // SECTOR_SIZE_BYTES)
        end = self._disk.rng.randint(first, last) * SECTOR_SIZE_BYTES
        length = min(end - offset, len(data))
        if length > 0:
            self._inode.write(memoryview(data)[:length], offset)

    def _check_end(self, offset: int, length: int) -> None:
        size_bytes = len(self._inode.data)
        if length and offset + length > size_bytes:
            text = f"{self._name} ends at byte {size_bytes}, but {length} bytes at {offset} are needed"
            raise DamagedError(text, path=self._name, offset=size_bytes)


def _check_file_name(name: str) -> None:
    if name in ("", ".", "..", LOCK_NAME) or ("/" in name and not name.startswith("/")):
        raise RefusedError(f"{name!r} cannot name a file: give a plain name or an absolute path", name=name)
