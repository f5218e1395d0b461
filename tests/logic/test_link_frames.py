"""The frames of the link: what is on the wire, and what is refused at which byte."""

from __future__ import annotations

from dataclasses import replace
from struct import pack
from typing import Any, get_args

import numpy as np
import pytest
import xxhash

from isochrone.link.codec import CONTROL_TYPES, STAGING_BYTES, Decoder, Encoder
from isochrone.link.frame import (
    FRAME_HEADER_BYTES,
    LIMITS,
    MAGIC,
    PREAMBLE,
    FrameHeader,
    Limits,
    MessageType,
    PayloadCoding,
)
from isochrone.link.messages import (
    PROGRESS_VOLUMES_MAX,
    PROTOCOL_VERSION,
    REFUSAL_TEXT_BYTES_MAX,
    UNREADABLE_RUNS_MAX,
    VOLUMES_PER_SESSION_MAX,
    Ack,
    Configure,
    Configured,
    ControlMessage,
    CopyProgress,
    Forget,
    Message,
    RecordSet,
    Suspend,
    TrackRun,
    VolumeCopy,
    VolumeInfo,
    VolumeRefusal,
    WantedVolume,
    cut_text,
)
from isochrone.model.choices import OverflowPolicy
from isochrone.model.errors import InternalError, ProtocolError
from isochrone.model.policy import SessionPolicy
from isochrone.model.records import RECORD_DTYPE, TRACK_COUNT_MAX, RecordKind
from isochrone.testing.link_pipe import LinkPipe

TRACK = 4096
ACK = Ack(hardened_ns=5, window_bytes=6, consistency_ns=4)


def wire(*messages: Message, encoder: Encoder | None = None) -> bytes:
    encoder = encoder or Encoder()
    return b"".join(b"".join(encoder.encode(message)) for message in messages)


def greeted(limits: Limits = LIMITS) -> Decoder:
    decoder = Decoder(limits, track_size_bytes=TRACK)
    assert list(decoder.feed(PREAMBLE)) == []
    return decoder


def records(*rows: tuple[int, int, int, int, int]) -> np.ndarray:
    return np.array(list(rows), RECORD_DTYPE)


def record_set(*rows: tuple[int, int, int, int, int], through_ns: int = 100, sequence: int = 1) -> RecordSet:
    tracks = sum(count for _, _, _, count, kind in rows if kind & RecordKind.DATA)
    return RecordSet(sequence, through_ns, records(*rows).tobytes(), bytes(tracks * TRACK))


def control_frame(message_type: int, body: bytes, **fields: Any) -> bytes:
    header = FrameHeader(
        MessageType(message_type), PayloadCoding.PLAIN, len(body), xxhash.xxh3_64_intdigest(body)
    )
    return header._replace(**fields).pack() + body


def test_every_message_has_one_type_number() -> None:
    assert set(CONTROL_TYPES.values()) == set(get_args(ControlMessage))
    packed = {MessageType.RECORD_SET, MessageType.COMPARE, MessageType.COMPARED}
    assert set(CONTROL_TYPES) | packed == set(MessageType)


def test_preamble_and_an_ack_are_these_bytes() -> None:
    body = b'{"hardened_ns":5,"window_bytes":6,"consistency_ns":4}'
    fields = b"ISOF" + pack("<HBBIIIIQQQ", 1, 7, 0, len(body), 0, 0, 0, 0, 0, xxhash.xxh3_64_intdigest(body))
    assert b"\x89ISOCHRONE-LINK\n" + pack("<I", PROTOCOL_VERSION) == PREAMBLE
    assert wire(ACK) == fields + pack("<Q", xxhash.xxh3_64_intdigest(fields)) + body


def test_a_record_set_is_these_bytes() -> None:
    message = record_set((7, 1, 2, 1, 1), through_ns=9)
    body = pack("<QIIII", 7, 1, 2, 1, 1) + bytes(TRACK)
    fields = b"ISOF" + pack(
        "<HBBIIIIQQQ", 1, 6, 0, len(body), 1, TRACK, 0, 1, 9, xxhash.xxh3_64_intdigest(body)
    )
    assert wire(message) == fields + pack("<Q", xxhash.xxh3_64_intdigest(fields)) + body


def test_an_uncompressed_record_set_is_sent_without_a_copy() -> None:
    message = record_set((7, 1, 2, 1, 1))
    header, headers, payload = Encoder().encode(message)
    assert len(header) == FRAME_HEADER_BYTES
    assert headers is message.headers
    assert payload is message.payload


def test_a_large_payload_is_received_in_place() -> None:
    message = record_set((7, 1, 2, 256, 1))
    decoder = greeted()
    data = wire(message)
    head = decoder.get_buffer()
    head[:FRAME_HEADER_BYTES] = data[:FRAME_HEADER_BYTES]
    decoder.advance(FRAME_HEADER_BYTES)
    assert decoder.next_message() is None
    place = decoder.get_buffer()
    assert len(place) == len(data) - FRAME_HEADER_BYTES
    place[:] = data[FRAME_HEADER_BYTES:]
    decoder.advance(len(place))
    received = decoder.next_message()
    assert isinstance(received, RecordSet)
    assert received == message
    place[-1] = 7
    assert received.payload[-1] == 7, "the payload is the memory it was received into"


def test_received_buffers_cannot_be_written() -> None:
    (received,) = greeted().feed(wire(record_set((7, 1, 2, 1, 1))))
    assert isinstance(received, RecordSet)
    assert memoryview(received.headers).readonly
    assert memoryview(received.payload).readonly


def test_messages_before_a_fault_are_delivered_and_the_decoder_stays_broken() -> None:
    decoder = greeted()
    feed = decoder.feed(wire(ACK) + b"garbage" * 20)
    assert next(feed) == ACK
    with pytest.raises(ProtocolError, match="out of step"):
        next(feed)
    with pytest.raises(ProtocolError, match="out of step"):
        decoder.next_message()


@pytest.mark.parametrize(
    ("first_bytes", "stranger"),
    [
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "an HTTP client"),
        (b"NBDMAGICIHAVEOPT\x00\x03", "an NBD server"),
        (b"\x00\x00\x00\x03", "an NBD client"),
        (b"\x16\x03\x01\x02\x00", "a TLS peer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"x", "no link"),
        (MAGIC.replace(b"\n", b"\r\n"), "no link"),
    ],
)
def test_a_stranger_is_refused_and_named(first_bytes: bytes, stranger: str) -> None:
    with pytest.raises(ProtocolError, match=stranger):
        list(Decoder().feed(first_bytes))


def test_every_prefix_of_the_preamble_waits_and_any_wrong_byte_does_not() -> None:
    for length in range(len(PREAMBLE)):
        decoder = Decoder()
        assert list(decoder.feed(PREAMBLE[:length])) == []
        assert not decoder.greeted
        with pytest.raises(ProtocolError):
            list(decoder.feed(bytes([PREAMBLE[length] ^ 1]) + PREAMBLE[length + 1 :]))


def test_another_protocol_version_is_refused_naming_both() -> None:
    with pytest.raises(ProtocolError, match=r"version 9, this side version 1.*same release") as caught:
        list(Decoder().feed(MAGIC + pack("<I", 9)))
    assert caught.value.fields == {"peer_version": 9, "version": 1}


def test_a_record_set_is_refused_by_its_header_where_none_is_expected() -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError, match="not expected"):
        list(decoder.feed(PREAMBLE + wire(record_set((7, 1, 2, 1, 1)))[:FRAME_HEADER_BYTES]))


RECORD_HEADER = FrameHeader(MessageType.RECORD_SET, PayloadCoding.PLAIN, TRACK + 24, 0, 1, TRACK, 1, 9)


@pytest.mark.parametrize(
    "fields",
    [
        {"body_bytes": 2**32 - 1},
        {"body_bytes": TRACK},
        {"payload_bytes": LIMITS.payload_bytes_max + 1, "body_bytes": 24 + LIMITS.payload_bytes_max + 1},
        {
            "record_count": LIMITS.record_count_max + 1,
            "body_bytes": 24 * (LIMITS.record_count_max + 1) + TRACK,
        },
        {"record_count": 2**32 - 1},
        {"payload_bytes": 2**32 - 1, "coding": PayloadCoding.LZ4_BLOCK},
        {"coding": PayloadCoding.ZSTD_FRAME},  # not smaller than what it stands for
        {"coding": PayloadCoding.LZ4_BLOCK, "body_bytes": 24},
    ],
)
def test_record_set_lengths_are_refused_by_the_header_alone(fields: dict[str, Any]) -> None:
    decoder = greeted()
    with pytest.raises(ProtocolError):
        list(decoder.feed(RECORD_HEADER._replace(**fields).pack()))
    assert len(decoder._body) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"body_bytes": LIMITS.control_bytes_max + 1},
        {"body_bytes": 2**32 - 1},
        {"record_count": 1},
        {"payload_bytes": 1},
        {"sequence": 1},
        {"through_ns": 1},
        {"coding": PayloadCoding.LZ4_BLOCK},
    ],
)
def test_control_lengths_and_fields_are_refused_by_the_header_alone(fields: dict[str, Any]) -> None:
    decoder = greeted()
    with pytest.raises(ProtocolError):
        list(decoder.feed(control_frame(MessageType.FORGET, b"{}", **fields)[:FRAME_HEADER_BYTES]))
    assert len(decoder._body) == 0


@pytest.mark.parametrize(("type_number", "coding"), [(0, 0), (250, 0), (255, 0), (7, 3), (6, 0x80)])
def test_unknown_types_and_flags_are_refused(type_number: int, coding: int) -> None:
    fields = b"ISOF" + pack("<HBBIIIIQQQ", 1, type_number, coding, 2, 0, 0, 0, 0, 0, 0)
    with pytest.raises(ProtocolError, match="not part of link protocol 1"):
        list(greeted().feed(fields + pack("<Q", xxhash.xxh3_64_intdigest(fields))))


def test_reserved_bytes_are_zero() -> None:
    fields = b"ISOF" + pack("<HBBIIIIQQQ", 1, MessageType.FORGET, 0, 2, 0, 0, 1, 0, 0, 0)
    with pytest.raises(ProtocolError, match="reserved"):
        list(greeted().feed(fields + pack("<Q", xxhash.xxh3_64_intdigest(fields))))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"hardened_ns":5,"window_bytes":6}',
        b'{"hardened_ns":5,"window_bytes":6,"consistency_ns":4,"more":1}',
        b'{"hardened_ns":"5","window_bytes":6,"consistency_ns":4}',
        b'{"hardened_ns":5.0,"window_bytes":6,"consistency_ns":4}',
        b'{"hardened_ns":true,"window_bytes":6,"consistency_ns":4}',
        b'{"hardened_ns":-1,"window_bytes":6,"consistency_ns":4}',
        b'{"hardened_ns":18446744073709551616,"window_bytes":6,"consistency_ns":4}',
        b'{"hardened_ns":NaN,"window_bytes":6,"consistency_ns":4}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_control_message_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="ACK message is malformed"):
        list(greeted().feed(control_frame(MessageType.ACK, body)))


def test_parts_of_control_messages_are_held_to_the_same_rules() -> None:
    good = b'{"volumes":[{"number":1,"tracks_remaining":2,"copied_through_ns":0}]}'
    assert list(greeted().feed(control_frame(8, good))) == [CopyProgress([VolumeCopy(1, 2, 0)])]
    for bad in (
        good.replace(b"}]", b',"x":1}]'),
        good.replace(b":1", b':"1"'),
        good.replace(b":1", b":4294967296"),
    ):
        with pytest.raises(ProtocolError, match=r"volumes\.0\."):
            list(greeted().feed(control_frame(8, bad)))
    too_many = b'{"volumes":[' + b",".join([good[12:-2]] * (PROGRESS_VOLUMES_MAX + 1)) + b"]}"
    with pytest.raises(ProtocolError, match="at most 256"):
        list(greeted().feed(control_frame(8, too_many)))


def test_the_fullest_answers_for_a_session_fit_a_control_message() -> None:
    names = [f"{number:064}" for number in range(VOLUMES_PER_SESSION_MAX)]
    policy = SessionPolicy(overflow_policy=OverflowPolicy.SUSPEND, pace_delay_ns_max=2**64 - 1)
    configure = Configure(2**32 - 1, [WantedVolume(name, True, 2**32 - 1) for name in names], policy)
    configured = Configured(1, [VolumeInfo(name, 2**32 - 1, 2**64 - 1, 2**64 - 1) for name in names])
    most, runs = 2**64 - 1, [TrackRun(2**32 - 1, 2**32 - 1)] * UNREADABLE_RUNS_MAX
    volume = VolumeCopy(2**32 - 1, most, most, most, runs, most, most)
    progress = CopyProgress([volume] * PROGRESS_VOLUMES_MAX)
    reason = cut_text('"\x00 ö' * 100, REFUSAL_TEXT_BYTES_MAX)
    refused = Configured(1, [], [VolumeRefusal(name, reason) for name in names])
    said: list[Message] = [configure, configured, progress, refused]
    assert list(greeted().feed(wire(*said))) == said


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "a\\n", "é", "a" * 65])
def test_a_name_that_nobody_could_have_given_is_refused(name: str) -> None:
    good = b'{"number":1,"volumes":[{"name":"ledger-1.db"}],"policy":{"overflow_policy":"pace","pace_delay_ns_max":0}}'
    assert list(greeted().feed(control_frame(MessageType.CONFIGURE, good)))
    with pytest.raises(ProtocolError, match="CONFIGURE message is malformed"):
        list(
            greeted().feed(control_frame(MessageType.CONFIGURE, good.replace(b"ledger-1.db", name.encode())))
        )


def test_a_message_that_the_peer_would_refuse_is_not_sent() -> None:
    with pytest.raises(InternalError, match="SUSPEND message breaks its own rules"):
        Encoder().encode(Suspend("x" * 1025))
    with pytest.raises(InternalError, match="breaks its own rules"):
        Encoder().encode(Suspend("\ud800"))
    with pytest.raises(InternalError, match="the limit is 20"):
        Encoder(limits=Limits(control_bytes_max=20)).encode(Suspend("x" * 20))
    with pytest.raises(InternalError, match="are over"):
        Encoder().encode(RecordSet(1, 1, bytes(23), b""))
    with pytest.raises(InternalError, match="are over"):
        Encoder(limits=Limits(payload_bytes_max=10)).encode(RecordSet(1, 1, b"", bytes(11)))
    with pytest.raises(InternalError, match="are over"):
        Encoder(limits=Limits(record_count_max=1)).encode(RecordSet(1, 1, bytes(48), b""))


def test_the_largest_nbd_write_fits_one_record_set() -> None:
    write_bytes = (32 << 20) + 65536
    message = RecordSet(1, 1, records((1, 0, 0, write_bytes // 65536, 1)).tobytes(), bytes(write_bytes))
    pipe = LinkPipe(track_size_bytes=65536)
    pipe.send(message)
    assert list(pipe.deliver()) == [message]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (record_set((9, 1, 0, 1, 1), (8, 1, 0, 1, 1)), "time order"),
        (record_set((101, 1, 0, 1, 1)), "outside"),
        (record_set((9, 1, 0, 0, 0)), "no tracks"),
        (record_set((9, 1, 0, TRACK_COUNT_MAX + 1, 0)), "no tracks, or more"),
        (record_set((9, 1, 2**32 - 1, 2, 0)), "past the last track"),
        (record_set((9, 1, 0, 1, 4)), "unknown kind 4"),
        (record_set((9, 1, 0, 1, 2**31)), "unknown kind"),
        (replace(record_set((9, 1, 0, 1, 1)), payload=bytes(TRACK - 1)), "payload has 4095"),
        (replace(record_set((9, 1, 0, 1, 0)), payload=bytes(TRACK)), "0 tracks of 4096"),
        (replace(record_set(), payload=b"x"), "0 tracks"),
        (replace(record_set((9, 1, 0, TRACK_COUNT_MAX, 1)), payload=b""), "payload has 0"),
    ],
)
def test_an_unsound_record_set_is_refused(message: RecordSet, fault: str) -> None:
    with pytest.raises(ProtocolError, match=fault):
        list(greeted().feed(wire(message)))


def test_records_at_the_edges_of_what_is_sound_are_accepted() -> None:
    message = record_set(
        (9, 2**32 - 1, 2**32 - 1, 1, RecordKind.DATA | RecordKind.IMAGE),
        (9, 1, 2**32 - TRACK_COUNT_MAX, TRACK_COUNT_MAX, RecordKind.ZERO),
        (100, 1, 0, 3, RecordKind.ZERO | RecordKind.IMAGE),
        (100, 1, 0, 3, RecordKind.DATA),
    )
    assert list(greeted().feed(wire(message))) == [message]


def test_heartbeats_move_the_promise_and_need_not_move_it() -> None:
    heartbeats = [RecordSet(1, 0, b"", b""), RecordSet(2, 50, b"", b""), RecordSet(3, 50, b"", b"")]
    assert list(greeted().feed(wire(*heartbeats))) == heartbeats


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        (record_set((101, 1, 0, 1, 1), sequence=1, through_ns=200), "lost or repeated"),
        (record_set((101, 1, 0, 1, 1), sequence=3, through_ns=200), "lost or repeated"),
        (record_set((100, 1, 0, 1, 1), sequence=2, through_ns=200), "between the promises"),
        (record_set(sequence=2, through_ns=99), "promises 99 after a promise of 100"),
    ],
)
def test_a_record_set_that_breaks_the_order_of_the_stream_is_refused(second: RecordSet, fault: str) -> None:
    decoder = greeted()
    feed = decoder.feed(wire(record_set((100, 1, 0, 1, 1)), second))
    next(feed)
    with pytest.raises(ProtocolError, match=fault):
        next(feed)


def test_staging_never_overflows_and_says_when_it_is_not_drained() -> None:
    decoder = greeted()
    data = wire(Forget()) * (STAGING_BYTES // 58)
    while len(data) >= len(decoder.get_buffer()):
        data = data[:-1]
    room = len(decoder.get_buffer())
    data += bytes(room - len(data))
    decoder.get_buffer()[:] = data
    decoder.advance(room)
    with pytest.raises(InternalError, match="staging is full"):
        decoder.get_buffer()
    assert decoder.next_message() == Forget()
    assert len(decoder.get_buffer()) == FRAME_HEADER_BYTES + 2


def test_the_pipe_delivers_in_order_and_corruption_is_seen() -> None:
    def corrupt(chunk: bytearray) -> None:
        chunk[-1] ^= 1

    pipe = LinkPipe(track_size_bytes=TRACK)
    pipe.send(ACK)
    pipe.send(record_set((7, 1, 2, 1, 1)))
    assert list(pipe.deliver(10)) == []
    assert list(pipe.deliver(200)) == [ACK]
    assert pipe.delivered_bytes == 210
    with pytest.raises(ProtocolError, match="damaged"):
        list(pipe.deliver(corrupt=corrupt))
    assert pipe.pending_bytes == 0
