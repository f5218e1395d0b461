"""The demonstration's application: one write after another, and an honest account of what was lost."""

from __future__ import annotations

from isochrone.demo.chain import BLOCK_SIZE_BYTES, ChainLayout, check_chain
from isochrone.demo.workload import ChainWriter

LAYOUT = ChainLayout(volume_count=2, slot_count=4)


class Disk:
    """A volume in memory that is lost after some writes."""

    def __init__(self, writes_left: int) -> None:
        self.image = bytearray(LAYOUT.volume_size_bytes)
        self._writes_left = writes_left

    def write(self, offset: int, data: bytes) -> None:
        if not self._writes_left:
            raise ConnectionResetError("the disk is gone")
        self._writes_left -= 1
        self.image[offset : offset + len(data)] = data


def run_until_lost(writes_left: tuple[int, int]) -> tuple[ChainWriter, list[Disk]]:
    disks = [Disk(count) for count in writes_left]
    writer = ChainWriter(disks, LAYOUT)
    writer.start()
    writer.join(30)
    return writer, disks


def test_the_chain_stops_at_the_first_write_that_is_not_acknowledged() -> None:
    writer, disks = run_until_lost((10, 7))
    assert (writer.acknowledged, writer.issued) == (15, 16)
    assert isinstance(writer.end, ConnectionResetError)
    finding = check_chain([bytes(disk.image) for disk in disks], LAYOUT)
    assert (finding.newest, finding.faults) == (15, ())


def test_what_was_lost_is_counted_from_the_recovered_write_to_the_last_acknowledged_one() -> None:
    writer, _ = run_until_lost((50, 50))
    assert writer.acknowledged == 100
    assert writer.lost_ms(100) == 0.0
    assert writer.lost_ms(101) == 0.0
    assert 0 < writer.lost_ms(99) <= writer.lost_ms(50) <= writer.lost_ms(0)


def test_nothing_is_lost_of_nothing() -> None:
    writer, disks = run_until_lost((0, 0))
    assert writer.lost_ms(0) == 0.0
    assert bytes(disks[0].image) == bytes(4 * BLOCK_SIZE_BYTES)
