"""One direction of a link without sockets: the production codec around a queue of bytes.

::

    pipe = LinkPipe(track_size_bytes=4096)
    pipe.send(message)
    for received in pipe.deliver(1000): ...    # whatever the next 1000 bytes complete
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from isochrone.link.codec import Decoder, Encoder
from isochrone.link.frame import PREAMBLE
from isochrone.link.messages import Message
from isochrone.model.choices import Compression

Corruption = Callable[[bytearray], None]
"""Changes bytes in flight, in place."""


class LinkPipe:
    """Bytes on their way from a sender to a receiver, in order, delivered when the owner says so.

    Losing the connection is dropping the pipe; a new connection is a new pair of pipes.

    Attributes:
        decoder: the receiver's; its `track_size_bytes` may be set once it is known.
        delivered_bytes: bytes given to the decoder so far.
    """

    def __init__(
        self, *, compression: Compression = Compression.OFF, track_size_bytes: int | None = None
    ) -> None:
        self.decoder = Decoder(track_size_bytes=track_size_bytes)
        self.delivered_bytes = 0
        self._encoder = Encoder(compression)
        self._in_flight = bytearray(PREAMBLE)

    @property
    def pending_bytes(self) -> int:
        """Bytes sent and not yet delivered."""
        return len(self._in_flight)

    def send(self, message: Message) -> None:
        """Encode `message` and put it on its way."""
        for buffer in self._encoder.encode(message):
            self._in_flight += buffer

    def deliver(self, byte_count: int | None = None, corrupt: Corruption | None = None) -> Iterator[Message]:
        """Deliver the next `byte_count` bytes (None: all) and yield the messages they complete.

        `corrupt` may change them first. Raises ProtocolError where the receiver would drop the connection,
        after the messages before the fault were yielded. Iterate to the end.
        """
        chunk = self._in_flight[:byte_count]
        del self._in_flight[: len(chunk)]
        self.delivered_bytes += len(chunk)
        if corrupt is not None:
            corrupt(chunk)
        yield from self.decoder.feed(chunk)
