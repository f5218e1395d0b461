"""The words of the field as small types: names, sizes, records, errors and states."""

from __future__ import annotations

import numpy as np
import pytest

from isochrone.model import errors
from isochrone.model.errors import IsochroneError, RefusedError, UnavailableError
from isochrone.model.names import NAME_LENGTH_MAX, check_name
from isochrone.model.records import RECORD_DTYPE, RECORD_STRUCT, RecordBatch, RecordKind
from isochrone.model.sizes import format_size, parse_size

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, IsochroneError)]


# Names


@pytest.mark.parametrize("name", ["a", "Z9", "db-1.wal_2", "0", "a" * NAME_LENGTH_MAX])
def test_a_usable_name_is_returned_as_it_is(name: str) -> None:
    assert check_name(name, "volume") == name


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", ".a", "a.", "_a", "..", "a/b", "a b", "a\n", "ä", "a\x00b", "a" * (NAME_LENGTH_MAX + 1)],
)
def test_a_name_that_is_not_safe_everywhere_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(RefusedError, match=r"volume name .* 1 to 64 letters") as refused:
        check_name(name, "volume")
    assert refused.value.fields == {"what": "volume"}


def test_a_refused_name_is_quoted_in_part_only() -> None:
    with pytest.raises(RefusedError) as refused:
        check_name("x" * 10_000, "session")
    assert len(refused.value.message) < 300


# Sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("0", 0),
        ("1k", 1 << 10),
        ("64KiB", 64 << 10),
        ("64kb", 64 << 10),
        ("1.5g", 3 << 29),
        (" 2 MiB ", 2 << 20),
        ("1TiB", 1 << 40),
        ("512 B", 512),
        (77, 77),
    ],
)
def test_a_size_with_a_unit_is_that_many_bytes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "1 2", "1e3", "0x10", "1.g", "MiB", "1kk", "1,5g"])
def test_what_is_not_a_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(RefusedError, match="write for example 4096, 512MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 40, "1.0 TiB"),
        (3 << 50, "3072.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_sizes_are_shown_with_the_largest_unit_that_fits(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("shift", range(44))
def test_a_shown_power_of_two_reads_back(shift: int) -> None:
    assert parse_size(format_size(1 << shift)) == 1 << shift


# Records


def test_both_layouts_of_a_record_are_the_same_bytes() -> None:
    values = ((1 << 64) - 2, (1 << 32) - 3, 5, 6, 3)
    packed = RECORD_STRUCT.pack(*values)
    assert len(packed) == RECORD_DTYPE.itemsize == 24
    assert np.frombuffer(packed, RECORD_DTYPE).tolist() == [values]
    assert np.array([values], RECORD_DTYPE).tobytes() == packed


def test_images_are_told_from_writes_and_zeros_from_data_by_their_own_bits() -> None:
    kinds = [RecordKind.ZERO, RecordKind.DATA, RecordKind.IMAGE, RecordKind.DATA | RecordKind.IMAGE]
    assert [int(kind) for kind in kinds] == [0, 1, 2, 3]


def test_a_batch_is_charged_for_headers_and_payload() -> None:
    assert RecordBatch(1, 5, 6, 2, bytes(48), bytes(8192)).size_bytes == 48 + 8192


# Errors


def test_every_error_has_a_word_of_its_own_for_programs() -> None:
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes) > 8


def test_every_error_is_one_of_four_classes_by_whose_move_is_next() -> None:
    kinds = (RefusedError, UnavailableError, errors.DamagedError, errors.InternalError)
    for error in CLASSES:
        assert error is IsochroneError or sum(issubclass(error, kind) for kind in kinds) == 1


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_carries_its_text_and_its_values(error: type[IsochroneError]) -> None:
    raised = error("do this", volume="a", number=3)
    assert (str(raised), raised.message, raised.fields) == (
        "do this",
        "do this",
        {"volume": "a", "number": 3},
    )


def test_the_tree_in_the_modules_docstring_names_every_error() -> None:
    told = errors.__doc__ or ""
    assert [error.__name__ for error in CLASSES if error.__name__ not in told] == []
