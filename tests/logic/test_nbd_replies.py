"""Replies, error values, the execution of batches, the receive buffer and the memory budget."""

from __future__ import annotations

import errno
from struct import pack, unpack_from

import pytest

from isochrone.model.errors import (
    BusyError,
    ConflictError,
    DamagedError,
    PoolFullError,
    PoolReadOnlyError,
)
from isochrone.nbd import constants as c
from isochrone.nbd import replies
from isochrone.nbd.budget import BufferBudget
from isochrone.nbd.constants import Chunk, Command, Errno
from isochrone.nbd.errors import NbdError, errno_of
from isochrone.nbd.execution import ZERO_SLICE_BYTES, Executor
from isochrone.nbd.receive import RECEIVE_BUFFER_BYTES, ReceiveBuffer
from isochrone.nbd.requests import Batch, Request, head_of
from support.nbd_memory import MemoryExport

COOKIE = b"12345678"


def request(
    command: int,
    offset: int = 0,
    length: int = 4096,
    payload: bytes = b"",
    *,
    flags: int = 0,
    cookie: bytes = COOKIE,
) -> Request:
    return head_of(command, flags), cookie, offset, length, memoryview(payload)


def executor(export: MemoryExport, *, structured: bool = True) -> Executor:
    return Executor(export, structured_replies=structured, peer="test")


# --- packing ---


def test_successes_are_simple_replies() -> None:
    assert replies.successes([b"aaaaaaaa", b"bbbbbbbb"]) == (
        pack(">II", c.SIMPLE_REPLY_MAGIC, 0)
        + b"aaaaaaaa"
        + pack(">II", c.SIMPLE_REPLY_MAGIC, 0)
        + b"bbbbbbbb"
    )


def test_errors_carry_their_reason_only_in_chunks() -> None:
    simple = replies.error_reply(COOKIE, Errno.EINVAL, "no", structured=False)
    assert simple == pack(">II8s", c.SIMPLE_REPLY_MAGIC, 22, COOKIE)
    chunk = replies.error_reply(COOKIE, Errno.EINVAL, "no", structured=True)
    assert chunk == pack(">IHH8sIIH", c.STRUCTURED_REPLY_MAGIC, 1, Chunk.ERROR, COOKIE, 8, 22, 2) + b"no"


def test_a_long_reason_is_cut_between_characters() -> None:
    chunk = replies.error_reply(COOKIE, Errno.EIO, "ä" * 5000 + "x", structured=True)
    (length,) = unpack_from(">I", chunk, 16)
    assert len(chunk) == 20 + length
    assert set(chunk[26:].decode()) == {"ä"}


def extents_of(chunk: bytes) -> list[tuple[int, int]]:
    magic, flags, kind, cookie, length, context = unpack_from(">IHH8sII", chunk)
    assert (magic, flags, kind, cookie) == (c.STRUCTURED_REPLY_MAGIC, 1, Chunk.BLOCK_STATUS, COOKIE)
    assert (length, context) == (len(chunk) - 20, 1)
    return [unpack_from(">II", chunk, at) for at in range(24, len(chunk), 8)]


def test_block_status_joins_neighbours_of_one_kind() -> None:
    hole = c.STATE_HOLE | c.STATE_ZERO
    extents = [(10, 0), (10, 0), (5, hole), (5, hole), (1, 0)]
    assert extents_of(replies.block_status_chunks(COOKIE, [(1, extents)], one_extent=False)) == [
        (20, 0),
        (10, hole),
        (1, 0),
    ]
    assert extents_of(replies.block_status_chunks(COOKIE, [(1, extents)], one_extent=True)) == [(20, 0)]
    assert extents_of(replies.block_status_chunks(COOKIE, [(1, extents[2:])], one_extent=True)) == [
        (10, hole)
    ]


def test_several_contexts_are_answered_in_a_chunk_each_and_only_the_last_ends_the_reply() -> None:
    told = replies.block_status_chunks(COOKIE, [(1, [(8, 0)]), (2, [(4, 1), (4, 0)])], one_extent=False)
    first_bytes = 20 + 4 + 8
    headers = [unpack_from(">IHH8sII", told, at) for at in (0, first_bytes)]
    assert [(flags, length, context) for _, flags, _, _, length, context in headers] == [
        (0, 12, 1),
        (1, 20, 2),
    ]
    assert unpack_from(">IIII", told, first_bytes + 24) == (4, 1, 4, 0)


def test_block_status_is_bounded_in_extents() -> None:
    extents = ((1, n % 2) for n in range(1 << 40))  # would not end
    chunk = replies.block_status_chunks(COOKIE, [(1, extents)], one_extent=False)
    assert len(extents_of(chunk)) == c.EXTENTS_PER_REPLY_MAX


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NbdError(Errno.EPERM, "x"), Errno.EPERM),
        (PoolFullError("x"), Errno.ENOSPC),
        (PoolReadOnlyError("x"), Errno.EIO),
        (DamagedError("x"), Errno.EIO),
        (BusyError("x"), Errno.EIO),
        (ConflictError("x"), Errno.EINVAL),
        (OSError(errno.ENOSPC, "x"), Errno.ENOSPC),
        (OSError(errno.EDQUOT, "x"), Errno.ENOSPC),
        (OSError(errno.EROFS, "x"), Errno.EPERM),
        (OSError(errno.EIO, "x"), Errno.EIO),
        (OSError(errno.EINVAL, "x"), Errno.EIO),
        (OSError("x"), Errno.EIO),
        (MemoryError(), Errno.ENOMEM),
        (ZeroDivisionError("a bug"), Errno.EIO),
    ],
)
def test_every_trouble_has_its_error_value(error: Exception, expected: Errno) -> None:
    assert errno_of(error) is expected


# --- acting ---


def test_a_batch_ends_once_after_all_its_requests() -> None:
    export = MemoryExport()
    batch = Batch(
        [
            request(Command.WRITE, 0, 4, b"data"),
            request(Command.READ, 0, 4),
            request(Command.WRITE, 8, 4, b"more"),
        ]
    )
    outcome = executor(export).act(batch)
    assert [name for name, _, _ in export.log] == ["write", "read", "write", "end_batch"]
    assert outcome.written == [COOKIE, COOKIE]
    assert outcome.parts[1] == b"data"


def test_a_failing_request_fails_alone() -> None:
    export = MemoryExport()
    export.failures["write"] = PoolFullError("make room")
    outcome = executor(export, structured=False).act(Batch([request(Command.WRITE), request(Command.READ)]))
    assert outcome.written == []
    assert outcome.parts[0] == pack(">II8s", c.SIMPLE_REPLY_MAGIC, Errno.ENOSPC, COOKIE)
    assert len(outcome.parts) == 3


def test_when_the_batch_cannot_be_ended_no_change_is_acknowledged_and_reads_are() -> None:
    export = MemoryExport()
    export.failures["end_batch"] = PoolReadOnlyError("the log cannot be written")
    batch = Batch(
        [
            request(Command.WRITE, cookie=b"written."),
            request(Command.WRITE, flags=c.CMD_FLAG_FUA, cookie=b"durable."),
            request(Command.TRIM, cookie=b"trimmed."),
            request(Command.READ, cookie=b"readread"),
        ]
    )
    outcome = executor(export, structured=False).act(batch)
    assert (outcome.written, outcome.durable) == ([], [])
    failed = {part[8:] for part in outcome.parts if part[4:8] == Errno.EIO.to_bytes(4, "big")}
    assert failed == {b"written.", b"durable.", b"trimmed."}


def test_fua_and_flush_are_left_to_be_made_durable() -> None:
    fua = c.CMD_FLAG_FUA
    batch = Batch(
        [
            request(Command.WRITE, flags=fua, cookie=b"aaaaaaaa"),
            request(Command.TRIM, flags=fua, cookie=b"bbbbbbbb"),
            request(Command.WRITE_ZEROES, flags=fua, cookie=b"cccccccc"),
            request(Command.FLUSH, 0, 0, cookie=b"dddddddd"),
            request(Command.FLUSH, 0, 0, flags=fua, cookie=b"eeeeeeee"),
        ]
    )
    outcome = executor(MemoryExport()).act(batch)
    assert (outcome.parts, outcome.written) == ([], [])
    assert outcome.durable == [b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"]
    assert outcome.flushes == [b"dddddddd", b"eeeeeeee"]


@pytest.mark.parametrize(
    ("command", "flags", "mapped"),
    [
        (Command.TRIM, 0, False),
        (Command.WRITE_ZEROES, 0, False),
        (Command.WRITE_ZEROES, c.CMD_FLAG_NO_HOLE, True),
    ],
)
def test_only_no_hole_keeps_the_space(command: Command, flags: int, mapped: bool) -> None:
    export = MemoryExport()
    export.write(0, memoryview(bytes(4096)))
    executor(export).act(Batch([request(command, 0, 4096, flags=flags)]))
    assert bool(export.mapped[0]) is mapped


def test_a_long_range_is_left_to_be_zeroed_in_slices() -> None:
    export = MemoryExport(size_bytes=3 * ZERO_SLICE_BYTES)
    acting = executor(export)
    (zero,) = acting.act(Batch([request(Command.TRIM, 512, 2 * ZERO_SLICE_BYTES + 5)])).long_zeroes
    offset, slices = zero.offset, 0
    while offset < zero.offset + zero.length:
        offset, *_ = acting.zero_slice(zero, offset)
        slices += 1
    assert slices == 3
    assert sum(length for _, length in export.calls("zero")) == 2 * ZERO_SLICE_BYTES + 5
    assert max(length for _, length in export.calls("zero")) == ZERO_SLICE_BYTES
    assert len(export.calls("end_batch")) == 1 + 3


def test_a_long_read_of_nothing_is_a_hole_only_with_structured_replies() -> None:
    export = MemoryExport()
    length = c.HOLE_READ_BYTES_MIN
    (hole,) = executor(export).act(Batch([request(Command.READ, 4096, length)])).parts
    expected = pack(">IHH8sIQI", c.STRUCTURED_REPLY_MAGIC, 1, Chunk.OFFSET_HOLE, COOKIE, 12, 4096, length)
    assert hole == expected
    _, data = executor(export, structured=False).act(Batch([request(Command.READ, 4096, length)])).parts
    assert data == bytes(length)
    export.write(4096 + length - 1, memoryview(b"x"))
    _, data = executor(export).act(Batch([request(Command.READ, 4096, length)])).parts
    assert data == bytes(length - 1) + b"x"


def test_counters_tell_what_was_done() -> None:
    acting = executor(MemoryExport())
    acting.act(
        Batch(
            [
                request(Command.WRITE, 0, 10, bytes(10)),
                request(Command.WRITE, 0, 5, bytes(5), flags=c.CMD_FLAG_FUA),
                request(Command.READ, 0, 7),
                request(Command.READ, 0, 3, flags=c.CMD_FLAG_DF),
                request(Command.TRIM),
                request(Command.FLUSH, 0, 0),
            ]
        )
    )
    counters = acting.counters
    assert (counters.writes, counters.written_bytes) == (2, 15)
    assert (counters.reads, counters.read_bytes) == (2, 10)
    assert (counters.zeroes, counters.flushes, counters.failures) == (1, 1, 0)


# --- the receive buffer ---


def fill(buffer: ReceiveBuffer, data: bytes) -> None:
    buffer.space()[: len(data)] = data
    buffer.end += len(data)


def test_what_is_left_over_survives_every_move() -> None:
    buffer = ReceiveBuffer()
    fill(buffer, bytes(1000) + b"the rest")
    buffer.consume(1000)
    for request_bytes in (28, RECEIVE_BUFFER_BYTES, 1 << 20):
        buffer.expect(request_bytes)
        assert bytes(buffer.view[buffer.start : buffer.end]) == b"the rest"
        assert len(buffer.space()) >= request_bytes - 8
    buffer.consume(buffer.start)
    buffer.shrink()
    assert bytes(buffer.view[buffer.start : buffer.end]) == b"the rest"
    assert buffer.grown_bytes == 0


def test_a_large_request_is_received_to_its_last_byte_and_no_further() -> None:
    buffer = ReceiveBuffer()
    fill(buffer, b"head")
    buffer.expect(1 << 20)
    assert len(buffer.space()) == (1 << 20) - 4
    fill(buffer, bytes(len(buffer.space())))
    buffer.consume(buffer.end)
    assert len(buffer.space()) == RECEIVE_BUFFER_BYTES
    assert buffer.growth_bytes(1 << 20) == 0


def test_a_full_buffer_has_space_again_for_the_request_at_its_end() -> None:
    buffer = ReceiveBuffer()
    fill(buffer, bytes(RECEIVE_BUFFER_BYTES))
    buffer.consume(RECEIVE_BUFFER_BYTES - 100_000)
    buffer.expect(200_000)
    assert (buffer.start, buffer.end) == (0, 100_000)
    assert len(buffer.space()) == RECEIVE_BUFFER_BYTES - 100_000


# --- the budget ---


def test_a_large_demand_is_not_overtaken() -> None:
    budget = BufferBudget(100)
    granted: list[str] = []
    assert budget.take(60)
    budget.wait(80, lambda: granted.append("large"))
    budget.wait(10, lambda: granted.append("small"))
    assert not budget.take(10)
    budget.give(60)
    assert granted == ["large", "small"]
    assert budget.free_bytes == 10


def test_who_leaves_the_queue_lets_those_behind_come_forward() -> None:
    budget = BufferBudget(100)
    granted: list[str] = []
    assert budget.take(60)
    large = budget.wait(80, lambda: granted.append("large"))
    budget.wait(10, lambda: granted.append("small"))
    budget.cancel(large)
    assert granted == ["small"]
    assert budget.free_bytes == 30
