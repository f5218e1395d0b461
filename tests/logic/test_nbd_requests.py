"""Requests: what is taken, what is refused with which error value, and how a batch is bounded."""

from __future__ import annotations

from struct import Struct

import pytest

from isochrone.nbd import constants as c
from isochrone.nbd.constants import Command, Errno
from isochrone.nbd.requests import Batch, RequestParser, head_of, validate_request
from isochrone.nbd.terms import Terms, transmission_flags

_REQUEST = Struct(">QQQI")
SIZE = 1 << 20
MIB = 1 << 20
FUA, NO_HOLE, DF, REQ_ONE, FAST = (
    c.CMD_FLAG_FUA,
    c.CMD_FLAG_NO_HOLE,
    c.CMD_FLAG_DF,
    c.CMD_FLAG_REQ_ONE,
    c.CMD_FLAG_FAST_ZERO,
)


def terms(
    *,
    size_bytes: int = SIZE,
    read_only: bool = False,
    block_size_min: int = 1,
    structured: bool = True,
    context_count: int = 1,
) -> Terms:
    return Terms(
        size_bytes=size_bytes,
        read_only=read_only,
        block_size_min=block_size_min,
        block_size_preferred=4096,
        structured_replies=structured,
        context_count=context_count,
        flags=transmission_flags(read_only=read_only, structured_replies=structured),
    )


def packed(
    command: int, offset: int, length: int, payload: bytes = b"", *, flags: int = 0, cookie: int = 7
) -> bytes:
    return _REQUEST.pack(head_of(command, flags), cookie, offset, length) + payload


def parse(data: bytes, given: Terms | None = None) -> Batch:
    view = memoryview(data)
    return RequestParser(given or terms()).parse(view, 0, len(view))


def refused(
    command: int, offset: int, length: int, *, flags: int = 0, given: Terms | None = None
) -> Errno | None:
    refusal = validate_request(given or terms(), head_of(command, flags), offset, length)
    return refusal.errno if refusal else None


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (Command.READ, 0),
        (Command.READ, DF),
        (Command.READ, FUA),
        (Command.WRITE, 0),
        (Command.WRITE, FUA),
        (Command.TRIM, FUA),
        (Command.CACHE, 0),
        (Command.CACHE, FUA),
        (Command.WRITE_ZEROES, 0),
        (Command.WRITE_ZEROES, FUA | NO_HOLE),
        (Command.WRITE_ZEROES, FAST),
        (Command.BLOCK_STATUS, REQ_ONE),
        (Command.BLOCK_STATUS, FUA),
    ],
)
def test_a_request_in_order_is_taken(command: Command, flags: int) -> None:
    assert refused(command, 4096, 8192, flags=flags) is None


def test_flush_is_taken_with_and_without_fua() -> None:
    assert refused(Command.FLUSH, 0, 0) is None
    assert refused(Command.FLUSH, 0, 0, flags=FUA) is None


@pytest.mark.parametrize(
    ("command", "errno"),
    [
        (Command.READ, Errno.EINVAL),
        (Command.WRITE, Errno.ENOSPC),
        (Command.TRIM, Errno.EINVAL),
        (Command.WRITE_ZEROES, Errno.ENOSPC),
        (Command.CACHE, Errno.EINVAL),
        (Command.BLOCK_STATUS, Errno.EINVAL),
    ],
)
@pytest.mark.parametrize(
    ("offset", "length"), [(SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), ((1 << 64) - 1, 4096)]
)
def test_beyond_the_end_has_the_error_value_of_its_command(
    command: Command, errno: Errno, offset: int, length: int
) -> None:
    assert refused(command, offset, length) is errno


def test_the_last_byte_is_within() -> None:
    assert refused(Command.READ, SIZE - 1, 1) is None
    assert refused(Command.WRITE, SIZE - 1, 1) is None


@pytest.mark.parametrize("command", [Command.WRITE, Command.TRIM, Command.WRITE_ZEROES])
def test_changes_to_a_read_only_export_are_not_permitted(command: Command) -> None:
    assert refused(command, 0, 4096, given=terms(read_only=True)) is Errno.EPERM


@pytest.mark.parametrize("command", [Command.READ, Command.CACHE, Command.BLOCK_STATUS])
def test_a_read_only_export_can_be_looked_at(command: Command) -> None:
    assert refused(command, 0, 4096, given=terms(read_only=True)) is None


@pytest.mark.parametrize(
    "command",
    [Command.READ, Command.WRITE, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES, Command.BLOCK_STATUS],
)
def test_unaligned_and_empty_requests_are_invalid(command: Command) -> None:
    sectors = terms(block_size_min=512)
    assert refused(command, 512, 1024, given=sectors) is None
    assert refused(command, 511, 1024, given=sectors) is Errno.EINVAL
    assert refused(command, 512, 1023, given=sectors) is Errno.EINVAL
    assert refused(command, 512, 0, given=sectors) is Errno.EINVAL


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (Command.READ, NO_HOLE),
        (Command.READ, 1 << 15),
        (Command.WRITE, DF),
        (Command.WRITE, FAST),
        (Command.TRIM, NO_HOLE),
        (Command.CACHE, DF),
        (Command.WRITE_ZEROES, REQ_ONE),
        (Command.BLOCK_STATUS, DF),
        (Command.WRITE, 1 << 5),  # PAYLOAD_LEN of an extension that was not negotiated
    ],
)
def test_a_flag_that_does_not_go_with_the_command_is_invalid(command: Command, flags: int) -> None:
    assert refused(command, 0, 4096, flags=flags) is Errno.EINVAL


@pytest.mark.parametrize("command", [8, 9, 255, 0xFFFF])
def test_an_unknown_command_is_invalid(command: int) -> None:
    assert refused(command, 0, 0) is Errno.EINVAL


def test_what_was_not_negotiated_is_invalid() -> None:
    assert refused(Command.READ, 0, 4096, flags=DF, given=terms(structured=False)) is Errno.EINVAL
    assert refused(Command.BLOCK_STATUS, 0, 4096, given=terms(context_count=0)) is Errno.EINVAL


def test_flush_has_no_range() -> None:
    assert refused(Command.FLUSH, 4096, 0) is Errno.EINVAL
    assert refused(Command.FLUSH, 0, 4096) is Errno.EINVAL


def test_payloads_beyond_the_largest_are_refused_and_ranges_without_payload_are_not() -> None:
    large = terms(size_bytes=1 << 40)
    plain = terms(size_bytes=1 << 40, structured=False)
    beyond = c.REQUEST_LENGTH_MAX + 4096
    assert refused(Command.READ, 0, beyond, given=large) is Errno.EOVERFLOW
    assert refused(Command.READ, 0, beyond, given=plain) is Errno.EINVAL
    assert refused(Command.WRITE, 0, beyond, given=large) is Errno.EINVAL
    for command in (Command.TRIM, Command.WRITE_ZEROES, Command.CACHE, Command.BLOCK_STATUS):
        assert refused(command, 0, 0xFFFFF000, given=large) is None
    assert refused(Command.WRITE, 0, c.REQUEST_LENGTH_MAX, given=large) is None


@pytest.mark.parametrize(
    ("offset", "length", "flags", "errno"),
    [
        (0, 4096, FAST, None),
        (4095, 4097, FAST, None),
        (0, 4096, FAST | NO_HOLE, Errno.ENOTSUP),
        (0, 4095, FAST, Errno.ENOTSUP),
        (1, 4096, FAST, Errno.ENOTSUP),
        (1, 8190, FAST, Errno.ENOTSUP),
        (1, 4096, 0, None),
    ],
)
def test_fast_zero_is_for_ranges_that_give_up_a_whole_track(
    offset: int, length: int, flags: int, errno: Errno | None
) -> None:
    assert refused(Command.WRITE_ZEROES, offset, length, flags=flags) is errno


# --- the parser ---


def test_the_fast_path_and_validation_agree() -> None:
    """Whatever the fast path would take wrongly, validation refuses, and the other way round."""
    for given in (terms(), terms(read_only=True), terms(block_size_min=512), terms(structured=False)):
        for command in (Command.READ, Command.WRITE):
            for offset in (0, 1, 511, 512, SIZE - 512, SIZE - 1, SIZE):
                for length in (0, 1, 512, 513, SIZE, SIZE + 1):
                    payload = bytes(length if command is Command.WRITE else 0)
                    batch = parse(packed(command, offset, length, payload), given)
                    errno = refused(command, offset, length, given=given)
                    assert [refusal.errno for _, _, refusal in batch.refusals] == ([errno] if errno else [])
                    assert len(batch.requests) == (0 if errno else 1)


def test_payload_is_a_slice_of_the_buffer() -> None:
    data = bytearray(packed(Command.WRITE, 0, 5, b"hello"))
    ((_, _, _, _, payload),) = parse(data).requests  # type: ignore[arg-type]
    assert bytes(payload) == b"hello"
    data[28:33] = b"HELLO"
    assert bytes(payload) == b"HELLO"


def test_an_incomplete_write_says_how_much_is_to_come_and_is_not_consumed() -> None:
    data = packed(Command.READ, 0, 4096) + packed(Command.WRITE, 0, 8192, bytes(100))
    batch = parse(data)
    assert (len(batch.requests), batch.position, batch.request_bytes) == (1, 28, 28 + 8192)
    batch = parse(packed(Command.WRITE, 0, 8192, bytes(100), flags=FUA))
    assert (batch.requests, batch.position, batch.request_bytes) == ([], 0, 28 + 8192)


def test_a_refused_write_is_skipped_as_it_arrives_and_answered_at_its_end() -> None:
    parser = RequestParser(terms(size_bytes=1 << 40))
    length = c.REQUEST_LENGTH_MAX + 1
    start = memoryview(packed(Command.WRITE, 0, length, bytes(1000)))
    batch = parser.parse(start, 0, len(start))
    assert (batch.position, batch.request_bytes, batch.refusals) == (len(start), 0, [])
    block = memoryview(bytes(MIB))
    to_come = length - 1000
    while to_come > MIB:
        batch = parser.parse(block, 0, MIB)
        assert (batch.position, batch.requests, batch.refusals) == (MIB, [], [])
        to_come -= MIB
    end = memoryview(bytes(to_come) + packed(Command.READ, 0, 1, cookie=9))
    batch = parser.parse(end, 0, len(end))
    ((_, cookie, refusal),) = batch.refusals
    assert (cookie, refusal.errno) == ((7).to_bytes(8, "big"), Errno.EINVAL)
    assert [request[1] for request in batch.requests] == [(9).to_bytes(8, "big")]


def test_only_write_carries_a_payload() -> None:
    batch = parse(packed(99, 0, 4096) + packed(Command.READ, 0, 1))
    assert (len(batch.refusals), len(batch.requests)) == (1, 1)


def test_a_wrong_magic_breaks_the_stream_after_what_came_before() -> None:
    batch = parse(packed(Command.READ, 0, 1) + bytes(28))
    assert len(batch.requests) == 1
    assert "magic" in batch.broken


def test_nothing_after_disc_is_taken() -> None:
    batch = parse(packed(Command.READ, 0, 1) + packed(Command.DISC, 0, 0) + packed(Command.READ, 0, 1))
    assert (len(batch.requests), batch.ended) == (1, True)


def test_a_batch_is_bounded_in_requests() -> None:
    batch = parse(packed(Command.CACHE, 0, 1) * (c.REQUESTS_PER_BATCH_MAX + 1))
    assert (len(batch.requests), batch.more) == (c.REQUESTS_PER_BATCH_MAX, True)


@pytest.mark.parametrize("flags", [0, DF])
def test_the_reads_of_a_batch_are_bounded_in_bytes(flags: int) -> None:
    third = c.REPLY_BYTES_PER_BATCH // 3
    batch = parse(packed(Command.READ, 0, third, flags=flags) * 5)
    assert (len(batch.requests), batch.more, batch.is_large_read) == (3, True, False)
    assert batch.reply_bytes <= c.REPLY_BYTES_PER_BATCH


@pytest.mark.parametrize("flags", [0, DF])
def test_a_large_read_is_alone_in_its_batch(flags: int) -> None:
    large = packed(Command.READ, 0, c.REPLY_BYTES_PER_BATCH + 1, flags=flags)
    small = packed(Command.READ, 0, 1)
    batch = parse(large + small)
    assert (len(batch.requests), batch.more, batch.is_large_read, batch.position) == (1, True, True, 28)
    batch = parse(small + large)
    assert (len(batch.requests), batch.more, batch.is_large_read, batch.position) == (1, True, False, 28)


def test_block_status_counts_towards_the_bytes_of_a_batch() -> None:
    batch = parse(packed(Command.BLOCK_STATUS, 0, 4096) * 100)
    assert batch.more
    assert len(batch.requests) <= c.REPLY_BYTES_PER_BATCH // (8 * c.EXTENTS_PER_REPLY_MAX)
