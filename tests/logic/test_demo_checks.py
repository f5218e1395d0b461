"""The demonstration's checkers are pure functions; these tests show that bad images do not pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from isochrone.demo.chain import (
    BLOCK_SIZE_BYTES,
    SECTOR_SIZE_BYTES,
    ChainLayout,
    check_chain,
    make_block,
)
from isochrone.demo.tree import check_tree, pack_tree

LAYOUT = ChainLayout(volume_count=2, slot_count=5)


def images_after(numbers: range | list[int], layout: ChainLayout = LAYOUT) -> list[bytearray]:
    """Return the volumes after exactly the writes `numbers`, in their order."""
    images = [bytearray(layout.volume_size_bytes) for _ in range(layout.volume_count)]
    for number in numbers:
        volume, offset = layout.place(number)
        images[volume][offset : offset + BLOCK_SIZE_BYTES] = make_block(number)
    return images


def check(images: list[bytearray], layout: ChainLayout = LAYOUT) -> tuple[int, tuple[str, ...]]:
    finding = check_chain([bytes(image) for image in images], layout)
    assert finding.fault_count >= len(finding.faults)
    return finding.newest, finding.faults


@pytest.mark.parametrize("volume_count", [1, 2, 3])
@pytest.mark.parametrize("newest", [0, 1, 2, 3, 9, 10, 11, 12, 37])
def test_every_prefix_passes(newest: int, volume_count: int) -> None:
    layout = ChainLayout(volume_count, slot_count=5)
    assert check(images_after(range(1, newest + 1), layout), layout) == (newest, ())


@pytest.mark.parametrize("newest", [2, 7, 10, 11, 25])
def test_any_one_missing_write_before_the_newest_is_found(newest: int) -> None:
    still_visible = range(max(1, newest - LAYOUT.volume_count * LAYOUT.slot_count + 1), newest)
    for missing in still_visible:
        images = images_after([number for number in range(1, newest + 1) if number != missing])
        found, faults = check(images)
        assert found == newest
        assert any(f"write {missing} is missing" in fault for fault in faults)


def test_one_volume_that_is_older_than_the_other_is_found() -> None:
    images = images_after(range(1, 30))
    images[1] = images_after(range(1, 20))[1]
    assert check(images)[1]


def test_a_torn_block_is_found_also_when_it_is_the_newest() -> None:
    images = images_after(range(1, 12))
    volume, offset = LAYOUT.place(12)
    images[volume][offset : offset + SECTOR_SIZE_BYTES] = make_block(12)[:SECTOR_SIZE_BYTES]
    assert "torn" in check(images)[1][0]


def test_swapped_sectors_of_one_block_are_found() -> None:
    images = images_after(range(1, 4))
    first, second = images[0][:SECTOR_SIZE_BYTES], images[0][SECTOR_SIZE_BYTES : 2 * SECTOR_SIZE_BYTES]
    images[0][: 2 * SECTOR_SIZE_BYTES] = second + first
    assert "never written" in check(images)[1][0]


def test_a_block_in_the_wrong_slot_is_found() -> None:
    images = images_after(range(1, 6))
    images[1][4 * BLOCK_SIZE_BYTES :] = make_block(2)
    assert check(images)[1]


@pytest.mark.parametrize("position", [0, 8, 30, SECTOR_SIZE_BYTES + 100, BLOCK_SIZE_BYTES - 1])
def test_one_flipped_bit_is_found(position: int) -> None:
    images = images_after(range(1, 9))
    images[0][position] ^= 1
    assert check(images)[1]


def make_tree(folder: Path) -> None:
    (folder / "inner").mkdir()
    for number in range(10):
        (folder / "inner" / f"file{number}").write_bytes(bytes([number]) * 3000)


def test_an_intact_tree_passes_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    make_tree(tmp_path)
    tree = pack_tree(tmp_path, size_bytes_max=1 << 20)
    assert len(tree.checksums) == 10
    assert check_tree(tree.image, tree.checksums) == []

    damaged = bytearray(tree.image)
    damaged[damaged.index(b"\x04" * 3000) + 7] ^= 1
    assert check_tree(bytes(damaged), tree.checksums) == ["inner/file4 differs"]

    cut = tree.image[: tree.image.index(b"\x06" * 3000)]
    assert check_tree(cut, tree.checksums)
    assert check_tree(bytes(len(tree.image)), tree.checksums)


def test_a_tree_is_cut_to_the_size_asked_for(tmp_path: Path) -> None:
    make_tree(tmp_path)
    tree = pack_tree(tmp_path, size_bytes_max=60_000)
    assert 0 < len(tree.checksums) < 10
    assert len(tree.image) <= 60_000
    assert check_tree(tree.image, tree.checksums) == []
