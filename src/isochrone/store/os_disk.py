"""A real folder as a Disk: system calls, completed to the last byte."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isochrone.model.errors import BusyError, DamagedError, NotFoundError, RefusedError
from isochrone.store.disk import LOCK_NAME, Buffer, WritableBuffer

VECTOR_COUNT_MAX: Final = os.sysconf("SC_IOV_MAX")
"""Most buffers that one preadv or pwritev call takes."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC


class OsFile:
    """An open file or block device (`store.disk.File`)."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._is_device = stat.S_ISBLK(os.fstat(fd).st_mode)
        self._views: list[tuple[memoryview, mmap.mmap]] = []

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset` (see File)."""
        data = os.pread(self._fd, length, offset)
        if len(data) == length:
            return data
        whole = bytearray(length)
        whole[: len(data)] = data
        self.preadv([memoryview(whole)[len(data) :]], offset + len(data))
        return bytes(whole)

    def preadv(self, buffers: Sequence[WritableBuffer], offset: int) -> None:
        """Fill all `buffers` from `offset` on (see File)."""
        left = _without_empty(buffers)
        while left:
            count = os.preadv(self._fd, left[:VECTOR_COUNT_MAX], offset)
            if count == 0:
                text = (
                    f"{self._path} ends at byte {self.size_bytes()}, but {sum(map(len, left))} bytes at "
                    f"{offset} are needed: the file was cut; restore it or recover from the other site"
                )
                raise DamagedError(text, path=self._path, offset=offset)
            offset += count
            left = _advance(left, count)

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of `data` at `offset` (see File)."""
        count = os.pwrite(self._fd, data, offset)
        if count != len(data):
            self.pwritev([memoryview(data)[count:]], offset + count)

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all `buffers` back to back at `offset` (see File)."""
        left = _without_empty(buffers)
        while left:
            count = os.pwritev(self._fd, left[:VECTOR_COUNT_MAX], offset)
            if count == 0:
                raise OSError(errno.EIO, "the device took no byte of a write", self._path)
            offset += count
            left = _advance(left, count)

    def datasync(self) -> None:
        """Make durable what was written, also through `map_shared` (see File)."""
        os.fdatasync(self._fd)

    def drop_cache(self) -> None:
        """Forget clean cached content (see File). Linux begins to write out dirty pages and drops the clean ones."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def size_bytes(self) -> int:
        """Return the size of the file or device."""
        if self._is_device:
            return os.lseek(self._fd, 0, os.SEEK_END)
        return os.fstat(self._fd).st_size

    def allocate(self, size_bytes: int) -> None:
        """Reserve real space (see File)."""
        if self._is_device:
            self._check_device_size(size_bytes)
        elif size_bytes:
            os.posix_fallocate(self._fd, 0, size_bytes)

    def truncate(self, size_bytes: int) -> None:
        """Set the size without reserving space (see File). A block device keeps its size."""
        if self._is_device:
            self._check_device_size(size_bytes)
        else:
            os.ftruncate(self._fd, size_bytes)

    def map_shared(self) -> memoryview:
        """Return the whole file as shared memory (see File)."""
        mapping = mmap.mmap(self._fd, self.size_bytes(), mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        view = memoryview(mapping)
        self._views.append((view, mapping))
        return view

    def close(self) -> None:
        """Close the file and end its mappings (see File)."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        while self._views:
            view, mapping = self._views.pop()
            try:
                view.release()
                mapping.close()
            except BufferError:
                continue  # an array still looks into it: the kernel unmaps it with the last one

    def _check_device_size(self, size_bytes: int) -> None:
        if size_bytes > self.size_bytes():
            text = f"the device has {self.size_bytes()} bytes, {size_bytes} are needed"
            raise OSError(errno.ENOSPC, text, self._path)


class OsDisk:
    """A folder of the machine (`store.disk.Disk`)."""

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        """Attach to the folder at `path`; make it, with its parents, when `create` is set and it is missing.

        Raises:
            NotFoundError: there is no such folder.
        """
        self.path = Path(path)
        if create:
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._folder_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            text = f"{self.path} is not a folder: create the pool first"
            raise NotFoundError(text, path=str(self.path)) from None
        self._lock_fd = -1
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip()

    @property
    def boot_id(self) -> str:
        """The kernel's id of the running boot."""
        return self._boot_id

    def open(self, name: str, *, create: bool = False) -> OsFile:
        """Open a file for reading and writing (see Disk)."""
        _check_file_name(name)
        flags = _FLAGS | (os.O_CREAT if create else 0)
        path = str(self.path / name)
        try:
            return OsFile(os.open(name, flags, 0o600, dir_fd=self._folder_fd), path)
        except OSError as error:
            error.filename = path
            raise

    def names(self) -> list[str]:
        """Return the names of the folder's files, sorted (see Disk)."""
        with os.scandir(self._folder_fd) as entries:
            return sorted(entry.name for entry in entries if entry.is_file() and entry.name != LOCK_NAME)

    def rename(self, old: str, new: str) -> None:
        """Rename atomically, replacing `new` (see Disk)."""
        _check_file_name(new)
        os.rename(old, new, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)

    def remove(self, name: str) -> None:
        """Remove a file (see Disk)."""
        os.unlink(name, dir_fd=self._folder_fd)

    def sync(self) -> None:
        """Make names durable (see Disk)."""
        os.fsync(self._folder_fd)

    def lock(self) -> None:
        """Take the folder by flock on a file that holds, as text, our process id (see Disk)."""
        fd = os.open(LOCK_NAME, _FLAGS | os.O_CREAT, 0o600, dir_fd=self._folder_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).strip()
            os.close(fd)
            pid = int(holder) if holder.isdigit() else 0
            raise BusyError(
                f"{self.path} is in use by process {pid or '(unknown)'}: stop that controller first",
                path=str(self.path),
                pid=pid,
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def close(self) -> None:
        """Release the lock and the folder (see Disk)."""
        for fd in (self._lock_fd, self._folder_fd):
            if fd >= 0:
                os.close(fd)
        self._lock_fd = self._folder_fd = -1


def _check_file_name(name: str) -> None:
    if name in ("", ".", "..", LOCK_NAME) or ("/" in name and not name.startswith("/")):
        raise RefusedError(f"{name!r} cannot name a file: give a plain name or an absolute path", name=name)


def _without_empty(buffers: Sequence[Buffer]) -> list[memoryview]:
    return [memoryview(buffer) for buffer in buffers if len(buffer)]


def _advance(buffers: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of `buffers` after their first `count` bytes."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [buffer[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []
