"""When checkpoints happen, and how the log moves with them.

A checkpoint that finds no room waits: it stays the one under way, with its snapshot, and its driver comes back later.
The log goes on in its second segment meanwhile. Only when that is full, too, has the pool nowhere to write: then it is
read-only.

A checkpoint that was made because the log was full holds what was pending there. If it has to wait, those records go
into the new segment all the same, so that the old root and the two segments say everything; and the root to come says that
the log goes on behind them, or they would be applied twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from isochrone.model.errors import PoolFullError
from isochrone.store.checkpoint import Checkpoint, CheckpointFiles
from isochrone.store.durability import Steps
from isochrone.store.health import Health
from isochrone.store.log import Log
from isochrone.store.page_slots import PageSlots
from isochrone.store.state import PoolState
from isochrone.store.superblock import Superblock


class Checkpointer:
    """Checkpoints of one pool, one at a time.

    Attributes:
        running: the checkpoint under way; also one whose driver gave up.
        waits_because: there was no room for it, or to begin it; None when it does not wait.
        count: checkpoints completed since the pool was opened.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        superblock: Superblock,
        health: Health,
        state: PoolState,
        slots: PageSlots,
        log: Log,
        reserved_page_count: Callable[[], int],
    ) -> None:
        self._files = files
        self._superblock = superblock
        self._health = health
        self._state = state
        self._slots = slots
        self._log = log
        self._reserved_page_count = reserved_page_count
        self.running: Checkpoint | None = None
        self.waits_because: str | None = None
        self.count = 0

    def steps(self) -> Steps:
        """Start a checkpoint, or go on with the one under way, and yield its blocking calls. The log is
        written.

        Raises PoolFullError when it has to wait for room.
        """
        try:
            running = self.running or self._start()
            yield from running.steps
        except PoolFullError as error:
            self.waits_because = error.message
            raise
        self._finish(running)

    def make_room(self) -> None:
        """The log is full: checkpoint now, inline. What is pending in the log becomes part of the checkpoint."""
        try:
            self._complete()
            running = self._start()
        except PoolFullError as error:
            self._end_writing(error)
            raise
        try:
            running.run()
        except PoolFullError as error:
            if not self._log.fits():
                self._end_writing(error)
            self.waits_because = error.message
            self._log_behind(running)
        else:
            self._log.forget_pending()
            self._finish(running)

    def _log_behind(self, running: Checkpoint) -> None:
        """Write what is pending, which the snapshot of `running` holds already, into the segment behind it."""
        self._health.run("writing the log", self._log.write)
        running.go_on_behind(self._log.next_sequence, self._log.file)

    def _end_writing(self, error: PoolFullError) -> None:
        """What is pending is in memory and can be written nowhere. Raises PoolReadOnlyError."""
        self._health.fail("making room in the full log", error)
        self._health.check()

    def begin(self, generation: int, first_sequence: int) -> None:
        """Make a state that was just recovered durable; the log begins a segment of its own for what comes.

        The root comes first: the segment may be one that the old root still needed. Before it the names: the
        root that was read may be one whose name a power loss takes back, while page slots of the one before it
        are about to be used again.
        """
        self._health.make_durable("making the root's name durable", self._files.disk.sync)
        self._run(generation, first_sequence, is_clean=False)
        self._log.start(generation, first_sequence)
        self._health.datasync(self._log.file, "making the log durable")
        self._log.checkpointed(first_sequence)

    def end(self) -> None:
        """Everything is logged: write the last checkpoint before the pool is closed."""
        self._complete()
        self._run(self._log.generation + 1, self._log.next_sequence, is_clean=True)

    def _complete(self) -> None:
        if self.running is not None:
            self.running.run()
            self._finish(self.running)

    def _run(self, generation: int, first_sequence: int, *, is_clean: bool) -> None:
        running = self._new(generation, first_sequence, is_clean=is_clean)
        running.run()
        running.finish()

    def _new(self, generation: int, first_sequence: int, *, is_clean: bool) -> Checkpoint:
        self._slots.reserve(self._state.arena.live_count + self._reserved_page_count())
        return Checkpoint(
            self._files,
            self._superblock,
            self._health,
            self._state,
            self._slots,
            generation=generation,
            first_sequence=first_sequence,
            is_clean=is_clean,
        )

    def _start(self) -> Checkpoint:
        """Take a snapshot, which holds what is pending in the log too, and switch the log behind it."""
        generation, sequence = self._log.generation + 1, self._log.next_sequence
        self.running = self._new(generation, sequence, is_clean=False)
        self._health.run("starting a log segment", partial(self._log.start, generation, sequence))
        return self.running

    def _finish(self, running: Checkpoint) -> None:
        if self.running is running:
            running.finish()
            self._log.checkpointed(running.first_sequence)
            self.running = None
            self.waits_because = None
            self.count += 1
