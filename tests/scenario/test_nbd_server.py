"""The NBD server on real sockets: order, durability, flow control, limits, bad clients and the way down."""

from __future__ import annotations

import asyncio
import contextlib
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import Struct

import pytest

from isochrone.model.errors import BusyError, PoolFullError, PoolReadOnlyError, UnavailableError
from isochrone.nbd import constants as c
from isochrone.nbd import server as server_module
from isochrone.nbd.client import NbdClient, connect
from isochrone.nbd.client_handshake import list_exports
from isochrone.nbd.connection import DEFERRED_REPLIES_MAX, LARGE_BUFFER_SECONDS, Connection
from isochrone.nbd.constants import Command, Errno
from isochrone.nbd.errors import NbdError
from isochrone.nbd.receive import RECEIVE_BUFFER_BYTES, RECEIVE_BUFFER_BYTES_MAX
from isochrone.nbd.requests import head_of
from isochrone.nbd.server import ServerSettings
from support.nbd_memory import MemoryExport, RunningServer, running_server, wait_until

_REQUEST = Struct(">QQQI")
_REPLY = Struct(">IIQ")
MIB = 1 << 20


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport("mem", size_bytes=64 * MIB)


@pytest.fixture(params=["uvloop", "asyncio"])
def running(tmp_path: Path, export: MemoryExport, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with running_server(tmp_path, export, on_uvloop=request.param == "uvloop") as server:
        yield server


@pytest.fixture
def client(running: RunningServer) -> Iterator[NbdClient]:
    with connect(running.path) as connected:
        yield connected


def packed(
    command: int, offset: int, length: int, payload: bytes = b"", *, flags: int = 0, cookie: int = 1
) -> bytes:
    return _REQUEST.pack(head_of(command, flags), cookie, offset, length) + payload


@contextlib.contextmanager
def raw(path: Path, export: bytes = b"mem") -> Iterator[socket.socket]:
    """A plain socket in the transmission phase, without structured replies."""
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(20)
        connected.connect(str(path))
        receive(connected, 18)
        connected.sendall((3).to_bytes(4, "big"))
        connected.sendall(Struct(">QII").pack(c.OPTION_MAGIC, 1, len(export)) + export)
        receive(connected, 10)
        yield connected


def receive(connected: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        part = connected.recv(size_bytes - len(data))
        assert part, f"closed after {len(data)} of {size_bytes} bytes"
        data += part
    return data


def is_closed(connected: socket.socket) -> bool:
    try:
        return connected.recv(1) == b""
    except ConnectionError:
        return True


def errno_of(action: Callable[[], object]) -> Errno:
    with pytest.raises(NbdError) as caught:
        action()
    return caught.value.errno


# --- what a client gets ---


def test_what_is_written_is_read_back(client: NbdClient, export: MemoryExport) -> None:
    numbers = random.Random(7)
    for offset, length in ((0, 1), (4095, 2), (MIB, MIB), (5, RECEIVE_BUFFER_BYTES), (2 * MIB, 32 * MIB)):
        data = numbers.randbytes(length)
        client.write(offset, data)
        assert client.read(offset, length) == data
        assert export.content[offset : offset + length] == data


def test_any_mix_of_sizes_in_flight_leaves_the_right_bytes(client: NbdClient, export: MemoryExport) -> None:
    numbers = random.Random(11)
    expected = bytearray(export.size_bytes)
    for _ in range(400):
        length = numbers.choice([1, 512, 4096, 65536, 300_000, 2 * MIB])
        offset = numbers.randrange(export.size_bytes - length)
        data = numbers.randbytes(length)
        client.submit_write(offset, data)
        expected[offset : offset + length] = data
    reads = [client.submit_read(offset, 300_000) for offset in range(0, export.size_bytes - 300_000, 300_000)]
    client.drain()
    assert export.content == expected
    for read in reads:
        assert read.data == expected[read.offset : read.offset + read.length]


def test_large_reads_and_writes_both_ways_at_once_do_not_lock(client: NbdClient) -> None:
    block = bytes(4 * MIB)
    for _ in range(32):
        client.submit_read(0, 4 * MIB)
        client.submit_write(0, block)
    client.drain()


def test_tcp_serves_the_same(running: RunningServer, export: MemoryExport) -> None:
    with connect(("127.0.0.1", running.port), "mem") as client:
        client.write(3 * MIB, b"over TCP")
        assert client.read(3 * MIB, 8) == b"over TCP"
        assert client.size_bytes == export.size_bytes


def test_without_structured_replies_reads_are_simple(running: RunningServer, export: MemoryExport) -> None:
    export.content[10:15] = b"hello"
    with raw(running.path) as plain:
        plain.sendall(packed(Command.READ, 10, 5, cookie=77))
        assert receive(plain, 21) == _REPLY.pack(c.SIMPLE_REPLY_MAGIC, 0, 77) + b"hello"
        plain.sendall(packed(Command.READ, export.size_bytes, 5, cookie=78))
        assert receive(plain, 16) == _REPLY.pack(c.SIMPLE_REPLY_MAGIC, Errno.EINVAL, 78)


def test_block_status_tells_data_from_holes(client: NbdClient) -> None:
    client.write(8192, bytes(4096))
    hole = c.STATE_HOLE | c.STATE_ZERO
    assert client.block_status(4096, 12288) == [(4096, 4096, hole), (8192, 4096, 0), (12288, 4096, hole)]
    assert client.block_status(4096, 12288, one_extent=True) == [(4096, 4096, hole)]
    assert client.block_status(8192, 1) == [(8192, 1, 0)]


def test_zeroes_and_trims_read_as_zeros_and_only_no_hole_keeps_space(client: NbdClient) -> None:
    client.write(0, b"x" * 65536)
    client.trim(0, 4096)
    client.zero(8192, 4096, fast=True)
    client.zero(16384, 4096, no_hole=True, fua=True)
    client.cache(0, 65536)
    hole = c.STATE_HOLE | c.STATE_ZERO
    content = client.read(0, 65536)
    assert content == bytes(4096) + b"x" * 4096 + bytes(4096) + b"x" * 4096 + bytes(4096) + b"x" * 45056
    extents = client.block_status(0, 65536)
    assert extents == [(0, 4096, hole), (4096, 4096, 0), (8192, 4096, hole), (12288, 53248, 0)]


def test_a_long_range_is_zeroed_while_others_are_served(running: RunningServer, export: MemoryExport) -> None:
    with connect(running.path) as client:
        client.write(0, b"x" * 64)
        zero = client.submit(Command.WRITE_ZEROES, 0, export.size_bytes, flags=c.CMD_FLAG_FUA)
        client.wait(zero)
        assert export.content == bytes(export.size_bytes)
        assert len(export.calls("zero")) == 2
        assert export.log[-1][0] == "flushed"


def test_list_names_the_exports(running: RunningServer) -> None:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(running.path))
        assert list_exports(connected) == ["mem"]


def test_an_unknown_export_is_refused_with_a_reason(running: RunningServer) -> None:
    with pytest.raises(UnavailableError, match="there is no export 'west' here"):
        connect(running.path, "west")


def test_counters_are_reported_for_each_connection(running: RunningServer, client: NbdClient) -> None:
    client.write(0, bytes(4096))
    client.read(0, 512)
    (report,) = running.call(running.server.connections)
    assert (report.export, report.counters.writes, report.counters.written_bytes) == ("mem", 1, 4096)
    assert (report.counters.reads, report.counters.read_bytes) == (1, 512)


# --- errors of requests ---


def test_refusals_leave_the_connection_alive(client: NbdClient, export: MemoryExport) -> None:
    end = export.size_bytes
    assert errno_of(lambda: client.read(end, 4096)) is Errno.EINVAL
    assert errno_of(lambda: client.write(end - 1, b"xx")) is Errno.ENOSPC
    assert errno_of(lambda: client.zero(end, 1)) is Errno.ENOSPC
    assert errno_of(lambda: client.trim(end, 1)) is Errno.EINVAL
    assert errno_of(lambda: client.read(0, c.REQUEST_LENGTH_MAX + 1)) is Errno.EOVERFLOW
    assert errno_of(lambda: client.write(0, bytes(c.REQUEST_LENGTH_MAX + 1))) is Errno.EINVAL
    assert errno_of(lambda: client.zero(0, 4096, fast=True, no_hole=True)) is Errno.ENOTSUP
    assert (
        errno_of(lambda: client.wait(client.submit(Command.WRITE, 0, 3, b"abc", flags=1 << 9)))
        is Errno.EINVAL
    )
    client.write(0, b"still here")
    assert client.read(0, 10) == b"still here"
    assert [call for call in export.calls("write") if call != (0, 10)] == []


def test_read_only_exports_refuse_every_change(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, MemoryExport("ro", read_only=True)) as running,
        connect(running.path) as client,
    ):
        assert client.flags & c.FLAG_READ_ONLY
        assert errno_of(lambda: client.write(0, bytes(MIB))) is Errno.EPERM
        assert errno_of(lambda: client.trim(0, 4096)) is Errno.EPERM
        assert errno_of(lambda: client.zero(0, 4096)) is Errno.EPERM
        assert client.read(0, 4096) == bytes(4096)
        client.flush()


def test_unaligned_requests_are_refused_where_sectors_were_agreed(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, MemoryExport(block_size_min=512)) as running,
        connect(running.path) as client,
    ):
        assert client.offer.block_size_min == 512
        assert errno_of(lambda: client.write(1, bytes(512))) is Errno.EINVAL
        assert errno_of(lambda: client.read(0, 511)) is Errno.EINVAL
        client.write(512, bytes(512))


@pytest.mark.parametrize(
    ("error", "errno"),
    [
        (PoolFullError("make room"), Errno.ENOSPC),
        (OSError(5, "gone"), Errno.EIO),
        (KeyError("a bug"), Errno.EIO),
    ],
)
def test_a_failing_export_answers_with_an_error_and_goes_on(
    client: NbdClient, export: MemoryExport, error: Exception, errno: Errno
) -> None:
    export.failures["write"] = error
    assert errno_of(lambda: client.write(0, b"x")) is errno
    assert errno_of(lambda: client.write(0, b"x", fua=True)) is errno
    export.failures.clear()
    client.write(0, b"x")


def test_a_failed_flush_is_told_to_all_who_wait_for_it(client: NbdClient, export: MemoryExport) -> None:
    export.failures["flush"] = PoolReadOnlyError("the device failed")
    assert errno_of(client.flush) is Errno.EIO
    assert errno_of(lambda: client.write(0, b"x", fua=True)) is Errno.EIO


def test_a_batch_that_cannot_be_ended_acknowledges_nothing(client: NbdClient, export: MemoryExport) -> None:
    export.failures["end_batch"] = PoolReadOnlyError("the log cannot be written")
    assert errno_of(lambda: client.write(0, b"x")) is Errno.EIO
    assert errno_of(lambda: client.write(0, b"x", fua=True)) is Errno.EIO
    assert export.calls("flush") == []


# --- when replies leave ---


def test_others_are_answered_while_a_flush_runs(
    running: RunningServer, client: NbdClient, export: MemoryExport
) -> None:
    gate = export.flush_gate = running.call(asyncio.Event)
    flush = client.submit(Command.FLUSH, 0, 0)
    durable = client.submit_write(0, b"durable", fua=True)
    client.write(100, b"plain")
    assert client.read(100, 5) == b"plain"
    assert not flush.done
    assert not durable.done
    running.call(gate.set)
    client.drain()
    assert (flush.error, durable.error) == (None, None)


def test_changes_that_must_be_prepared_wait_and_others_go_on(
    running: RunningServer, client: NbdClient, export: MemoryExport
) -> None:
    gate = export.prepare_gate = running.call(asyncio.Event)
    write = client.submit_write(4096, b"early")
    wait_until(lambda: export.calls("prepare") == [(4096, 5)])
    with connect(running.path) as other:
        assert other.read(4096, 5) == bytes(5)
    assert not write.done
    running.call(gate.set)
    client.drain()
    assert write.error is None
    assert client.read(4096, 5) == b"early"
    client.zero(4096, 4096)
    client.write(0, b"x" * (1 << 20))
    assert export.calls("prepare")[1:] == [(4096, 4096), (0, 1 << 20)]
    assert client.read(4096, 5) == b"xxxxx"


def test_a_client_that_goes_while_its_changes_are_prepared_leaves_nothing_behind(
    running: RunningServer, export: MemoryExport
) -> None:
    gate = export.prepare_gate = running.call(asyncio.Event)
    with connect(running.path) as going:
        going.submit_write(0, b"never")
        wait_until(lambda: len(export.calls("prepare")) == 1)
    running.call(gate.set)
    wait_until(lambda: export.open_count == 0)
    assert export.calls("write") in ([], [(0, 5)])


def test_fua_acts_then_flushes_then_answers(client: NbdClient, export: MemoryExport) -> None:
    client.write(0, b"x", fua=True)
    assert [name for name, _, _ in export.log] == ["write", "end_batch", "flush", "flushed"]


def test_a_write_that_came_during_a_flush_is_covered_by_a_later_one(
    running: RunningServer, client: NbdClient, export: MemoryExport
) -> None:
    gate = export.flush_gate = running.call(asyncio.Event)
    client.submit(Command.FLUSH, 0, 0)
    wait_until(lambda: len(export.calls("flush")) == 1)
    late = [client.submit_write(0, b"late", fua=True) for _ in range(5)]
    wait_until(lambda: len(export.calls("write")) == 5)
    running.call(gate.set)
    client.drain()
    assert all(write.done for write in late)
    assert 2 <= len(export.calls("flush")) <= 3
    names = [name for name, _, _ in export.log]
    assert names.index("write") < len(names) - 1 - names[::-1].index("flush")


def test_write_replies_are_held_as_long_as_the_batch_says_and_reads_are_not(
    client: NbdClient, export: MemoryExport
) -> None:
    export.hold_ns = 30_000_000
    begun_ns = time.monotonic_ns()
    write = client.submit_write(0, b"held")
    durable = client.submit_write(0, b"held", fua=True)
    assert client.read(0, 4) == b"held"
    assert not write.done
    client.drain()
    assert durable.done
    assert time.monotonic_ns() - begun_ns >= 30_000_000


@pytest.mark.parametrize("hold_ns", [1, 900_000, 1_400_000])
def test_no_reply_leaves_before_its_hold_is_over(
    client: NbdClient, export: MemoryExport, hold_ns: int
) -> None:
    export.hold_ns = hold_ns
    for _ in range(20):
        begun_ns = time.monotonic_ns()
        client.write(0, b"x")
        assert time.monotonic_ns() - begun_ns >= hold_ns


def test_replies_that_wait_for_room_leave_when_there_is_some_and_reads_go_on(
    running: RunningServer, client: NbdClient, export: MemoryExport
) -> None:
    export.hold_ns, export.room_ns = 1, 20_000_000_000
    begun_ns = time.monotonic_ns()
    writes = [client.submit_write(0, b"held"), client.submit_write(0, b"held", fua=True)]
    assert client.read(0, 4) == b"held"
    wait_until(lambda: len(export.calls("flushed")) >= 1)
    assert client.read(0, 4) == b"held"
    assert not any(write.done for write in writes)
    running.call(running.server.release_held)
    client.drain()
    assert all(write.done for write in writes)
    assert time.monotonic_ns() - begun_ns < 10_000_000_000


def test_replies_that_wait_for_room_in_vain_leave_at_the_bound_and_not_much_later(
    client: NbdClient, export: MemoryExport
) -> None:
    export.hold_ns, export.room_ns = 1, 30_000_000
    begun_ns = time.monotonic_ns()
    client.write(0, b"held")
    waited_ns = time.monotonic_ns() - begun_ns
    assert 30_000_000 <= waited_ns < 2_000_000_000


def test_room_that_came_while_a_flush_was_running_counts_for_what_waits_for_the_flush(
    running: RunningServer, client: NbdClient, export: MemoryExport
) -> None:
    export.hold_ns, export.room_ns = 1, 20_000_000_000
    gate = export.flush_gate = running.call(asyncio.Event)
    write = client.submit_write(0, b"held", fua=True)
    wait_until(lambda: len(export.calls("flush")) == 1)
    running.call(running.server.release_held)
    running.call(gate.set)
    client.drain()
    assert write.done


def test_disc_answers_what_is_in_flight_first(running: RunningServer, export: MemoryExport) -> None:
    gate = export.flush_gate = running.call(asyncio.Event)
    with raw(running.path) as client:
        client.sendall(
            packed(Command.WRITE, 0, 1, b"x", flags=c.CMD_FLAG_FUA, cookie=5) + packed(Command.DISC, 0, 0)
        )
        wait_until(lambda: len(export.calls("flush")) == 1)
        running.call(gate.set)
        assert receive(client, 16) == _REPLY.pack(c.SIMPLE_REPLY_MAGIC, 0, 5)
        assert is_closed(client)


def test_a_half_closed_connection_gets_its_answers(running: RunningServer, export: MemoryExport) -> None:
    export.hold_ns = 20_000_000
    with raw(running.path) as client:
        client.sendall(packed(Command.WRITE, 0, 1, b"x", cookie=5))
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 16) == _REPLY.pack(c.SIMPLE_REPLY_MAGIC, 0, 5)
        assert is_closed(client)


# --- bad clients ---


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        bytes(100),
        random.Random(3).randbytes(5000),
        (3).to_bytes(4, "big") + bytes(16),
    ],
)
def test_garbage_in_the_handshake_closes_only_its_own_connection(
    running: RunningServer, client: NbdClient, garbage: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as bad:
        bad.settimeout(20)
        bad.connect(str(running.path))
        receive(bad, 18)
        bad.sendall(garbage)
        assert is_closed(bad)
    client.write(0, b"undisturbed")


def test_garbage_between_requests_closes_only_its_own_connection(
    running: RunningServer, client: NbdClient
) -> None:
    with raw(running.path) as bad:
        bad.sendall(packed(Command.WRITE, 0, 4, b"good", cookie=9) + random.Random(4).randbytes(5000))
        assert receive(bad, 16) == _REPLY.pack(c.SIMPLE_REPLY_MAGIC, 0, 9)
        assert is_closed(bad)
    assert client.read(0, 4) == b"good"


@pytest.mark.parametrize("sent_bytes", [1, 27, 28, 100, 3 * MIB])
def test_a_client_that_vanishes_in_mid_request_leaves_nothing_behind(
    running: RunningServer, export: MemoryExport, sent_bytes: int
) -> None:
    with raw(running.path) as bad:
        bad.sendall(packed(Command.WRITE, 0, 4 * MIB, bytes(4 * MIB))[:sent_bytes])
        running.wait_until(lambda: export.open_count == 1)
    running.wait_until(lambda: export.open_count == 0)
    budget = running.server.budget
    running.wait_until(lambda: budget.free_bytes == budget.limit_bytes)
    assert export.calls("write") == []


def test_a_client_that_vanishes_during_its_flush_keeps_the_export_until_it_ends(
    running: RunningServer, export: MemoryExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = threading.Event()
    noticed = Connection.connection_lost

    def notice(connection: Connection, exc: Exception | None) -> None:
        noticed(connection, exc)
        lost.set()

    monkeypatch.setattr(Connection, "connection_lost", notice)
    gate = export.flush_gate = running.call(asyncio.Event)
    with raw(running.path) as bad:
        bad.sendall(packed(Command.FLUSH, 0, 0))
        wait_until(lambda: len(export.calls("flush")) == 1)
    assert lost.wait(20)
    assert export.open_count == 1
    running.call(gate.set)
    running.wait_until(lambda: export.open_count == 0)


def test_a_client_that_reads_no_replies_stops_only_itself(
    running: RunningServer, client: NbdClient, export: MemoryExport
) -> None:
    """It asks for 64 GiB. What the server reads ahead for it is what the sockets hold and one reply, no more."""
    with raw(running.path) as greedy:
        greedy.setblocking(False)
        requests = packed(Command.READ, 0, MIB) * 65536
        sent_bytes = greedy.send(requests)
        running.wait_until(lambda: running.server.budget.free_bytes < running.server.budget.limit_bytes)
        client.write(0, b"undisturbed")
        assert client.read(0, 11) == b"undisturbed"
        assert sent_bytes < len(requests)
        reads = len(export.calls("read")) + len(export.calls("block_status"))
        assert reads <= 16
        assert running.server.budget.limit_bytes - running.server.budget.free_bytes <= MIB


def test_flushes_without_end_cost_a_bounded_number_of_cookies(
    running: RunningServer, client: NbdClient, export: MemoryExport
) -> None:
    gate = export.flush_gate = running.call(asyncio.Event)
    flush_bytes_max = 8 * MIB
    with raw(running.path) as greedy:
        greedy.setblocking(False)
        flushes = packed(Command.FLUSH, 0, 0) * (flush_bytes_max // 28)
        sent_bytes = 0

        def taken() -> int:
            return max(report.counters.flushes for report in running.call(running.server.connections))

        # Until the server has all it will hold, and then until nothing more fits in between.
        while select.select([], [greedy], [], 0.2)[1] or taken() < DEFERRED_REPLIES_MAX:
            with contextlib.suppress(BlockingIOError):
                sent_bytes += greedy.send(flushes[sent_bytes:])
            assert sent_bytes < len(flushes), "everything was read"
        assert DEFERRED_REPLIES_MAX <= taken() <= DEFERRED_REPLIES_MAX + c.REQUESTS_PER_BATCH_MAX
        client.write(0, b"undisturbed")
        running.call(gate.set)


# --- limits ---


def test_clients_beyond_the_limit_are_turned_away_until_a_place_is_free(
    tmp_path: Path, export: MemoryExport
) -> None:
    with (
        running_server(tmp_path, export, settings=ServerSettings(connections_max=2)) as running,
        connect(running.path),
    ):
        with connect(running.path), pytest.raises((UnavailableError, OSError)):
            connect(running.path)
        running.wait_until(lambda: export.open_count == 1)
        with connect(running.path) as third:
            third.write(0, b"x")


def test_large_requests_of_many_clients_share_the_memory_and_all_complete(
    tmp_path: Path, export: MemoryExport
) -> None:
    """Six clients at a time want up to 8 MiB for a write and a read each; there is memory for one largest request."""

    def work(path: Path, number: int) -> None:
        offset = number * 10 * MIB
        with connect(path) as client:
            for size_bytes in (MIB, 5 * MIB, 8 * MIB, 2 * MIB):
                data = random.Random(number).randbytes(size_bytes)
                client.write(offset, data)
                ahead = client.submit_read(offset, size_bytes)
                assert client.read(offset, size_bytes) == data
                assert bytes(client.wait(ahead).data or b"") == data

    settings = ServerSettings(large_request_bytes_max=RECEIVE_BUFFER_BYTES_MAX)
    with running_server(tmp_path, export, settings=settings) as running, ThreadPoolExecutor(6) as clients:
        begun_s = time.monotonic()
        for done in [clients.submit(work, running.path, number) for number in range(6)]:
            done.result(60)
        assert time.monotonic() - begun_s < server_module.MEMORY_HOLD_SECONDS_MAX  # nobody had to be cut


def test_a_half_sent_large_request_is_cut_when_others_need_its_memory(
    tmp_path: Path, export: MemoryExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MEMORY_HOLD_SECONDS_MAX", 0.2)
    settings = ServerSettings(large_request_bytes_max=RECEIVE_BUFFER_BYTES_MAX)
    with running_server(tmp_path, export, settings=settings) as running, connect(running.path) as client:
        with raw(running.path) as slow:
            slow.sendall(packed(Command.WRITE, 0, 30 * MIB, bytes(MIB)))
            running.wait_until(lambda: running.server.budget.free_bytes < 4 * MIB)
            data = random.Random(5).randbytes(8 * MIB)
            client.write(0, data)
            assert is_closed(slow)
        assert client.read(0, len(data)) == data


def test_unread_large_replies_are_cut_when_others_need_their_memory(
    tmp_path: Path, export: MemoryExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MEMORY_HOLD_SECONDS_MAX", 0.2)
    settings = ServerSettings(large_request_bytes_max=RECEIVE_BUFFER_BYTES_MAX)
    with running_server(tmp_path, export, settings=settings) as running, connect(running.path) as client:
        with raw(running.path) as slow:
            slow.sendall(packed(Command.READ, 0, 30 * MIB))
            running.wait_until(lambda: running.server.budget.free_bytes < 4 * MIB)
            client.write(0, bytes(8 * MIB))
        running.wait_until(lambda: len(running.server.connections()) == 1)


def test_memory_of_large_requests_is_given_back_when_they_cease(
    running: RunningServer, client: NbdClient
) -> None:
    client.write(0, bytes(8 * MIB))
    budget = running.server.budget
    assert running.call(lambda: budget.limit_bytes - budget.free_bytes) >= 7 * MIB
    begun_s = time.monotonic()
    running.wait_until(lambda: budget.free_bytes == budget.limit_bytes)
    assert time.monotonic() - begun_s < 4 * LARGE_BUFFER_SECONDS
    client.write(0, bytes(8 * MIB))


def test_spare_memory_is_taken_back_at_once_when_another_needs_it(
    tmp_path: Path, export: MemoryExport
) -> None:
    settings = ServerSettings(large_request_bytes_max=RECEIVE_BUFFER_BYTES_MAX)
    with (
        running_server(tmp_path, export, settings=settings) as running,
        connect(running.path) as first,
        connect(running.path) as second,
    ):
        begun_s = time.monotonic()
        for size_bytes in (20 * MIB, 30 * MIB, 31 * MIB):
            first.write(0, bytes(size_bytes))
            second.write(0, bytes(size_bytes // 2))
        assert time.monotonic() - begun_s < 5 * LARGE_BUFFER_SECONDS


# --- the way down ---


def test_close_lets_requests_in_flight_finish(running: RunningServer, export: MemoryExport) -> None:
    gate = export.flush_gate = running.call(asyncio.Event)
    with connect(running.path) as client:
        durable = client.submit_write(0, b"x", fua=True)
        wait_until(lambda: len(export.calls("flush")) == 1)
        running.call(lambda: running.loop.call_later(0.05, gate.set))
        begun_s = time.monotonic()
        running.close(deadline_s=15)
        assert time.monotonic() - begun_s < 10, "it waited for the deadline, not for the requests"
        client.wait(durable)
        with pytest.raises(UnavailableError):
            client.read(0, 1)
    assert export.open_count == 0
    with pytest.raises(OSError, match="No such file"):
        connect(running.path)


def test_close_cuts_what_does_not_finish_in_time(running: RunningServer, export: MemoryExport) -> None:
    gate = export.flush_gate = running.call(asyncio.Event)
    with connect(running.path) as client:
        client.submit(Command.FLUSH, 0, 0)
        wait_until(lambda: len(export.calls("flush")) == 1)
        begun_s = time.monotonic()
        running.close(deadline_s=0.1)
        assert time.monotonic() - begun_s < 5
        with pytest.raises(UnavailableError):
            client.drain()
    running.call(gate.set)


def test_one_export_can_be_taken_away(tmp_path: Path) -> None:
    east, west = MemoryExport("east"), MemoryExport("west")
    with (
        running_server(tmp_path, east, west) as running,
        connect(running.path, "east") as leaving,
        connect(running.path, "west") as staying,
    ):
        leaving.write(0, b"x")
        asyncio.run_coroutine_threadsafe(running.server.disconnect("east", 5.0), running.loop).result(20)
        assert east.open_count == 0
        staying.write(0, b"x")
        with pytest.raises(UnavailableError):
            leaving.read(0, 1)


def test_a_socket_left_by_a_dead_server_is_replaced_and_a_living_one_is_not(
    tmp_path: Path, export: MemoryExport
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "nbd.sock"))
    with running_server(tmp_path, export) as running:
        with connect(running.path) as client:
            client.write(0, b"x")
        with pytest.raises(OSError, match="in use"):
            asyncio.run_coroutine_threadsafe(running.server.listen_unix(running.path), running.loop).result(
                20
            )


def test_an_export_that_is_busy_says_why(running: RunningServer) -> None:
    exports = running.server.exports
    exports.refusal = BusyError("the volume is being resized")  # type: ignore[attr-defined]
    with pytest.raises(UnavailableError, match="being resized"):
        connect(running.path)
    exports.refusal = None  # type: ignore[attr-defined]
