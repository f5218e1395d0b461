"""docs: the link's format description names everything that the code puts on the wire."""

from __future__ import annotations

import inspect
import re
from enum import StrEnum
from pathlib import Path

import pytest
from pydantic import BaseModel

from isochrone.link.codec import CONTROL_TYPES
from isochrone.link.frame import FRAME_HEADER_BYTES, LIMITS, PREAMBLE_BYTES, MessageType, PayloadCoding
from isochrone.link.messages import (
    FencedVolume,
    RefusalCode,
    TrackRun,
    VolumeCopy,
    VolumeDelay,
    VolumeInfo,
    VolumeRefusal,
    WantedVolume,
)
from isochrone.model.choices import ComparePolicy, Compression, MarkPolicy, OverflowPolicy, PaceLevel
from isochrone.model.policy import SessionPolicy

DOCS = Path(__file__).parents[2] / "docs"
TEXT = "".join(path.read_text() for path in sorted(DOCS.glob("formats*.md")))


def test_every_message_type_is_described_under_its_number() -> None:
    rows = {
        int(number): name
        for number, name in re.findall(r"^\| (\d+) \| (\w+) \| \w+ to \w+ \|", TEXT, re.MULTILINE)
    }
    wire_names = {number: message.__name__ for number, message in CONTROL_TYPES.items()}
    assert rows == {int(number): name for number, name in wire_names.items()} | {
        int(MessageType.RECORD_SET): "RecordSet",
        int(MessageType.COMPARE): "Compare",
        int(MessageType.COMPARED): "Compared",
    }


def test_sizes_and_bounds_are_the_ones_in_force() -> None:
    assert f"### Preamble, {PREAMBLE_BYTES} bytes" in TEXT
    assert f"### Frame header, {FRAME_HEADER_BYTES} bytes" in TEXT
    assert f"| records of a record set | {LIMITS.record_count_max:,} |" in TEXT
    assert f"| payload of a record set, before compression | {LIMITS.payload_bytes_max >> 20} MiB |" in TEXT
    assert f"| body of a control message | {LIMITS.control_bytes_max >> 20} MiB |" in TEXT


def test_every_payload_coding_is_described() -> None:
    described = re.search(r"^`coding`: .*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    assert described is not None
    assert [int(number) for number in re.findall(r"(?:^`coding`: |; )(\d) ", described[0])] == list(
        PayloadCoding
    )


@pytest.mark.parametrize(
    "part",
    [
        *CONTROL_TYPES.values(),
        WantedVolume,
        VolumeInfo,
        VolumeRefusal,
        VolumeCopy,
        TrackRun,
        VolumeDelay,
        FencedVolume,
        SessionPolicy,
    ],
)
def test_every_member_is_described(part: type) -> None:
    row = re.search(rf"^\| {part.__name__} \| ((?:none|`).*) \|$", TEXT, re.MULTILINE)
    assert row is not None
    members = part.model_fields if issubclass(part, BaseModel) else inspect.signature(part).parameters
    assert re.findall(r"`(\w+)`", row[1]) == list(members)


@pytest.mark.parametrize(
    "words", [ComparePolicy, Compression, MarkPolicy, OverflowPolicy, PaceLevel, RefusalCode]
)
def test_every_word_is_described(words: type[StrEnum]) -> None:
    row = re.search(rf"^\| {words.__name__} \| (.*) \|$", TEXT, re.MULTILINE)
    assert row is not None
    assert re.findall(r"`([\w-]+)`", row[1]) == list(words)
