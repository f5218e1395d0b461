"""What the server serves: one volume as NBD sees it. Declared here, implemented by the controller."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import Protocol


class StatusMap(Protocol):
    """What one metadata context tells of an export, open for one connection."""

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (length, flags) that cover the range in order; neighbours may have the same flags."""
        ...

    def close(self) -> None:
        """Let go of what it holds. Called once."""
        ...


class Export(Protocol):
    """One volume. Called by one connection at a time, on the event loop; every call but `flush`, and what `prepare`
    returns, returns promptly.

    Offsets and lengths are bytes, lie within `size_bytes` and are multiples of `block_size_min`: the server
    has checked. Methods may raise NbdError, any IsochroneError or OSError; the request is then answered with
    the error value of `errors.errno_of`.
    """

    @property
    def name(self) -> str:
        """Name under which clients ask for it."""
        ...

    @property
    def description(self) -> str:
        """One line for people; empty for none."""
        ...

    @property
    def size_bytes(self) -> int:
        """Size that is offered; what a connection was told stays its bound until it ends."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        ...

    @property
    def block_size_min(self) -> int:
        """Smallest unit and alignment of a request: a power of two from 1 to 65536."""
        ...

    @property
    def block_size_preferred(self) -> int:
        """Unit without read-modify-write (the track): a power of two, at least 512 and `block_size_min`."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes."""
        ...

    def write(self, offset: int, data: memoryview) -> None:
        """Store `data`, whose memory is the caller's: valid until `end_batch` has returned, no longer."""
        ...

    def zero(self, offset: int, length: int, *, allocate: bool) -> None:
        """Make the range read as zeros; its space is reserved with `allocate`, else given up."""
        ...

    def block_status(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (offset, length, mapped) runs that cover the range in order, each as long as it can be.

        An unmapped run reads as zeros.
        """
        ...

    def open_map(self, context: str) -> StatusMap:
        """Open a metadata context that `Exports.contexts` offered. Raises NotFoundError when it is gone since."""
        ...

    @property
    def wants_notice(self) -> bool:
        """Whether changes are to be told to `prepare` before they are made."""
        ...

    def prepare(self, changes: Sequence[tuple[int, int, bool]]) -> Awaitable[None] | None:
        """Get ready for writes and zeroes of a batch: (offset, length, whether it zeroes).

        Returns None if they can be made now, else what to wait for first. Making them all the same is not wrong, but may
        keep every connection waiting.
        """
        ...

    def end_batch(self) -> int:
        """End the requests of one wake-up, before any reply to them leaves.

        Returns nanoseconds for which the replies to writes, trims and zeroes of the batch are to be held, 0
        for none. When it raises, none of them is acknowledged: all are answered with the error.
        """
        ...

    def room_wait_ns(self) -> int:
        """Return how long, at most, the same replies wait for room besides; 0 when they do not.

        Asked only after an `end_batch` that returned more than 0. The server's `release_held` ends the wait.
        """
        ...

    async def flush(self) -> None:
        """Return once everything acted on before the call survives a power loss."""
        ...


class Exports(Protocol):
    """The exports of a server, by name."""

    def names(self) -> Sequence[str]:
        """Return the names that `open` knows."""
        ...

    def default(self) -> str:
        """Return what a client gets that asks for no name; "" for none."""
        ...

    def contexts(self, name: str) -> Sequence[str]:
        """Return the metadata contexts that the export `name` has besides base:allocation; empty when there is no such."""
        ...

    def open(self, name: str) -> Export:
        """Return the export `name` for one connection, or for one look at it.

        Raises NotFoundError, or another IsochroneError that says why it cannot be had now.
        """
        ...

    def close(self, export: Export) -> None:
        """Take back what `open` gave. Called once per `open`."""
        ...
