"""For every byte of metadata in use: changing it is found, with file and offset, and never becomes other content."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from random import Random

import pytest

from isochrone.model.errors import DamagedError, IsochroneError, RefusedError
from isochrone.store.chain import read_chain
from isochrone.store.check import check_pool
from isochrone.store.head import HEAD, HEAD_NAME
from isochrone.store.page_slots import PAGE_SIZE_BYTES, PAGES_NAME
from isochrone.store.pool import Pool
from isochrone.store.recovery import load_root, load_superblock
from isochrone.store.root import ROOT_NAME, encode_root
from isochrone.store.segment import SEGMENT_HEADER_SIZE_BYTES, SEGMENT_NAMES
from isochrone.store.superblock import SUPERBLOCK_NAME, SUPERBLOCK_SIZE_BYTES, encode_superblock
from isochrone.testing.sim_disk import SimDisk
from isochrone.testing.store_states import Picture
from support.store_world import SESSIONS, TRACK, StoreWorld, picture_of

MASKS = (0x01, 0x80, 0xFF)
PAGE_STRIDE = 13
SUPERBLOCK_STRIDE = 7


def lived_in_world() -> StoreWorld:
    """A pool with two volumes, documents and staged entries, some in the root, some in the log, synced."""
    world = StoreWorld()
    world.create_volume("a", 30 * TRACK)
    world.create_volume("b", 1030 * TRACK)
    world.write(1, 0, 5 * TRACK)
    world.write(2, 1020 * TRACK, 6 * TRACK)
    world.stage(SESSIONS[0], 1, [(1, 3, 2, False), (1, 9, 1, True)])
    world.put_document("x", b"in the root")
    world.whole_sync()
    world.whole_checkpoint()
    world.put_document("y", b"in the log")
    world.write(1, 7 * TRACK + 100, 200)
    world.zero(1, TRACK, TRACK, allocate=False)
    world.whole_sync()
    world.commit(SESSIONS[0], world.time_ns)
    world.stage(SESSIONS[1], 0, [(2, 1, 1, False)])
    world.whole_sync()
    return world


@dataclass(frozen=True)
class Region:
    """Bytes of a file that mean something."""

    name: str
    start: int
    stop: int
    stride: int = 1

    def offsets(self) -> range:
        return range(self.start, self.stop, self.stride)


def regions_in_use(disk: SimDisk) -> Iterator[Region]:
    """Everything that opening reads and believes."""
    superblock = load_superblock(disk)
    root = load_root(disk, superblock)
    yield Region(SUPERBLOCK_NAME, 0, SUPERBLOCK_SIZE_BYTES, SUPERBLOCK_STRIDE)
    yield Region(ROOT_NAME, 0, len(encode_root(root, superblock.uuid)))
    for slot in root.slots.tolist():
        yield Region(PAGES_NAME, slot * PAGE_SIZE_BYTES, (slot + 1) * PAGE_SIZE_BYTES, PAGE_STRIDE)
    yield Region(HEAD_NAME, 0, HEAD.size)
    for name in SEGMENT_NAMES:
        yield Region(name, 0, SEGMENT_HEADER_SIZE_BYTES)
    chain = read_chain(disk, superblock, root)
    assert len(chain.records) > 5
    for name, record in chain.records:
        end = record.offset + 32 + len(record.payload) + -len(record.payload) % 8
        yield Region(name, record.offset, end)


def flip(disk: SimDisk, name: str, offset: int, mask: int) -> None:
    file = disk.open(name)
    file.pwrite(bytes([file.pread(1, offset)[0] ^ mask]), offset)
    file.close()


def problems_after_flip(disk: SimDisk, name: str, offset: int, mask: int) -> list[tuple[str, int]]:
    """What `pool check` says of the pool with one byte changed, as (file, offset); the byte is put back."""
    flip(disk, name, offset, mask)
    try:
        return [(problem.file, problem.offset) for problem in check_pool(disk).problems]
    except RefusedError:
        return [(name, offset)]
    finally:
        flip(disk, name, offset, mask)


def reopened_picture(disk: SimDisk, name: str, offset: int, mask: int) -> Picture | None:
    """What a pool with one byte changed shows when it is opened; None when it is refused."""
    copy = deepcopy(disk)
    flip(copy, name, offset, mask)
    try:
        return picture_of(Pool.open(copy))
    except IsochroneError:
        return None


def test_every_changed_byte_of_metadata_in_use_is_found_with_file_and_offset() -> None:
    disk = lived_in_world().disk
    disk.kill()
    assert not check_pool(disk)
    missed = []
    for region in regions_in_use(disk):
        for index, offset in enumerate(region.offsets()):
            found = problems_after_flip(disk, region.name, offset, MASKS[index % len(MASKS)])
            if not any(file == region.name for file, _ in found):
                missed.append((region.name, offset, found))
    assert not missed


def test_damage_refuses_to_open_and_says_where() -> None:
    disk = lived_in_world().disk
    disk.kill()
    for region in regions_in_use(disk):
        middle = (region.start + region.stop) // 2
        copy = deepcopy(disk)
        flip(copy, region.name, middle, 0x10)
        with pytest.raises(DamagedError, match=rf"{region.name}, byte \d+") as damage:
            Pool.open(copy)
        assert damage.value.fields["file"] == region.name


@pytest.mark.parametrize("power_loss", [False, True])
def test_a_changed_byte_anywhere_never_becomes_other_content(power_loss: bool) -> None:
    world = lived_in_world()
    disk, rng = world.disk, Random(5)
    before = picture_of(world.pool)
    if power_loss:
        disk.power_loss(Random(1))
    else:
        disk.kill()
    names = [name for name in disk.names() if name != "tracks"]
    accepted = 0
    for _ in range(120):
        name = rng.choice(names)
        size = disk.open(name).size_bytes()
        offset = rng.randrange(min(size, rng.choice([16, 512, 2048, 8192, size])))
        picture = reopened_picture(disk, name, offset, rng.choice(MASKS))
        if picture is None:
            continue
        accepted += 1
        if power_loss:
            # The log's end is not vouched for: what is left may be shorter, but is a state that was lived.
            world_copy = deepcopy(world.model)
            world_copy.reopened(picture, power_loss=True)
        else:
            assert picture == before
    assert 0 < accepted < 120


@pytest.mark.parametrize("name", ["superblock", "root", "pages", "log.a", "log.b", "log.head", "tracks"])
def test_a_missing_or_shortened_file_is_named(name: str) -> None:
    disk = lived_in_world().disk
    disk.kill()
    shortened, missing = deepcopy(disk), deepcopy(disk)
    shortened.open(name).truncate(100 if name != "log.head" else 8)
    missing.remove(name)
    for broken in (shortened, missing):
        with pytest.raises(IsochroneError) as refusal:
            Pool.open(broken)
        assert name in refusal.value.message or refusal.value.fields["file"] == name


def test_a_later_format_is_refused_untouched() -> None:
    """Version and features are read only after their checksum: a changed byte is damage, a later version is not."""
    disk = lived_in_world().disk
    disk.kill()
    superblock = load_superblock(disk)
    disk.open(SUPERBLOCK_NAME).pwrite(encode_superblock(replace(superblock, features=1 << 7)), 0)
    done: list[str] = []
    disk.hook = lambda operation: done.append(operation.kind)
    with pytest.raises(RefusedError, match="version"):
        Pool.open(disk)
    assert set(done) <= {"lock", "open", "read"}
