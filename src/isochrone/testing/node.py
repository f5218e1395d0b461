"""Simulated controllers: the production cores over a simulated disk and network, driven by events.

What the shells of the controller room do with asyncio is done here with virtual time: ticks, syncs in steps, links, and
batches of writes. A node can die at any event, or at any disk operation within one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from random import Random

from isochrone.model.errors import IsochroneError
from isochrone.store.pool import Pool
from isochrone.testing.events import MILLISECOND_NS, Events
from isochrone.testing.sim_disk import SimDisk, SimulatedCrash

Steps = Generator[Callable[[], None], None, None]

TICK_NS = (3 * MILLISECOND_NS, 6 * MILLISECOND_NS, 12 * MILLISECOND_NS)
"""About how often a process ticks: one draw for each life, as hosts are more or less loaded."""
SYNC_PAUSE_MS_MAX = (400, 400, 4000)
"""The longest time without a sync that nobody asked for."""
SYNC_NS_MAX = (2 * MILLISECOND_NS, 4 * MILLISECOND_NS, 30 * MILLISECOND_NS)
"""The longest that one blocking call of a sync takes: one draw for each device."""


class Node:
    """One controller of the simulated world: a disk that stays and a process that comes and goes.

    Attributes:
        life: number of the process's life; work left over from an earlier one is dropped.
        is_up: whether the process runs.
        lost_power: since the process last came up; it may have died again while it started.
        reopened_after_loss: it came up after a power loss.
        on_death: told when a disk operation has killed the process.
    """

    def __init__(self, name: str, events: Events, rng: Random, disk: SimDisk) -> None:
        self.name = name
        self.events = events
        self.rng = rng
        self.disk = disk
        self.life = 0
        self.is_up = False
        self.lost_power = False
        self.reopened_after_loss = False
        self.pool: Pool
        self.on_death: Callable[[], None] | None = None
        self._flush_waiters: list[Callable[[str], None]] = []
        self._syncing = False
        self._tick_ns = TICK_NS[0]
        self._sync_ns_max = rng.choice(SYNC_NS_MAX)
        self._sync_pause_ms_max = rng.choice(SYNC_PAUSE_MS_MAX)

    # Life and death

    def start(self) -> None:
        """Open the pool and begin to work. A crash on the way leaves the node down."""
        self.life += 1
        self._flush_waiters = []
        self._syncing = False
        self._tick_ns = self.rng.choice(TICK_NS)
        self.is_up = True
        self.guarded(self._start)()

    def _start(self) -> None:
        self.pool = Pool.open(self.disk)
        self.open_cores()
        self._tick()
        self._background_sync()

    def open_cores(self) -> None:
        """Build the production cores over `self.pool`."""
        raise NotImplementedError

    def tick_cores(self) -> None:
        """Let the cores work."""
        raise NotImplementedError

    def close_cores(self) -> None:
        """Let the cores make durable what they keep beside the pool."""

    def died(self) -> None:
        """The process is gone: drop its links."""
        raise NotImplementedError

    def has_died(self) -> bool:
        """Whether the process is gone."""
        return not self.is_up

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Look at the node's disk without meeting the crash, or the bad spot, that waits there for the product."""
        hook, self.disk.hook = self.disk.hook, None
        trouble, self.disk.trouble = self.disk.trouble, None
        try:
            yield
        finally:
            self.disk.hook, self.disk.trouble = hook, trouble

    def kill(self) -> None:
        """kill -9."""
        if self.is_up:
            self._die()
            self.disk.kill()

    def stop(self) -> None:
        """A clean stop: links are closed, then the cores and the pool."""

        def close() -> None:
            self.died()
            self.close_cores()
            self.pool.close()
            self.is_up = False
            self.life += 1

        self.guarded(close)()
        self.disk.kill()

    def lose_power(self) -> None:
        """The host loses power."""
        if self.is_up:
            self._die()
        self.lost_power = True
        self.disk.power_loss(self.rng)

    def _die(self) -> None:
        self.is_up = False
        self.life += 1
        self.died()

    def guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return `work` as it happens in this life only; a crash of the disk within it kills the process."""
        life = self.life

        def run() -> None:
            if self.life != life:
                return
            try:
                work()
            except SimulatedCrash:
                self._die()
                self.disk.kill()
                if self.on_death is not None:
                    self.on_death()

        return run

    def after(self, delay_ns: int, work: Callable[[], None]) -> None:
        """Do `work` later, if this life lasts."""
        self.events.after(delay_ns, self.guarded(work))

    # Time

    def _tick(self) -> None:
        self.tick_cores()
        if self.pool.checkpoint_due and not self._syncing:
            self.checkpoint()
        self.after(self.rng.randrange(self._tick_ns // 2, self._tick_ns * 3 // 2), self._tick)

    def _background_sync(self) -> None:
        self.flush(lambda _: None)
        self.after(self.rng.randrange(20, self._sync_pause_ms_max) * MILLISECOND_NS, self._background_sync)

    # Durability

    def flush(self, done: Callable[[str], None]) -> None:
        """Make everything written so far durable; `done` gets "" or why it failed. One sync at a time."""
        self._flush_waiters.append(done)
        self._next_sync()

    def sync_now(self) -> None:
        """Make everything durable before anything else happens, as a command does that answers "done"."""
        for call in self.pool.sync():
            call()

    def checkpoint(self) -> None:
        """Write a checkpoint, step by step, between other work."""
        if not self._syncing:
            self._syncing = True
            self.drive(self.pool.checkpoint(), self._sync_ended)

    def _next_sync(self) -> None:
        if self._flush_waiters and not self._syncing:
            self._syncing = True
            waiters, self._flush_waiters = self._flush_waiters, []

            def done(error: str) -> None:
                self._syncing = False
                for waiter in waiters:
                    waiter(error)
                self._next_sync()

            self.drive(self.pool.sync(), done)

    def _sync_ended(self, _error: str) -> None:
        self._syncing = False
        self._next_sync()

    def drive(self, steps: Steps, done: Callable[[str], None]) -> None:
        """Run a generator of blocking calls, each after a delay, as a thread would."""

        def advance(failure: OSError | None = None) -> None:
            try:
                call = steps.throw(failure) if failure else next(steps)
            except StopIteration:
                done("")
            except (IsochroneError, OSError) as error:
                done(str(error))
            else:
                self.after(self.rng.randrange(MILLISECOND_NS // 20, self._sync_ns_max), lambda: block(call))

        def block(call: Callable[[], None]) -> None:
            try:
                call()
            except OSError as error:
                advance(error)
            else:
                advance()

        advance()
