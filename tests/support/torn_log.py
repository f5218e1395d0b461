"""A process that dies in the middle of a write to the log, after any number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from isochrone.store.disk import Buffer, File
from isochrone.store.log_records import RECORD_ALIGN
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk, SimulatedCrash


class TornFile:
    """A log segment of which the next write stores `kept_bytes` bytes, and then the process is dead.

    Attributes:
        wanted_bytes: length of that write; 0 while there was none.
    """

    def __init__(self, file: File, kept_bytes: int) -> None:
        self._file = file
        self._kept_bytes = kept_bytes
        self.wanted_bytes = 0

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Store a part of `data`; SimulatedCrash."""
        self.wanted_bytes = len(data)
        self._file.pwrite(bytes(data)[: self._kept_bytes], offset)
        raise SimulatedCrash("in the middle of a write to the log")


def torn_everywhere(
    prepare: Callable[[], tuple[SimDisk, Pool]], change: Callable[[Pool], object]
) -> Iterator[tuple[bool | None, Pool]]:
    """Yield (whether the change must be there, pool opened again) for every place where the log write of `change` can end.

    None: either; what is missing may be the zeros that fill the record up, which are there anyway.

    Each pool is one of its own, made by `prepare`; half of them died with the process, half with the machine's power
    (after which the write had not been synced, and only what was before may be left).
    """
    kept_bytes = wanted_bytes = 0
    while kept_bytes <= wanted_bytes:
        disk, pool = prepare()
        pool.log_write()
        for call in pool.sync():
            call()
        torn = TornFile(pool._log.file, kept_bytes)
        pool._log.file = torn  # type: ignore[assignment]
        try:
            change(pool)
        except SimulatedCrash:
            wanted_bytes = torn.wanted_bytes
        if kept_bytes % 2:
            disk.power_loss(Random(kept_bytes))
        else:
            disk.kill()
        opened = Pool.open(disk)
        opened.verify()
        if kept_bytes == wanted_bytes:
            yield not opened.reopened_after_loss, opened
        else:
            yield None if kept_bytes > wanted_bytes - RECORD_ALIGN else False, opened
        kept_bytes += 1
