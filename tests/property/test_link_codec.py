"""The link codec under any messages, any chunking, any damage."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from isochrone.link.codec import CONTROL_TYPES, STAGING_BYTES, Decoder, Encoder
from isochrone.link.frame import FRAME_HEADER_BYTES, PREAMBLE, FrameHeader, Limits, MessageType, PayloadCoding
from isochrone.link.messages import TEXT_BYTES_MAX, ControlMessage, Message, RecordSet, Suspended, cut_text
from isochrone.model.choices import Compression
from isochrone.model.errors import ProtocolError
from isochrone.model.records import RECORD_DTYPE
from isochrone.testing.link_pipe import LinkPipe

TRACK = 512
LIST_LENGTH_MAX = 4


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values that the field type `hint` of a message allows."""
    if get_origin(hint) is Annotated:
        base, *annotations = get_args(hint)
        rules = [rule for annotation in annotations for rule in annotation.metadata]
        pattern = next((rule.pattern for rule in rules if hasattr(rule, "pattern")), None)
        if pattern is not None:
            return st.from_regex(pattern, fullmatch=True)
        bound = {name: value for rule in rules for name, value in vars_of(rule)}
        if base is int:
            return st.integers(bound["ge"], bound["lt"] - 1 if "lt" in bound else bound["le"])
        if base is str:
            alphabet = st.characters(exclude_categories=["Cs"])
            return st.text(alphabet, min_size=bound.get("min_length", 0), max_size=bound["max_length"])
        return values_of(base)
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return st.one_of(*(values_of(part) for part in get_args(hint)))
    if get_origin(hint) is list:
        return st.lists(values_of(get_args(hint)[0]), max_size=LIST_LENGTH_MAX)
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, BaseModel)):
        return messages_of(hint)
    return st.from_type(hint)


def vars_of(rule: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(rule, field.name)) for field in dataclasses.fields(rule)]


def messages_of(message_class: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(message_class, include_extras=True)
    names = message_class.model_fields if issubclass(message_class, BaseModel) else hints
    return st.builds(message_class, **{name: values_of(hints[name]) for name in names})


CONTROL = st.one_of(*(messages_of(message_class) for message_class in CONTROL_TYPES.values()))


@given(text=st.text(st.characters(codec=None), max_size=2 * TEXT_BYTES_MAX))
def test_any_reason_can_be_sent_once_it_is_cut(text: str) -> None:
    cut = cut_text(text)
    ((frame),) = Encoder().encode(Suspended(cut, 1))
    assert len(frame) <= FRAME_HEADER_BYTES + TEXT_BYTES_MAX + len('{"reason":"","through_ns":1}')
    kept = text.encode("utf-8", "replace").decode()
    assert cut == kept or (cut.endswith("...") and kept.startswith(cut[:-3]))


@st.composite
def streams(draw: st.DrawFn) -> list[Message]:
    """Messages of one direction: control messages anywhere, record sets in sequence."""
    stream: list[Message] = []
    sequence, now_ns = 0, draw(st.integers(0, 1 << 62))
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            stream.append(draw(CONTROL))
            continue
        record_count = draw(st.integers(0, 6))
        records = np.zeros(record_count, RECORD_DTYPE)
        gaps = draw(st.lists(st.integers(0, 1 << 40), min_size=record_count, max_size=record_count))
        records["time_ns"] = now_ns + 1 + np.cumsum(gaps, dtype=np.uint64) if record_count else 0
        for record in records:
            record["volume"] = draw(st.integers(0, 2**32 - 1))
            record["track_count"] = draw(st.integers(1, 3))
            record["track"] = draw(st.integers(0, 2**32 - 3))
            record["kind"] = draw(st.integers(0, 3))
        sequence += 1
        now_ns = (int(records["time_ns"][-1]) if record_count else now_ns) + draw(st.integers(0, 1 << 40))
        tracks = int(records["track_count"][(records["kind"] & 1) == 1].sum())
        unit = draw(st.binary(min_size=1, max_size=40))
        payload = (unit * (tracks * TRACK // len(unit) + 1))[: tracks * TRACK]
        stream.append(RecordSet(sequence, now_ns, records.tobytes(), payload))
    return stream


def encode(stream: list[Message], compression: Compression) -> bytes:
    encoder = Encoder(compression)
    return PREAMBLE + b"".join(b"".join(encoder.encode(message)) for message in stream)


def decode(data: bytes, limits: Limits | None = None) -> tuple[list[Message], ProtocolError | None]:
    """Everything `data` gives, and the error that ended it."""
    decoder = Decoder(limits or Limits(), track_size_bytes=TRACK)
    received: list[Message] = []
    try:
        for message in decoder.feed(data):
            received.append(message)  # noqa: PERF402  # what came before an error counts
    except ProtocolError as error:
        return received, error
    return received, None


@pytest.mark.parametrize("message_class", get_args(ControlMessage))
def test_every_control_message_comes_back_the_same(message_class: type) -> None:
    @settings(max_examples=25, deadline=None)
    @given(message=messages_of(message_class))
    def check(message: Message) -> None:
        assert decode(encode([message], Compression.OFF)) == ([message], None)

    check()


@settings(max_examples=150, deadline=None)
@given(stream=streams(), compression=st.sampled_from(Compression), data=st.data())
def test_any_stream_comes_back_in_any_chunks(
    stream: list[Message], compression: Compression, data: st.DataObject
) -> None:
    pipe = LinkPipe(compression=compression, track_size_bytes=TRACK)
    for message in stream:
        pipe.send(message)
    received: list[Message] = []
    while pipe.pending_bytes:
        received += pipe.deliver(data.draw(st.integers(1, 4000) | st.integers(1, 60)))
    assert received == stream
    assert not pipe.decoder.mid_message


@settings(max_examples=150, deadline=None)
@given(stream=streams(), compression=st.sampled_from(Compression), data=st.data())
def test_one_changed_byte_never_gives_a_wrong_message(
    stream: list[Message], compression: Compression, data: st.DataObject
) -> None:
    wire = bytearray(encode(stream, compression))
    position = data.draw(st.integers(0, len(wire) - 1))
    wire[position] ^= data.draw(st.integers(1, 255))
    received, error = decode(bytes(wire))
    assert error is not None
    assert received == stream[: len(received)]


@settings(max_examples=100, deadline=None)
@given(stream=streams(), data=st.data())
def test_a_cut_stream_gives_its_whole_messages_and_shows_the_cut(
    stream: list[Message], data: st.DataObject
) -> None:
    wire = encode(stream, Compression.OFF)
    frames = [len(encode(stream[:count], Compression.OFF)) for count in range(len(stream) + 1)]
    cut = data.draw(st.integers(0, len(wire)))
    decoder = Decoder(track_size_bytes=TRACK)
    received = list(decoder.feed(wire[:cut]))
    assert received == stream[: sum(1 for end in frames[1:] if end <= cut)]
    assert decoder.mid_message == (cut not in (0, *frames))


@settings(max_examples=150, deadline=None)
@given(stream=streams(), garbage=st.binary(max_size=300), data=st.data())
def test_bytes_inserted_or_taken_away_are_never_taken_for_a_message(
    stream: list[Message], garbage: bytes, data: st.DataObject
) -> None:
    wire = encode(stream, Compression.OFF)
    start = data.draw(st.integers(0, len(wire)))
    end = data.draw(st.integers(start, min(len(wire), start + 200)))
    received, _ = decode(wire[:start] + garbage + wire[end:])
    assert all(message in stream for message in received), "only messages that were sent"
    sets = [message.sequence for message in received if isinstance(message, RecordSet)]
    assert sets == list(range(1, len(sets) + 1)), "record sets in order, none left out"


@settings(max_examples=200, deadline=None)
@given(garbage=st.binary(max_size=2000), greeted=st.booleans())
def test_any_bytes_are_refused_or_awaited(garbage: bytes, greeted: bool) -> None:
    received, _ = decode((PREAMBLE if greeted else b"") + garbage)
    assert received == []


@settings(max_examples=300, deadline=None)
@given(
    message_type=st.sampled_from(MessageType),
    coding=st.sampled_from(PayloadCoding),
    lengths=st.tuples(*[st.integers(0, 20) | st.integers(0, 20_000) | st.integers(0, 2**32 - 1)] * 3),
)
def test_no_claimed_length_is_trusted(
    message_type: MessageType, coding: PayloadCoding, lengths: tuple[int, int, int]
) -> None:
    """Headers with a right checksum and any lengths: what is allocated stays within the limits."""
    limits = Limits(control_bytes_max=4096, record_count_max=16, payload_bytes_max=16 * TRACK)
    body_bytes, record_count, payload_bytes = lengths
    header = FrameHeader(message_type, coding, body_bytes, 0, record_count, payload_bytes)
    decoder = Decoder(limits, track_size_bytes=TRACK)
    try:
        list(decoder.feed(PREAMBLE + header.pack()))
    except ProtocolError:
        return
    assert len(decoder.get_buffer()) <= max(STAGING_BYTES, limits.frame_bytes_max - FRAME_HEADER_BYTES)
