"""The oracle of the outage test: it must see what it is there for."""

from soak.versions import BLOCK_BYTES, Places, check_versions, make_block

BLOCKS = 64
SEED = 3


def image_of(newest: int) -> bytearray:
    places = Places(SEED, BLOCKS)
    image = bytearray(BLOCKS * BLOCK_BYTES)
    for number in range(1, newest + 1):
        put(image, places.of(number), make_block(number, places.of(number)))
    return image


def put(image: bytearray, place: int, block: bytes) -> None:
    image[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES] = block


def faults(image: bytearray) -> int:
    return check_versions(bytes(image), Places(SEED, BLOCKS)).fault_count


def test_the_image_after_any_write_is_an_instant() -> None:
    for newest in (0, 1, 10, 200):
        finding = check_versions(bytes(image_of(newest)), Places(SEED, BLOCKS))
        assert (finding.newest, finding.fault_count) == (newest, 0)


def test_a_write_that_is_missing_before_a_present_one_is_seen() -> None:
    image, places = image_of(200), Places(SEED, BLOCKS)
    put(image, places.of(199), bytes(BLOCK_BYTES))
    assert faults(image) == 1


def test_an_older_block_and_a_block_of_another_place_are_seen() -> None:
    places = Places(SEED, BLOCKS)
    older = image_of(200)
    put(older, places.of(200), make_block(1, places.of(200)))
    put(older, (places.of(200) + 1) % BLOCKS, make_block(200, places.of(200)))
    assert faults(older) >= 2


def test_a_torn_block_is_seen() -> None:
    image, places = image_of(200), Places(SEED, BLOCKS)
    start = places.of(200) * BLOCK_BYTES
    image[start + BLOCK_BYTES // 2 : start + BLOCK_BYTES] = bytes(BLOCK_BYTES // 2)
    assert faults(image) == 1
