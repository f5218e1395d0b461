"""For every input: the handshake and the request codec survive it, however it is cut, and round trips return it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from struct import Struct

from hypothesis import given
from hypothesis import strategies as st

from isochrone.nbd import constants as c
from isochrone.nbd.constants import Command, Option
from isochrone.nbd.handshake import Handshake, State
from isochrone.nbd.receive import RECEIVE_BUFFER_BYTES, ReceiveBuffer
from isochrone.nbd.requests import RequestParser, head_of, validate_request
from isochrone.nbd.terms import Terms, transmission_flags
from support.nbd_memory import MemoryExport, MemoryExports

SIZE_BYTES = 1 << 20
_REQUEST = Struct(">QQQI")

terms_used = st.builds(
    lambda read_only, structured, block_size_min: Terms(
        size_bytes=SIZE_BYTES,
        read_only=read_only,
        block_size_min=block_size_min,
        block_size_preferred=4096,
        structured_replies=structured,
        context_count=int(structured),
        flags=transmission_flags(read_only=read_only, structured_replies=structured),
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 512]),
)

offsets = st.one_of(st.integers(0, SIZE_BYTES), st.integers(0, (1 << 64) - 1), st.just(0), st.just(4096))
lengths = st.one_of(st.integers(0, 3000), st.sampled_from([512, 1024]))


@st.composite
def packed_requests(draw: st.DrawFn) -> bytes:
    """One request, in order or not, with the payload that its header announces."""
    command = draw(st.one_of(st.sampled_from([*Command]), st.integers(0, 0xFFFF)))
    length = draw(lengths)
    payload = draw(st.binary(min_size=length, max_size=length)) if command == Command.WRITE else b""
    flags = draw(st.one_of(st.just(0), st.integers(0, 0xFFFF)))
    return (
        _REQUEST.pack(head_of(command, flags), draw(st.integers(0, (1 << 64) - 1)), draw(offsets), length)
        + payload
    )


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Return `data` in pieces, cut at `cuts`."""
    points = sorted({point % (len(data) + 1) for point in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(points)]


def taken(
    terms: Terms, pieces: Sequence[bytes]
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]], str]:
    """Feed `pieces` as the connection would; return all requests, refusals and how it ended."""
    parser, buffer = RequestParser(terms), ReceiveBuffer()
    requests: list[tuple[object, ...]] = []
    refusals: list[tuple[object, ...]] = []
    for piece in pieces:
        assert len(piece) <= len(buffer.space())
        buffer.space()[: len(piece)] = piece
        buffer.end += len(piece)
        while True:
            batch = parser.parse(buffer.view, buffer.start, buffer.end)
            assert buffer.start <= batch.position <= buffer.end
            assert batch.request_bytes == 0 or batch.request_bytes > buffer.end - batch.position
            requests += [(*request[:4], bytes(request[4])) for request in batch.requests]
            refusals += batch.refusals
            buffer.consume(batch.position)
            if batch.broken or batch.ended:
                return requests, refusals, batch.broken or "ended"
            if not batch.more:
                break
        buffer.expect(batch.request_bytes or c.REQUEST_HEADER_BYTES)
    return requests, refusals, ""


@given(
    terms_used,
    st.lists(packed_requests(), max_size=12),
    st.binary(max_size=40),
    st.lists(st.integers(0, 1 << 20)),
)
def test_requests_are_the_same_however_the_stream_is_cut(
    terms: Terms, packed: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    stream = b"".join(packed) + rest
    assert taken(terms, cut(stream, cuts)) == taken(terms, [stream])


@given(terms_used, st.lists(packed_requests(), max_size=12))
def test_every_request_is_taken_or_refused_once_in_order_and_as_validation_says(
    terms: Terms, packed: list[bytes]
) -> None:
    requests, refusals, ended = taken(terms, [b"".join(packed)])
    expected_requests: list[tuple[object, ...]] = []
    expected_refusals: list[tuple[object, ...]] = []
    expected_end = ""
    for one in packed:
        head, number, offset, length = _REQUEST.unpack_from(one)
        cookie = number.to_bytes(8, "big")
        if head & 0xFFFF == Command.DISC:
            expected_end = "ended"
            break
        refusal = validate_request(terms, head, offset, length)
        if refusal is None:
            expected_requests.append((head, cookie, offset, length, one[28:]))
        else:
            expected_refusals.append((head, cookie, refusal))
    assert (requests, refusals, ended) == (expected_requests, expected_refusals, expected_end)


@given(terms_used, st.binary(max_size=2000), st.lists(st.integers(0, 2000)))
def test_any_bytes_are_survived(terms: Terms, data: bytes, cuts: list[int]) -> None:
    assert taken(terms, cut(data, cuts)) == taken(terms, [data])


@given(terms_used, st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1))
def test_what_validation_lets_pass_lies_within_the_export(
    terms: Terms, kind: int, offset: int, length: int
) -> None:
    head = c.REQUEST_MAGIC << 32 | kind
    if validate_request(terms, head, offset, length) is None:
        assert offset + length <= terms.size_bytes
        assert offset % terms.block_size_min == length % terms.block_size_min == 0


# --- the handshake ---

names = st.sampled_from([b"", b"east", b"west", b"nowhere", b"\xff"])


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


@st.composite
def packed_options(draw: st.DrawFn) -> bytes:
    """One option with data that fits it, or with any data."""
    number = draw(st.one_of(st.sampled_from([*Option]), st.integers(0, (1 << 32) - 1)))
    name = _text(draw(names))
    wanted = draw(st.lists(st.integers(0, 5), max_size=4))
    queries = draw(st.lists(st.sampled_from([b"base:", b"base:allocation", b"x-y:z", b""]), max_size=3))
    data = draw(
        st.one_of(
            st.just(b""),
            st.just(name[4:]),
            st.just(
                name + len(wanted).to_bytes(2, "big") + b"".join(one.to_bytes(2, "big") for one in wanted)
            ),
            st.just(name + len(queries).to_bytes(4, "big") + b"".join(map(_text, queries))),
            st.binary(max_size=60),
        )
    )
    return Struct(">QII").pack(c.OPTION_MAGIC, number, len(data)) + data


def negotiated(pieces: Sequence[bytes]) -> tuple[bytes, State, str, bytes]:
    """Feed `pieces`; return all replies, the end, what was agreed, what is left over."""
    exports = [MemoryExport("east", SIZE_BYTES), MemoryExport("west", SIZE_BYTES)]
    handshake = Handshake(MemoryExports(*exports))
    sent = b"".join(handshake.receive(piece) for piece in pieces)
    agreement = handshake.agreement
    assert (handshake.state is State.AGREED) == (agreement is not None)
    assert sum(export.open_count for export in exports) == (agreement is not None)
    return (
        sent,
        handshake.state,
        repr(agreement and (agreement.export.name, agreement.terms)),
        handshake.leftover,
    )


@given(
    st.integers(0, 7),
    st.lists(packed_options(), max_size=8),
    st.binary(max_size=40),
    st.lists(st.integers(0, 4000)),
)
def test_a_negotiation_is_the_same_however_it_is_cut(
    flags: int, options: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    stream = flags.to_bytes(4, "big") + b"".join(options) + rest
    assert negotiated(cut(stream, cuts)) == negotiated([stream])


@given(st.binary(max_size=400), st.lists(st.integers(0, 400)))
def test_any_bytes_are_survived_in_the_handshake(data: bytes, cuts: list[int]) -> None:
    negotiated(cut(data, cuts))


# --- the receive buffer ---


@given(st.lists(st.tuples(st.integers(0, RECEIVE_BUFFER_BYTES), st.integers(28, 1 << 20)), max_size=20))
def test_the_receive_buffer_never_loses_a_byte(steps: list[tuple[int, int]]) -> None:
    """Consume some, expect a request, fill the space; the window always shows the stream without a gap."""
    buffer = ReceiveBuffer()
    received = consumed = 0
    for size_bytes, request_bytes in steps:
        buffer.consume(buffer.start + min(size_bytes, buffer.end - buffer.start))
        consumed = received - (buffer.end - buffer.start)
        if request_bytes <= buffer.end - buffer.start:
            continue  # complete already: the parser would not expect it
        if request_bytes > RECEIVE_BUFFER_BYTES and buffer.end - buffer.start > RECEIVE_BUFFER_BYTES:
            continue
        buffer.expect(request_bytes)
        space = buffer.space()
        assert len(space) >= min(request_bytes, RECEIVE_BUFFER_BYTES) - (buffer.end - buffer.start)
        data = _stream(received, min(len(space), 1000))
        space[: len(data)] = data
        buffer.end += len(data)
        received += len(data)
        assert buffer.view[buffer.start : buffer.end] == _stream(consumed, received - consumed)


def _stream(start: int, length: int) -> bytes:
    return bytes((start + n) * 2654435761 >> 16 & 0xFF for n in range(length))
