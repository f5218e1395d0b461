"""The receive buffer of one connection: a window `start`..`end` of received bytes in one block of memory.

Every connection has RECEIVE_BUFFER_BYTES. For a request that does not fit the memory grows to exactly its
size, and while it is arriving only its own bytes are received: a stream of large writes never leaves a piece
of the next one behind to be moved. Between large requests only the small part is received into, so that less
than RECEIVE_BUFFER_BYTES are held whenever a growth is called for: a connection that waits for memory can
give up all it has grown by, and connections cannot block each other by holding a part and wanting more.

What is left over after parsing is moved to the front when it is little, or when the rest of it would not fit
behind it.
"""

from __future__ import annotations

from typing import Final

from isochrone.nbd.constants import REQUEST_HEADER_BYTES, REQUEST_LENGTH_MAX

RECEIVE_BUFFER_BYTES: Final = 256 << 10
"""What every connection has: some sixty 4 KiB writes in one wake-up."""

RECEIVE_BUFFER_BYTES_MAX: Final = REQUEST_LENGTH_MAX + REQUEST_HEADER_BYTES
"""The largest request there is."""

_MOVE_BYTES_CHEAP: Final = 8 << 10


class ReceiveBuffer:
    """Invariant: 0 <= start <= end <= limit <= capacity; limit is RECEIVE_BUFFER_BYTES but for a large
    request.

    Slices of `view` handed out stay valid memory, but their content changes with the next receive or
    `expect`.
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        self.start = 0
        self.end = 0
        self._limit = RECEIVE_BUFFER_BYTES

    @property
    def grown_bytes(self) -> int:
        """Bytes held beyond what every connection has."""
        return len(self.view) - RECEIVE_BUFFER_BYTES

    @property
    def awaits_large(self) -> bool:
        """Whether a large request is arriving."""
        return self._limit > RECEIVE_BUFFER_BYTES

    def space(self) -> memoryview:
        """Return where the next bytes go; never empty after `expect`."""
        return self.view[self.end : self._limit]

    def consume(self, position: int) -> None:
        """Everything before `position` is done with."""
        if position == self.end:
            self.start = self.end = 0
        else:
            self.start = position
        self._limit = RECEIVE_BUFFER_BYTES

    def growth_bytes(self, request_bytes: int) -> int:
        """Return by how many bytes the memory must grow for a request of `request_bytes`, 0 if it need not."""
        return max(0, request_bytes - len(self.view))

    def expect(self, request_bytes: int) -> None:
        """Make room for the request of `request_bytes` that begins at `start`; grow if need be."""
        held_bytes = self.end - self.start
        is_large = request_bytes > RECEIVE_BUFFER_BYTES
        if request_bytes > len(self.view):
            self._move_into(memoryview(bytearray(request_bytes)))
        elif self.start and (
            held_bytes <= _MOVE_BYTES_CHEAP or self.start + request_bytes > RECEIVE_BUFFER_BYTES
        ):
            self._move_into(self.view)
        self._limit = request_bytes if is_large else RECEIVE_BUFFER_BYTES

    def shrink(self) -> None:
        """Return to the small size, keeping what is held. Not while a large request is arriving."""
        assert not self.awaits_large
        if self.grown_bytes:
            self._move_into(memoryview(bytearray(RECEIVE_BUFFER_BYTES)))

    def _move_into(self, memory: memoryview) -> None:
        held_bytes = self.end - self.start
        memory[:held_bytes] = self.view[self.start : self.end]
        self.view = memory
        self.start, self.end = 0, held_bytes
