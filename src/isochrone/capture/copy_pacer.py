"""How fast one session may copy: the operator's rate, and a share of the link while applications write (S2, promise 4).

Rate. A bucket fills with the rate's bytes a second and holds RATE_BURST_NS of them; images are taken from it.

Share. What a link could carry is not known and changes, so no part of it can be computed; but how long a burst of images
occupied it can be seen: from the moment its first image entered the stream until its last was hardened. Time in which
nothing could be copied (no link, a suspension, nothing to copy) is not counted: nobody looks then. After a burst that took t
the copier rests for t * (1 - share) / share; so, whatever the link, the images have it for at most `share` of the time, and
the rest is for what applications write. While no application writes there are no rests.

Beside writes a tick takes one small step instead of several large ones: reading images keeps the event loop from
answering, and a write that comes meanwhile waits for it.
"""

from __future__ import annotations

from typing import Final

SECOND_NS: Final = 1_000_000_000
APPLICATION_QUIET_NS: Final = SECOND_NS // 2
"""An application that has written nothing for so long is not held up by a copy."""
RATE_BURST_NS: Final = SECOND_NS // 10
"""What a copy that could not run may catch up at once."""
REST_NS_MAX: Final = 10 * SECOND_NS
"""Longest rest between two bursts: a link that stalled once must not stop the copy for long."""
BURST_BYTES: Final = 4 << 20
BURST_NS_MAX: Final = SECOND_NS // 2
"""Images between two rests: so many bytes, or as many as occupy the link for so long, else a slow link would be taken, and
given back, for long times on end."""
LOOK_NS_MAX: Final = SECOND_NS // 10
"""While a copy is possible it is looked at with every tick; of a longer time between two looks no more than this counts."""


class CopyPacer:
    """One session's allowance of images. Times are host time; see the module's essay."""

    __slots__ = (
        "_burst_bytes",
        "_filled_ns",
        "_looked_ns",
        "_occupied_ns",
        "_rest_until_ns",
        "_tokens_bytes",
    )

    def __init__(self) -> None:
        self._tokens_bytes = 0.0
        self._filled_ns = 0
        self._looked_ns = 0
        self._occupied_ns = 0
        self._burst_bytes = 0
        self._rest_until_ns = 0

    def room_bytes(
        self, now_ns: int, *, rate_bytes_max: int, share: float, unhardened_bytes: int, beside_writes: bool
    ) -> int | None:
        """Return how many bytes of images may enter the stream now, None for any number.

        To be called with every tick in which something could be copied, also when there is no room elsewhere.

        Args:
            rate_bytes_max: bytes a second, 0 for no limit.
            share: 0 < share <= 1, see the essay.
            unhardened_bytes: images in the stream that the secondary has not hardened.
            beside_writes: whether applications write.
        """
        rate_bytes = self._rate_room_bytes(now_ns, rate_bytes_max) if rate_bytes_max else None
        if not beside_writes or share >= 1.0:
            self._burst_bytes = 0
            self._rest_until_ns = 0
            return rate_bytes
        burst_bytes = self._burst_room_bytes(now_ns, share, unhardened_bytes)
        return burst_bytes if rate_bytes is None else min(rate_bytes, burst_bytes)

    def _rate_room_bytes(self, now_ns: int, rate_bytes_max: int) -> int:
        gained_ns = min(now_ns - self._filled_ns, RATE_BURST_NS)
        self._filled_ns = now_ns
        bucket_bytes = rate_bytes_max * RATE_BURST_NS / SECOND_NS
        self._tokens_bytes = min(bucket_bytes, self._tokens_bytes + gained_ns * rate_bytes_max / SECOND_NS)
        return max(0, int(self._tokens_bytes))

    def _burst_room_bytes(self, now_ns: int, share: float, unhardened_bytes: int) -> int:
        self._occupied_ns += min(now_ns - self._looked_ns, LOOK_NS_MAX)
        self._looked_ns = now_ns
        is_long = self._burst_bytes > 0 and self._occupied_ns >= BURST_NS_MAX
        is_full = is_long or self._burst_bytes >= BURST_BYTES
        if is_full and unhardened_bytes == 0:
            rest_ns = int(self._occupied_ns * (1.0 - share) / share)
            self._rest_until_ns = now_ns + min(REST_NS_MAX, rest_ns)
            self._burst_bytes = 0
            return 0
        if is_full or now_ns < self._rest_until_ns:
            return 0
        return BURST_BYTES - self._burst_bytes

    def entered(self, now_ns: int, size_bytes: int) -> None:
        """Count `size_bytes` of images that entered the stream."""
        if not self._burst_bytes:
            self._looked_ns = now_ns
            self._occupied_ns = 0
        self._burst_bytes += size_bytes
        self._tokens_bytes -= size_bytes
