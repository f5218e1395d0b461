"""Every write an application ever made, and what volumes hold because of it: plain Python over dicts.

::

    history = History(track_size_bytes=4096)
    history.add_volume("a/data", track_count=64)
    write = history.issue("a/data", track=3, track_count=2)     # the application sends it
    history.payload(write)                                      # what it sends
    history.stamp(write, time_ns)                               # the controller captured it
    history.acknowledge(write)                                  # the application heard of it

Writes are whole tracks. Each track of each write has its own 16-byte token, and a track's content is its token
repeated, so content found anywhere says which write it came from; zeros are the one token that many writes share.

A controller that dies leaves writes open: nobody was promised them, and only a look at the restarted volumes tells
which tracks of them took effect. `settle` takes that look down as observed writes at the time of the restart; from
then on they are as real as acknowledged ones.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from isochrone.model.errors import InternalError
from isochrone.model.records import RecordKind

TOKEN_BYTES: Final = 16
ZERO_TOKEN: Final = bytes(TOKEN_BYTES)
REPLAYS_MAX: Final = 3
"""Replays kept: one for each kind of time that is looked at in turn, C and J, and one more."""

Buffer = bytes | bytearray | memoryview
Image = Mapping[str, Sequence[Buffer]]
"""Contents of volumes, by key: one buffer for each track, in order."""

Place = tuple[str, int]
"""Volume key and track."""


@dataclass(slots=True, eq=False)
class Write:
    """One write of whole tracks. All its tracks take effect at `time_ns`, or none.

    Attributes:
        number: unique, in order of issue.
        tokens: one for each track; ZERO_TOKEN for all when it zeroes.
        issued_at: place in the order of all events of the history.
        acknowledged_at: the same; None while the application has not heard of it.
        time_ns: stamp; None until captured.
        durable: survives power loss: a flush that began after its acknowledgement has ended.
        closed: it ended without an acknowledgement: refused, or its controller died and `settle` took down the rest.
        observed: not an application's write: what a restarted volume was seen to hold.
    """

    number: int
    volume: str
    track: int
    tokens: tuple[bytes, ...]
    issued_at: int
    acknowledged_at: int | None = None
    time_ns: int | None = None
    durable: bool = False
    closed: bool = False
    observed: bool = False
    places: list[Place] = field(init=False)
    """Where it writes, track by track."""

    def __post_init__(self) -> None:
        self.places = [(self.volume, self.track + index) for index in range(len(self.tokens))]

    @property
    def order(self) -> tuple[int, int]:
        """Its place in the order of times; of equal times, in the order of issue."""
        return self.time_ns or 0, self.number

    @property
    def open(self) -> bool:
        """The application waits for it, and its controller lives."""
        return self.acknowledged_at is None and not self.closed

    def token_at(self, place: Place) -> bytes:
        """Return what it puts at one of its places."""
        return self.tokens[place[1] - self.track]

    def __str__(self) -> str:
        kind = "observation" if self.observed else "zero" if self.tokens[0] == ZERO_TOKEN else "write"
        heard = "acknowledged" if self.acknowledged_at is not None else "not acknowledged"
        last = self.track + len(self.tokens) - 1
        return (
            f"{kind} {self.number} ({self.volume} tracks {self.track}-{last}, time {self.time_ns}, {heard})"
        )


@dataclass(slots=True)
class _Replay:
    """The first `count` stamped writes, replayed: where `state_at` goes on from."""

    count: int = 0
    state: dict[Place, bytes] = field(default_factory=dict)

    def advance(self, stamped: Sequence[Write], end: int) -> Mapping[Place, bytes]:
        """Go on to the first `end` of `stamped` and return what they leave."""
        for write in stamped[self.count : end]:
            self.state.update(zip(write.places, write.tokens, strict=True))
        self.count = end
        return self.state


@dataclass(slots=True)
class History:
    """All writes to all volumes, in the order of issue."""

    track_size_bytes: int
    writes: list[Write] = field(default_factory=list)
    track_counts: dict[str, int] = field(default_factory=dict)
    by_place: dict[Place, list[Write]] = field(default_factory=dict)
    acknowledged: dict[Place, Write] = field(default_factory=dict)
    """The write with the latest time of those whose application was told that they are done."""
    event_count: int = 0
    _token_places: dict[bytes, tuple[Write, Place]] = field(default_factory=dict)
    _stamped: list[Write] = field(default_factory=list)
    _open: dict[int, Write] = field(default_factory=dict)
    _flushable: dict[str, list[Write]] = field(default_factory=dict)
    _newest: _Replay = field(default_factory=_Replay)
    _replays: list[_Replay] = field(default_factory=list)

    def add_volume(self, volume: str, track_count: int) -> None:
        """Begin the history of a volume of zeros."""
        if volume in self.track_counts:
            raise InternalError(f"volume {volume} is in the history already")
        self.track_counts[volume] = track_count

    def issue(
        self, volume: str, track: int, track_count: int = 1, kind: RecordKind = RecordKind.DATA
    ) -> Write:
        """Note that an application sends a write, or (ZERO) zeroes tracks; return it with fresh tokens."""
        if not 0 <= track < track + track_count <= self.track_counts[volume]:
            raise InternalError(f"tracks {track} to {track + track_count - 1} are not on volume {volume}")
        number = len(self.writes) + 1
        if kind & RecordKind.DATA:
            tokens = tuple(b"%010d.%05d" % (number, index) for index in range(track_count))
        else:
            tokens = (ZERO_TOKEN,) * track_count
        return self._append(volume, track, tokens)

    def stamp(self, write: Write, time_ns: int) -> None:
        """Note the time under which a write was captured: the one that its record carries."""
        if write.time_ns is not None:
            raise InternalError(f"{write} was stamped twice, now {time_ns}")
        write.time_ns = time_ns
        self._enter_stamped(write)

    def acknowledge(self, write: Write) -> None:
        """Note that the application heard that a write is done."""
        if write.closed or write.acknowledged_at is not None:
            raise InternalError(f"{write} cannot be acknowledged: it ended before")
        write.acknowledged_at = self._next_event()
        self._open.pop(write.number, None)
        self._flushable.setdefault(write.volume, []).append(write)
        for place in write.places:
            known = self.acknowledged.get(place)
            if known is None or write.order > known.order:
                self.acknowledged[place] = write

    def refuse(self, write: Write) -> None:
        """Note that a write was refused with an error that promises that nothing was changed."""
        if write.time_ns is not None or not write.open:
            raise InternalError(f"{write} cannot be refused: it was captured or ended before")
        self.close(write)

    def close(self, write: Write) -> None:
        """Note that a write failed: nobody was promised it."""
        write.closed = True
        self._open.pop(write.number, None)

    def begin_flush(self) -> int:
        """Note that an application sends a flush; return a token for `end_flush`."""
        return self._next_event()

    def end_flush(self, volume: str, flush: int) -> None:
        """Note that a flush was acknowledged: what was acknowledged on the volume before it began is durable."""
        waiting = self._flushable.get(volume, [])
        for write in waiting:
            write.durable = write.durable or (write.acknowledged_at or 0) < flush
        self._flushable[volume] = [write for write in waiting if not write.durable]

    def settle(self, image: Image, time_ns: int, *, power_lost: bool) -> None:
        """Take down what all volumes of a restarted controller hold, at the time of the restart.

        Open writes on them are closed; wherever one was open, and wherever something else is held than was written
        last, an observed write says from now on what is right. After a power loss all of it is durable.
        `Oracle.check_restart` judges first whether they may hold it.
        """
        held = self.state_at(None)
        open_places = {place for write in self._open.values() for place in write.places}
        for write in [write for write in self._open.values() if write.volume in image]:
            self.close(write)
        if power_lost:
            for write in self._stamped:
                write.durable = write.durable or write.volume in image
        for volume, contents in image.items():
            for track, content in enumerate(contents):
                token = self.token_of(content)
                if token is None:
                    raise InternalError(f"{volume} track {track} holds no token; check the restart first")
                if (volume, track) in open_places or token != held.get((volume, track), ZERO_TOKEN):
                    seen = self._append(volume, track, (token,))
                    seen.observed, seen.durable = True, power_lost
                    self.stamp(seen, time_ns)
                    self.acknowledge(seen)

    def state_at(self, through_ns: int | None) -> Mapping[Place, bytes]:
        """Return the token of every place ever written, by all stamped writes with time <= through_ns (None: all).

        Right until the next write is stamped, and one time's until another time is asked for. A replay from the beginning
        at every look would cost more than the world itself, so a few are kept and the nearest goes on.
        """
        end = len(self._stamped)
        if through_ns is None:
            return self._newest.advance(self._stamped, end)
        while end and (self._stamped[end - 1].time_ns or 0) > through_ns:
            end -= 1
        replay = max((r for r in self._replays if r.count <= end), key=lambda r: r.count, default=None)
        if replay is None:
            replay = _Replay()
            self._replays = [*self._replays[1 - REPLAYS_MAX :], replay]
        return replay.advance(self._stamped, end)

    def state_then(self, through_ns: int) -> Mapping[Place, bytes]:
        """Return the same of a time that is looked at once: replayed from the beginning, and the caller's."""
        end = bisect_right(self._stamped, through_ns, key=lambda write: write.time_ns or 0)
        return _Replay().advance(self._stamped, end)

    def stamped(self) -> Sequence[Write]:
        """Return the stamped writes in the order of their times; of equal times in the order of issue."""
        return self._stamped

    def _enter_stamped(self, write: Write) -> None:
        if not self._stamped or write.order > self._stamped[-1].order:
            self._stamped.append(write)
            return
        insort(self._stamped, write, key=lambda write: write.order)
        self._newest = _Replay()
        self._replays.clear()

    def payload(self, write: Write) -> bytes:
        """Return the bytes that a write sends."""
        return b"".join(expand(token, self.track_size_bytes) for token in write.tokens)

    def token_of(self, content: Buffer) -> bytes | None:
        """Return the token that a whole track is made of, None when it is not one token repeated."""
        data = bytes(content)
        token = data[:TOKEN_BYTES]
        return token if data == expand(token, self.track_size_bytes) else None

    def origin(self, token: bytes) -> tuple[Write, Place] | None:
        """Return the write that a token other than zeros came from, and where it belongs; None when from none."""
        return self._token_places.get(token)

    def image_at(self, through_ns: int) -> dict[str, list[bytes]]:
        """Return the only image that is right at a time."""
        state = self.state_at(through_ns)
        return {
            volume: [
                expand(state.get((volume, track), ZERO_TOKEN), self.track_size_bytes)
                for track in range(count)
            ]
            for volume, count in self.track_counts.items()
        }

    def split_tracks(self, data: Buffer) -> list[bytes]:
        """Return the content of a whole volume as its tracks."""
        size = self.track_size_bytes
        return [bytes(data[start : start + size]) for start in range(0, len(data), size)]

    def _append(self, volume: str, track: int, tokens: tuple[bytes, ...]) -> Write:
        write = Write(len(self.writes) + 1, volume, track, tokens, self._next_event())
        self.writes.append(write)
        self._open[write.number] = write
        for place, token in zip(write.places, tokens, strict=True):
            self.by_place.setdefault(place, []).append(write)
            if token != ZERO_TOKEN:
                self._token_places.setdefault(token, (write, place))
        return write

    def _next_event(self) -> int:
        self.event_count += 1
        return self.event_count


@lru_cache(maxsize=4096)
def expand(token: bytes, track_size_bytes: int) -> bytes:
    """Return the content of a track that holds `token`."""
    return token * (track_size_bytes // TOKEN_BYTES)
