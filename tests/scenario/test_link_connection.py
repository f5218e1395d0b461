"""Links over real sockets, both ends in this process, under asyncio's own loop and under uvloop."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from isochrone.link import connection as connection_module
from isochrone.link import endpoint, unix_socket
from isochrone.link.codec import STAGING_BYTES, Encoder
from isochrone.link.connection import (
    WRITE_BUFFER_BYTES_MAX,
    WRITE_BUFFER_HIGH_BYTES,
    WRITE_BUFFER_LOW_BYTES,
    Connection,
)
from isochrone.link.endpoint import Listener, dial, serve
from isochrone.link.frame import PREAMBLE
from isochrone.link.messages import Ack, Forget, Message, RecordSet, Suspend
from isochrone.model.addresses import Address, TcpAddress, UnixAddress
from isochrone.model.choices import Compression
from isochrone.model.errors import (
    BusyError,
    InternalError,
    IsochroneError,
    ProtocolError,
    RefusedError,
    UnavailableError,
)
from isochrone.model.records import RECORD_DTYPE

TRACK = 4096
DEADLINE_S = 20.0
ACK = Ack(hardened_ns=5, window_bytes=6, consistency_ns=4)

Scenario = Callable[[], Coroutine[Any, Any, None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs one scenario to its end in a fresh loop."""

    def run_scenario(scenario: Scenario) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(scenario(), DEADLINE_S))
        gc.collect()  # a socket left open is this test's fault, not that of one which runs later

    return run_scenario


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    return TcpAddress("127.0.0.1", 0) if request.param == "tcp" else UnixAddress(str(tmp_path / "link.sock"))


class End:
    """One end of a link that keeps what happened to it."""

    def __init__(self, connection: Connection, *, start: bool = True) -> None:
        self.connection = connection
        self.received: list[Message] = []
        self.lost: list[IsochroneError | None] = []
        self.writable_count = 0
        if start:
            self.start()

    def start(self) -> None:
        self.connection.start(self.received.append, self.lost.append, self._on_writable)

    def _on_writable(self) -> None:
        self.writable_count += 1


async def until(condition: Callable[[], object]) -> None:
    """Wait for `condition`; the scenario's deadline ends it."""
    while not condition():  # noqa: ASYNC110  # most conditions are states of the kernel: no event tells them
        await asyncio.sleep(0.001)


async def serve_ends(address: Address, *, start: bool = True) -> tuple[Listener, list[End]]:
    ends: list[End] = []
    listener = await serve(address, lambda connection: ends.append(End(connection, start=start)))
    return listener, ends


async def link(address: Address) -> tuple[Listener, End, End]:
    """A listener, the accepting end and the dialling end."""
    listener, ends = await serve_ends(address)
    dialled = End(await dial(listener.address))
    await until(lambda: ends)
    return listener, ends[0], dialled


async def finish(listener: Listener, *ends: End) -> None:
    listener.close()
    for end in ends:
        end.connection.abort()
    await until(lambda: all(end.lost for end in ends) and listener.connection_count == 0)


async def stranger(address: Address, data: bytes) -> bytes:
    """Connect as a plain socket, send `data`, return what came until the other end closed."""
    if isinstance(address, TcpAddress):
        reader, writer = await asyncio.open_connection(address.host, address.port)
    else:
        reader, writer = await asyncio.open_unix_connection(address.path)
    try:
        writer.write(data)
        received = b""
        try:
            while chunk := await reader.read(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received
    finally:
        writer.close()


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def move_away(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))


def record_set(sequence: int, track_count: int) -> RecordSet:
    records = np.zeros(1, RECORD_DTYPE)
    records["time_ns"], records["track_count"], records["kind"] = sequence, track_count, 1
    payload = np.full(track_count * TRACK, sequence % 251, np.uint8).tobytes()
    return RecordSet(sequence, sequence, records.tobytes(), payload)


@pytest.mark.parametrize("compression", list(Compression))
def test_messages_arrive_in_order_both_ways(run: Run, address: Address, compression: Compression) -> None:
    async def scenario() -> None:
        listener, accepted, dialled = await link(address)
        dialled.connection.accept_record_sets(TRACK)
        accepted.connection.set_compression(compression)
        down: list[Message] = [record_set(1, 1), record_set(2, 2000), Suspend("full"), record_set(3, 300)]
        for message in down:
            accepted.connection.send(message)
        dialled.connection.send(ACK)
        dialled.connection.send(Forget())
        await until(lambda: len(dialled.received) == len(down) and len(accepted.received) == 2)
        assert dialled.received == down
        assert accepted.received == [ACK, Forget()]
        assert dialled.connection.received_bytes == accepted.connection.sent_bytes + len(PREAMBLE)
        assert accepted.connection.pending_bytes == 0
        await finish(listener, accepted, dialled)

    run(scenario)


def test_a_link_over_ipv6(run: Run) -> None:
    async def scenario() -> None:
        listener, accepted, dialled = await link(TcpAddress("::1", 0))
        assert str(listener.address).startswith("tcp:[::1]:")
        dialled.connection.send(ACK)
        await until(lambda: accepted.received)
        assert accepted.connection.peer.startswith("tcp:[::1]:")
        await finish(listener, accepted, dialled)

    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this machine has no IPv6 address")
    run(scenario)


def test_tcp_sends_at_once_and_notices_a_dead_peer(run: Run) -> None:
    async def scenario() -> None:
        listener, accepted, dialled = await link(TcpAddress("127.0.0.1", 0))
        for end in (accepted, dialled):
            transport = end.connection._transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        await finish(listener, accepted, dialled)

    run(scenario)


def test_a_peer_that_does_not_read_stops_the_sender_within_its_bound(run: Run, address: Address) -> None:
    async def scenario() -> None:
        listener, accepted, dialled = await link(address)
        dialled.connection.accept_record_sets(TRACK)
        dialled.connection.pause_reading()
        sent: list[Message] = []
        while True:
            for _ in range(5):  # let the kernel take what it can
                await asyncio.sleep(0.001)
            if not accepted.connection.writable:
                break
            sent.append(record_set(len(sent) + 1, 256))
            accepted.connection.send(sent[-1])
        assert accepted.connection.pending_bytes > WRITE_BUFFER_LOW_BYTES
        assert accepted.connection.pending_bytes <= WRITE_BUFFER_HIGH_BYTES + 257 * TRACK
        assert dialled.received == []
        assert accepted.writable_count == 0
        dialled.connection.resume_reading()
        await until(lambda: len(dialled.received) == len(sent))
        assert dialled.received == sent
        await until(lambda: accepted.connection.writable)
        assert accepted.writable_count == 1
        assert accepted.connection.pending_bytes == 0
        await finish(listener, accepted, dialled)

    run(scenario)


def test_a_sender_that_never_asks_is_refused_at_the_hard_bound(run: Run) -> None:
    async def scenario() -> None:
        listener, accepted, dialled = await link(TcpAddress("127.0.0.1", 0))
        dialled.connection.pause_reading()
        message = record_set(1, 2048)

        def send_on() -> None:
            for _ in range(WRITE_BUFFER_BYTES_MAX // (8 << 20) + 5):
                accepted.connection.send(message)

        with pytest.raises(BusyError, match="writable"):
            send_on()
        assert accepted.connection.pending_bytes <= WRITE_BUFFER_BYTES_MAX
        await finish(listener, accepted, dialled)

    run(scenario)


def test_messages_wait_for_a_late_start(run: Run, address: Address) -> None:
    async def scenario() -> None:
        listener, ends = await serve_ends(address, start=False)
        dialled = End(await dial(listener.address))
        count = 3 * STAGING_BYTES // 100
        for _ in range(count):
            dialled.connection.send(ACK)
        await until(lambda: ends and ends[0].connection.received_bytes > 0)
        dialled.connection.close()
        await asyncio.sleep(0.01)
        assert ends[0].connection.received_bytes <= STAGING_BYTES
        assert ends[0].received == []
        ends[0].start()
        await until(lambda: ends[0].lost)
        assert ends[0].received == [ACK] * count
        await finish(listener, ends[0], dialled)

    run(scenario)


def test_pausing_in_a_callback_holds_the_very_next_message(run: Run, address: Address) -> None:
    async def scenario() -> None:
        listener, ends = await serve_ends(address, start=False)
        dialled = End(await dial(listener.address))
        await until(lambda: ends)
        accepted = ends[0]

        def take_one(message: Message) -> None:
            accepted.received.append(message)
            accepted.connection.pause_reading()

        accepted.connection.start(take_one, accepted.lost.append)
        messages = [Suspend(str(number)) for number in range(10)]
        for message in messages:
            dialled.connection.send(message)
        for number in range(10):
            await until(lambda wanted=number + 1: len(accepted.received) == wanted)  # type: ignore[misc]
            await asyncio.sleep(0.002)
            assert accepted.received == messages[: number + 1]
            accepted.connection.resume_reading()
        await finish(listener, accepted, dialled)

    run(scenario)


def test_close_delivers_what_was_sent_and_each_side_learns_how_it_ended(run: Run, address: Address) -> None:
    async def scenario() -> None:
        listener, accepted, dialled = await link(address)
        dialled.connection.accept_record_sets(TRACK)
        messages = [record_set(number, 512) for number in (1, 2, 3)]
        for message in messages:
            accepted.connection.send(message)
        accepted.connection.close()
        accepted.connection.close()
        accepted.connection.send(ACK)
        await until(lambda: accepted.lost and dialled.lost)
        assert dialled.received == messages
        assert accepted.lost == [None]
        assert isinstance(dialled.lost[0], UnavailableError)
        assert "closed the connection" in dialled.lost[0].message
        dialled.connection.send(ACK)
        dialled.connection.close()
        await finish(listener, accepted, dialled)
        assert len(accepted.lost) == len(dialled.lost) == 1

    run(scenario)


def test_close_gives_up_on_a_peer_that_does_not_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        listener, accepted, dialled = await link(TcpAddress("127.0.0.1", 0))
        dialled.connection.pause_reading()
        for number in range(4):
            accepted.connection.send(record_set(number + 1, 2048))
        monkeypatch.setattr(connection_module, "CLOSE_TIMEOUT_S", 0.05)
        accepted.connection.close()
        await until(lambda: accepted.lost)
        assert accepted.lost == [None]
        assert accepted.connection.pending_bytes == 0
        await finish(listener, accepted, dialled)

    run(scenario)


def test_a_vanished_peer_is_noticed(run: Run, address: Address) -> None:
    async def scenario() -> None:
        listener, accepted, dialled = await link(address)
        dialled.connection.send(ACK)
        await until(lambda: accepted.received)
        dialled.connection.abort()
        await until(lambda: accepted.lost and dialled.lost)
        assert isinstance(accepted.lost[0], UnavailableError)
        assert dialled.lost == [None]
        await finish(listener, accepted, dialled)

    run(scenario)


def test_a_stream_cut_in_a_message_says_so(run: Run, address: Address) -> None:
    async def scenario() -> None:
        listener, ends = await serve_ends(address)
        sock = socket.socket(socket.AF_INET if isinstance(listener.address, TcpAddress) else socket.AF_UNIX)
        with sock:
            where = listener.address
            sock.connect((where.host, where.port) if isinstance(where, TcpAddress) else where.path)
            sock.sendall(PREAMBLE + bytes(Encoder().encode(ACK)[0])[:-1])
            await until(lambda: ends and ends[0].connection.received_bytes > len(PREAMBLE))
            sock.shutdown(socket.SHUT_WR)
            await until(lambda: ends[0].lost)
        assert isinstance(ends[0].lost[0], UnavailableError)
        assert "in the middle of a message" in ends[0].lost[0].message
        assert ends[0].received == []
        await finish(listener, *ends)

    run(scenario)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "an HTTP client"),
        (b"NBDMAGIC", "an NBD server"),
        (PREAMBLE[:-4] + b"\x07\0\0\0", "version 7, this side version 1"),
        (PREAMBLE + b"x" * 100, "out of step"),
        (PREAMBLE + b"".join(map(bytes, Encoder().encode(record_set(1, 1)))), "not expected to send any"),
    ],
)
def test_a_stranger_is_refused_at_once_and_disturbs_nobody(
    run: Run, address: Address, data: bytes, reason: str
) -> None:
    async def scenario() -> None:
        listener, ends = await serve_ends(address)
        friend = End(await dial(listener.address))
        await until(lambda: ends)
        answer = await stranger(listener.address, data)
        assert PREAMBLE.startswith(answer)
        await until(lambda: ends[1].lost)
        assert isinstance(ends[1].lost[0], ProtocolError)
        assert reason in ends[1].lost[0].message
        assert ends[1].received == []
        friend.connection.send(ACK)
        await until(lambda: ends[0].received)
        await finish(listener, *ends, friend)

    run(scenario)


def test_a_peer_that_says_nothing_is_dropped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(connection_module, "PREAMBLE_TIMEOUT_S", 0.05)
        listener, ends = await serve_ends(TcpAddress("127.0.0.1", 0))
        assert await stranger(listener.address, b"") in (PREAMBLE, b"")
        await until(lambda: ends[0].lost)
        assert isinstance(ends[0].lost[0], ProtocolError)
        assert "did not say" in ends[0].lost[0].message
        friend = End(await dial(listener.address))
        await until(lambda: len(ends) == 2 and ends[1].connection._timer is None)
        assert not friend.lost
        await finish(listener, *ends, friend)

    run(scenario)


@pytest.mark.parametrize(
    ("error", "reason_class"),
    [(ProtocolError("no such volume"), ProtocolError), (ValueError("a bug"), InternalError)],
)
def test_a_callback_that_raises_ends_the_connection_with_its_error(
    run: Run, error: Exception, reason_class: type[IsochroneError]
) -> None:
    async def scenario() -> None:
        listener, ends = await serve_ends(TcpAddress("127.0.0.1", 0), start=False)
        dialled = End(await dial(listener.address))
        await until(lambda: ends)
        accepted = ends[0]

        def refuse(message: Message) -> None:
            accepted.received.append(message)
            raise error

        accepted.connection.start(refuse, accepted.lost.append)
        dialled.connection.send(ACK)
        dialled.connection.send(ACK)
        await until(lambda: accepted.lost and dialled.lost)
        reason = accepted.lost[0]
        assert isinstance(reason, reason_class)
        assert reason is error or reason.__cause__ is error
        assert accepted.received == [ACK]
        await finish(listener, accepted, dialled)

    run(scenario)


def test_dialling_where_nobody_listens_says_so(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        listener, _ = await serve_ends(TcpAddress("127.0.0.1", 0))
        free = listener.address
        listener.close()
        for nowhere in (free, UnixAddress(str(tmp_path / "none.sock")), TcpAddress("host.invalid", 1)):
            with pytest.raises(UnavailableError, match="cannot be reached"):
                await dial(nowhere)

    run(scenario)


def test_connections_over_the_limit_are_closed_as_they_come(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(endpoint, "CONNECTIONS_MAX", 2)
        listener, ends = await serve_ends(TcpAddress("127.0.0.1", 0))
        dialled = [End(await dial(listener.address)) for _ in range(3)]
        await until(lambda: any(end.lost for end in dialled))
        assert listener.refused_count == 1
        assert len(ends) == listener.connection_count == 2
        next(end for end in dialled if not end.lost).connection.abort()
        await until(lambda: listener.connection_count == 1)
        dialled.append(End(await dial(listener.address)))
        await until(lambda: len(ends) == 3)
        await finish(listener, *ends, *dialled)

    run(scenario)


def test_an_address_in_use_or_not_ours_is_refused(run: Run) -> None:
    async def scenario() -> None:
        listener, _ = await serve_ends(TcpAddress("127.0.0.1", 0))
        with pytest.raises(BusyError, match="another process listens"):
            await serve_ends(listener.address)
        with pytest.raises(RefusedError, match="address of this host"):
            await serve_ends(TcpAddress("192.0.2.1", 0))
        listener.close()

    run(scenario)


def test_a_socket_file_of_a_dead_process_is_replaced(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "link.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()

    async def scenario() -> None:
        listener, accepted, dialled = await link(UnixAddress(str(path)))
        assert permissions(path) == 0o600
        await finish(listener, accepted, dialled)

    run(scenario)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_socket_that_another_listens_on_is_never_taken(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        listener, ends = await serve_ends(UnixAddress(str(tmp_path / "link.sock")))
        with pytest.raises(BusyError, match="another process listens"):
            await serve_ends(listener.address)
        dialled = End(await dial(listener.address))
        await until(lambda: ends)
        await finish(listener, *ends, dialled)

    run(scenario)


def test_a_file_that_is_no_socket_is_never_removed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "database"
    path.write_text("precious")

    async def scenario() -> None:
        with pytest.raises(RefusedError, match="not a socket"):
            await serve_ends(UnixAddress(str(path)))
        with pytest.raises(RefusedError, match="create it first"):
            await serve_ends(UnixAddress(str(tmp_path / "no-folder" / "link.sock")))

    run(scenario)
    assert path.read_text() == "precious"


def test_of_many_that_start_at_once_one_gets_the_socket(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "link.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def scenario() -> None:
        outcomes = await asyncio.gather(
            *(serve_ends(UnixAddress(str(path))) for _ in range(8)), return_exceptions=True
        )
        winners = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
        assert len(winners) == 1
        assert sum(isinstance(outcome, BusyError) for outcome in outcomes) == 7
        winners[0].close()

    run(scenario)


def test_a_process_that_is_taking_a_socket_keeps_others_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = UnixAddress(str(tmp_path / "link.sock"))

    async def scenario() -> None:
        monkeypatch.setattr(unix_socket, "FOLDER_LOCK_TIMEOUT_S", 0.05)
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            with pytest.raises(BusyError, match="holds a lock on the folder"):
                await serve_ends(address)
        finally:
            os.close(folder)
        listener, _ = await serve_ends(address)
        listener.close()

    run(scenario)


def test_closing_leaves_a_successors_socket_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "link.sock"

    async def scenario() -> None:
        first, _ = await serve_ends(UnixAddress(str(path)))
        move_away(path)
        second, ends = await serve_ends(UnixAddress(str(path)))
        first.close()
        dialled = End(await dial(second.address))
        await until(lambda: ends)
        await finish(second, dialled, *ends)
        with pytest.raises(UnavailableError):
            await dial(second.address)

    run(scenario)
