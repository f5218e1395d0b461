"""Applications of the simulated world: each writes one thing after the other over the volumes it uses.

A write is issued only when the one before was acknowledged, on whatever controller: the dependent writes whose order no
image may break. What was written is told to the history; what a controller holds after a crash is judged and then taken
down as it is, as a file system would find it.
"""

from __future__ import annotations

from random import Random
from typing import Final

from isochrone.model.errors import ConflictError, PoolFullError
from isochrone.model.records import RecordKind
from isochrone.testing.events import MILLISECOND_NS, Events
from isochrone.testing.history import TOKEN_BYTES, ZERO_TOKEN, History, Write
from isochrone.testing.oracle import Oracle, OracleError
from isochrone.testing.sim_primary import PrimaryNode

WRITE_TRACKS_MAX: Final = 8
FLUSH_ODDS: Final = (0.05, 0.005)
"""How often a batch is followed by a flush: what is not flushed may be lost with the power."""
SECTOR_SIZE_BYTES: Final = 512
READY_LOOKS_MAX: Final = 50
"""Looks at whether regions are active; after them the write is made all the same, and makes them so itself."""

Plan = tuple[int, int, RecordKind]
"""First track, number of tracks, kind."""


def volume_key(node: PrimaryNode, volume: str) -> str:
    """Return the name of a primary volume in the history."""
    return f"{node.name}/{volume}"


class Application:
    """A chain of dependent writes.

    Args:
        volumes: (controller, volume name) it writes to.

    Attributes:
        is_writing: cleared to let it end after the write in progress.
        is_idle: it has ended.
        pause_ns: about how long it thinks between an acknowledgement and its next write.
    """

    def __init__(
        self, events: Events, rng: Random, history: History, volumes: list[tuple[PrimaryNode, str]]
    ) -> None:
        self.is_writing = True
        self.write_count = 0
        self.refused_count = 0
        self._events = events
        self._rng = rng
        self._history = history
        self._volumes = volumes
        self.is_idle = False
        self._flush_odds = rng.choice(FLUSH_ODDS)
        self.pause_ns = rng.choice((4 * MILLISECOND_NS, 10 * MILLISECOND_NS, 30 * MILLISECOND_NS))
        self._go_on()

    def _go_on(self) -> None:
        self.is_idle = not self.is_writing
        if self.is_writing:
            self._events.after(self._rng.randrange(1, 2 * self.pause_ns), self._write_somewhere)

    def _write_somewhere(self) -> None:
        node, name = self._rng.choice(self._volumes)
        if not node.is_up or not self.is_writing:
            self._events.after(10 * MILLISECOND_NS, self._go_on)
            return
        volume = node.pool.volumes[name]
        plans = [self._plan(volume.track_count) for _ in range(self._rng.choice((1, 1, 1, 4)))]
        self._write_when_ready(node, node.life, name, plans, READY_LOOKS_MAX)

    def _plan(self, volume_tracks: int) -> Plan:
        """Choose a run of tracks (first, count), and what becomes of it."""
        rng = self._rng
        track = rng.randrange(volume_tracks)
        count = min(rng.choice((1, 1, 2, WRITE_TRACKS_MAX)), volume_tracks - track)
        return track, count, RecordKind.ZERO if rng.random() < 0.15 else RecordKind.DATA

    def _write_when_ready(
        self, node: PrimaryNode, life: int, name: str, plans: list[Plan], looks_left: int
    ) -> None:
        """Write once the regions are active where marks are durable, as a connection of the server does."""
        if node.life != life or not node.is_up:  # it died meanwhile; the application tries something else
            self._go_on()
            return
        if looks_left and not node.may_write(name, plans):
            again = lambda: self._write_when_ready(node, life, name, plans, looks_left - 1)  # noqa: E731
            self._events.after(self._rng.randrange(1, 2 * MILLISECOND_NS), again)
            return
        node.guarded(lambda: self._write_batch(node, name, plans))()
        if node.life != life:
            self._go_on()

    def _write_batch(self, node: PrimaryNode, name: str, plans: list[Plan]) -> None:
        """One wake-up of one connection: a few writes, acknowledged together."""
        writes = [self._write(node, name, plan) for plan in plans]
        number = node.pool.volumes[name].number
        hold_ns = node.primary.end_batch(number, len(writes))
        wait_ns = node.primary.room_wait_ns(number, len(writes)) if hold_ns else 0
        node.act()
        life = node.life
        room_at_ns = self._events.now_ns() + wait_ns

        def acknowledge() -> None:
            if (
                node.life == life
                and self._events.now_ns() < room_at_ns
                and node.primary.throttle.until_ns is not None
            ):
                self._events.after(MILLISECOND_NS, acknowledge)  # it waits for room in the side file
                return
            if node.life == life:
                for write in writes:
                    if write is not None:
                        self._history.acknowledge(write)
                if self._rng.random() < self._flush_odds:
                    self._flush(node, name)
            self._go_on()

        self._events.after(hold_ns + self._rng.randrange(1, MILLISECOND_NS), acknowledge)

    def _write(self, node: PrimaryNode, name: str, plan: Plan) -> Write | None:
        rng = self._rng
        track, count, kind = plan
        volume = node.pool.volumes[name]
        size = node.pool.track_size_bytes
        if node.primary.write_refusal(volume.number):
            self.refused_count += 1
            return None
        write = self._history.issue(volume_key(node, name), track, count, kind)
        before_ns = node.primary.stamper.last_ns
        try:
            if kind is RecordKind.ZERO:
                node.primary.zero(volume, track * size, count * size, allocate=rng.random() < 0.3)
            else:
                node.primary.write(volume, track * size, memoryview(bytearray(self._history.payload(write))))
        except (PoolFullError, ConflictError):
            self._history.close(write)
            self.refused_count += 1
            return None
        # A write that is only marked draws no stamp of its own; it is dated here, after it took effect.
        stamper = node.primary.stamper
        self._history.stamp(write, stamper.last_ns if stamper.last_ns > before_ns else stamper.stamp())
        self.write_count += 1
        return write

    def _flush(self, node: PrimaryNode, name: str) -> None:
        flush = self._history.begin_flush()

        def done(error: str) -> None:
            if not error:
                self._history.end_flush(volume_key(node, name), flush)

        node.flush(done)


def settle_after_restart(history: History, oracle: Oracle, node: PrimaryNode, volumes: list[str]) -> None:
    """Judge what a restarted primary holds, then take it down as what applications see from now on."""
    size = node.pool.track_size_bytes
    power_lost = node.reopened_after_loss
    image: dict[str, list[bytes]] = {}
    torn: list[tuple[str, int]] = []
    held = history.state_at(None)
    for name in volumes:
        volume = node.pool.volumes[name]
        key = volume_key(node, name)
        image[key] = history.split_tracks(volume.read(0, volume.size_bytes))
        for track, content in enumerate(image[key]):
            if history.token_of(content) is None:
                _check_torn(history, key, track, content)
                torn.append((name, track))
                image[key][track] = held.get((key, track), ZERO_TOKEN) * (size // TOKEN_BYTES)
    if not torn:
        oracle.check_restart(image, power_lost=power_lost)
    history.settle(image, node.primary.stamper.stamp(), power_lost=power_lost)
    for name, track in torn:
        _rewrite(history, node, name, track)
    for volume in node.pool.volumes.values():
        node.primary.end_batch(volume.number)


def _check_torn(history: History, key: str, track: int, content: bytes) -> None:
    """A track whose write was interrupted, or not flushed, may hold sectors of several versions; nothing else."""
    known = {write.token_at((key, track)) for write in history.by_place.get((key, track), [])} | {ZERO_TOKEN}
    for start in range(0, len(content), SECTOR_SIZE_BYTES):
        sector = content[start : start + SECTOR_SIZE_BYTES]
        if (
            sector != sector[:TOKEN_BYTES] * (SECTOR_SIZE_BYTES // TOKEN_BYTES)
            or sector[:TOKEN_BYTES] not in known
        ):
            raise OracleError(
                f"after a power loss {key} track {track} holds foreign bytes:", [repr(sector[:32])]
            )


def _rewrite(history: History, node: PrimaryNode, name: str, track: int) -> None:
    """What an application's journal does for a torn block."""
    size = node.pool.track_size_bytes
    write = history.issue(volume_key(node, name), track, 1)
    node.primary.write(node.pool.volumes[name], track * size, memoryview(bytearray(history.payload(write))))
    history.stamp(write, node.primary.stamper.stamp())
    history.acknowledge(write)
