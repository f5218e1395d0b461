"""The negotiation: every option, what it answers, and what ends it."""

from __future__ import annotations

from struct import Struct

import pytest

from isochrone.model.errors import BusyError
from isochrone.nbd import constants as c
from isochrone.nbd.constants import Info, Option, OptionReply
from isochrone.nbd.contexts import CONTEXTS_SELECTED_MAX
from isochrone.nbd.handshake import Handshake, State
from support.nbd_memory import MemoryExport, MemoryExports

_OPTION = Struct(">QII")
_REPLY = Struct(">QIII")
BOTH_FLAGS = (3).to_bytes(4, "big")


def option(number: int, data: bytes = b"") -> bytes:
    return _OPTION.pack(c.OPTION_MAGIC, number, len(data)) + data


def text(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def info_data(name: bytes, *wanted: int) -> bytes:
    return text(name) + len(wanted).to_bytes(2, "big") + b"".join(one.to_bytes(2, "big") for one in wanted)


def context_data(name: bytes, *queries: bytes) -> bytes:
    return text(name) + len(queries).to_bytes(4, "big") + b"".join(map(text, queries))


def replies(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return (option, reply type, data) of all replies in `data`."""
    found = []
    while data:
        magic, number, kind, length = _REPLY.unpack_from(data)
        assert magic == c.OPTION_REPLY_MAGIC
        found.append((number, kind, data[_REPLY.size : _REPLY.size + length]))
        data = data[_REPLY.size + length :]
    return found


def kinds(data: bytes) -> list[int]:
    return [kind for _, kind, _ in replies(data)]


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport("east", size_bytes=1 << 20, block_size_min=512)


@pytest.fixture
def exports(export: MemoryExport) -> MemoryExports:
    return MemoryExports(export)


@pytest.fixture
def handshake(exports: MemoryExports) -> Handshake:
    begun = Handshake(exports)
    assert begun.receive(BOTH_FLAGS) == b""
    return begun


def test_the_greeting_offers_fixed_newstyle_without_zeroes() -> None:
    assert Handshake.greeting() == b"NBDMAGICIHAVEOPT\0\3"


def test_unknown_client_flags_break_the_negotiation(exports: MemoryExports) -> None:
    handshake = Handshake(exports)
    assert handshake.receive((1 << 2).to_bytes(4, "big")) == b""
    assert handshake.state is State.BROKEN


def test_go_agrees_on_the_export_with_everything_asked_for(
    handshake: Handshake, export: MemoryExport
) -> None:
    wanted = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE, 77)
    answer = replies(handshake.receive(option(Option.GO, info_data(b"east", *wanted))))
    assert [kind for _, kind, _ in answer] == [OptionReply.INFO] * 4 + [OptionReply.ACK]
    infos = {int.from_bytes(data[:2], "big"): data[2:] for _, _, data in answer[:-1]}
    assert infos[Info.EXPORT][:8] == (1 << 20).to_bytes(8, "big")
    assert infos[Info.NAME] == b"east"
    assert infos[Info.DESCRIPTION] == b"a volume in memory"
    assert Struct(">III").unpack(infos[Info.BLOCK_SIZE]) == (512, 4096, 32 << 20)
    assert handshake.state is State.AGREED
    assert handshake.agreement is not None
    assert handshake.agreement.export is export
    assert handshake.agreement.terms.flags == int.from_bytes(infos[Info.EXPORT][8:], "big")
    assert not handshake.agreement.terms.structured_replies


def test_every_feature_is_advertised_and_df_only_with_structured_replies(handshake: Handshake) -> None:
    plain = replies(handshake.receive(option(Option.INFO, info_data(b"east"))))[0][2][10:]
    handshake.receive(option(Option.STRUCTURED_REPLY))
    structured = replies(handshake.receive(option(Option.INFO, info_data(b"east"))))[0][2][10:]
    everything = (
        c.FLAG_HAS_FLAGS
        | c.FLAG_SEND_FLUSH
        | c.FLAG_SEND_FUA
        | c.FLAG_SEND_TRIM
        | c.FLAG_SEND_WRITE_ZEROES
        | c.FLAG_CAN_MULTI_CONN
        | c.FLAG_SEND_CACHE
        | c.FLAG_SEND_FAST_ZERO
    )
    assert int.from_bytes(plain, "big") == everything
    assert int.from_bytes(structured, "big") == everything | c.FLAG_SEND_DF


def test_a_read_only_export_says_so_and_offers_no_changes() -> None:
    handshake = Handshake(MemoryExports(MemoryExport("ro", read_only=True)))
    answer = replies(handshake.receive(BOTH_FLAGS + option(Option.GO, info_data(b"ro"))))
    flags = int.from_bytes(answer[0][2][10:], "big")
    assert flags & c.FLAG_READ_ONLY
    assert not flags & (c.FLAG_SEND_TRIM | c.FLAG_SEND_WRITE_ZEROES | c.FLAG_SEND_FAST_ZERO)


def test_info_leaves_nothing_open_and_the_negotiation_going(
    handshake: Handshake, export: MemoryExport
) -> None:
    assert kinds(handshake.receive(option(Option.INFO, info_data(b"east")))) == [
        OptionReply.INFO,
        OptionReply.ACK,
    ]
    assert export.open_count == 0
    assert handshake.state is State.OPTIONS


def test_the_empty_name_means_the_only_export(handshake: Handshake) -> None:
    assert kinds(handshake.receive(option(Option.GO, info_data(b"")))) == [OptionReply.INFO, OptionReply.ACK]


def test_among_several_exports_there_is_no_default() -> None:
    handshake = Handshake(MemoryExports(MemoryExport("a"), MemoryExport("b")))
    assert kinds(handshake.receive(BOTH_FLAGS + option(Option.GO, info_data(b"")))) == [
        OptionReply.ERR_UNKNOWN
    ]


@pytest.mark.parametrize("number", [Option.INFO, Option.GO])
def test_an_unknown_export_is_refused_and_another_can_be_tried(handshake: Handshake, number: Option) -> None:
    assert kinds(handshake.receive(option(number, info_data(b"west")))) == [OptionReply.ERR_UNKNOWN]
    assert kinds(handshake.receive(option(number, info_data(b"east"))))[-1] == OptionReply.ACK


def test_an_export_that_cannot_be_had_now_is_refused_with_its_reason(
    handshake: Handshake, exports: MemoryExports
) -> None:
    exports.refusal = BusyError("the pool is being checked; try again later")
    ((_, kind, message),) = replies(handshake.receive(option(Option.GO, info_data(b"east"))))
    assert (kind, message) == (OptionReply.ERR_POLICY, b"the pool is being checked; try again later")


def test_list_names_every_export() -> None:
    handshake = Handshake(MemoryExports(MemoryExport("a"), MemoryExport("b")))
    answer = replies(handshake.receive(BOTH_FLAGS + option(Option.LIST)))
    assert [(kind, data) for _, kind, data in answer] == [
        (OptionReply.SERVER, text(b"a")),
        (OptionReply.SERVER, text(b"b")),
        (OptionReply.ACK, b""),
    ]


@pytest.mark.parametrize(("flags", "zeroes"), [(1, 124), (3, 0)])
def test_export_name_answers_with_size_flags_and_zeroes(
    exports: MemoryExports, flags: int, zeroes: int
) -> None:
    handshake = Handshake(exports)
    answer = handshake.receive(flags.to_bytes(4, "big") + option(Option.EXPORT_NAME, b"east"))
    assert handshake.agreement is not None
    expected = (1 << 20).to_bytes(8, "big") + handshake.agreement.terms.flags.to_bytes(2, "big")
    assert answer == expected + bytes(zeroes)


@pytest.mark.parametrize("name", [b"west", b"\xff", b"x" * 5000, b"x" * 70000])
def test_export_name_that_cannot_be_had_closes(handshake: Handshake, name: bytes) -> None:
    assert handshake.receive(option(Option.EXPORT_NAME, name)) == b""
    assert handshake.state is State.BROKEN


def test_abort_is_acknowledged_and_ends(handshake: Handshake) -> None:
    assert kinds(handshake.receive(option(Option.ABORT, b"good-bye"))) == [OptionReply.ACK]
    assert handshake.state is State.ENDED


@pytest.mark.parametrize("number", [0, 4, 5, 11, 0xFFFF_FFFF])
def test_an_unknown_option_is_answered_as_unsupported_and_the_next_is_heard(
    handshake: Handshake, number: int
) -> None:
    answer = replies(handshake.receive(option(number, b"whatever") + option(Option.LIST)))
    assert answer[0][:2] == (number, OptionReply.ERR_UNSUP)
    assert answer[-1][:2] == (Option.LIST, OptionReply.ACK)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        text(b"east"),
        text(b"east") + b"\0",
        text(b"east") + b"\0\1",
        text(b"east") + b"\0\0\0",
        (1 << 31).to_bytes(4, "big") + b"east\0\0",
        info_data(b"ea\0st"),
        info_data(b"\xff\xfe"),
        info_data(b"x" * 4097),
    ],
)
def test_info_data_that_does_not_parse_is_invalid(handshake: Handshake, data: bytes) -> None:
    assert kinds(handshake.receive(option(Option.GO, data))) == [OptionReply.ERR_INVALID]
    assert handshake.state is State.OPTIONS


@pytest.mark.parametrize("number", [Option.LIST, Option.STRUCTURED_REPLY])
def test_options_without_data_refuse_data(handshake: Handshake, number: Option) -> None:
    assert kinds(handshake.receive(option(number, b"x"))) == [OptionReply.ERR_INVALID]


def test_data_beyond_the_limit_is_skipped_not_kept(handshake: Handshake) -> None:
    length = 1 << 30
    assert handshake.receive(_OPTION.pack(c.OPTION_MAGIC, Option.GO, length)) != b""
    block = bytes(1 << 20)
    for _ in range(length >> 20):
        assert handshake.receive(block) == b""
        assert len(handshake.leftover) == 0
    assert kinds(handshake.receive(option(Option.LIST)))[-1] == OptionReply.ACK


def test_too_long_data_is_answered_as_too_big(handshake: Handshake) -> None:
    data = bytes(c.OPTION_LENGTH_MAX + 1)
    assert kinds(handshake.receive(option(Option.GO, data))) == [OptionReply.ERR_TOO_BIG]


def test_a_wrong_option_magic_breaks_the_negotiation(handshake: Handshake) -> None:
    assert handshake.receive(bytes(16)) == b""
    assert handshake.state is State.BROKEN


def test_a_negotiation_without_end_is_broken_off(handshake: Handshake) -> None:
    handshake.receive(option(Option.LIST) * c.OPTIONS_MAX)
    assert handshake.is_open
    handshake.receive(option(Option.LIST))
    assert not handshake.is_open


def test_what_follows_the_handshake_is_handed_on(handshake: Handshake) -> None:
    handshake.receive(option(Option.EXPORT_NAME, b"east") + b"first request")
    assert handshake.leftover == b"first request"


# --- metadata contexts ---


def agreed_block_status(handshake: Handshake, name: bytes = b"east") -> bool:
    handshake.receive(option(Option.GO, info_data(name)))
    assert handshake.agreement is not None
    return bool(handshake.agreement.terms.context_count)


@pytest.mark.parametrize("number", [Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT])
def test_contexts_need_structured_replies_first(handshake: Handshake, number: Option) -> None:
    data = context_data(b"east", b"base:allocation")
    assert kinds(handshake.receive(option(number, data))) == [OptionReply.ERR_INVALID]
    assert not agreed_block_status(handshake)


def test_base_allocation_can_be_selected(handshake: Handshake) -> None:
    handshake.receive(option(Option.STRUCTURED_REPLY))
    data = context_data(b"east", b"qemu:dirty-bitmap:x", b"base:allocation", b"no colon")
    answer = replies(handshake.receive(option(Option.SET_META_CONTEXT, data)))
    assert answer == [
        (Option.SET_META_CONTEXT, OptionReply.META_CONTEXT, (1).to_bytes(4, "big") + b"base:allocation"),
        (Option.SET_META_CONTEXT, OptionReply.ACK, b""),
    ]
    assert agreed_block_status(handshake)


@pytest.mark.parametrize(
    ("number", "queries", "found"),
    [
        (Option.LIST_META_CONTEXT, (), True),
        (Option.LIST_META_CONTEXT, (b"base:",), True),
        (Option.LIST_META_CONTEXT, (b"base:allocation",), True),
        (Option.LIST_META_CONTEXT, (b"base:other", b"x-mine:"), False),
        (Option.SET_META_CONTEXT, (), False),
        (Option.SET_META_CONTEXT, (b"base:",), False),
        (Option.SET_META_CONTEXT, (b"base:other",), False),
    ],
)
def test_queries_find_what_the_specification_says(
    handshake: Handshake, number: Option, queries: tuple[bytes, ...], found: bool
) -> None:
    handshake.receive(option(Option.STRUCTURED_REPLY))
    answer = kinds(handshake.receive(option(number, context_data(b"east", *queries))))
    assert answer == [OptionReply.META_CONTEXT] * found + [OptionReply.ACK]
    assert not agreed_block_status(handshake)


@pytest.mark.parametrize(
    "second",
    [context_data(b"east"), context_data(b"west", b"base:allocation"), context_data(b"east", b"x")[:-1]],
    ids=["nothing selected", "unknown export", "does not parse"],
)
def test_a_later_selection_replaces_the_earlier_one_also_when_it_fails(
    handshake: Handshake, second: bytes
) -> None:
    handshake.receive(option(Option.STRUCTURED_REPLY))
    handshake.receive(option(Option.SET_META_CONTEXT, context_data(b"east", b"base:allocation")))
    handshake.receive(option(Option.SET_META_CONTEXT, second))
    assert not agreed_block_status(handshake)


def test_a_selection_for_another_export_does_not_count() -> None:
    handshake = Handshake(MemoryExports(MemoryExport("a"), MemoryExport("b")))
    handshake.receive(BOTH_FLAGS + option(Option.STRUCTURED_REPLY))
    handshake.receive(option(Option.SET_META_CONTEXT, context_data(b"a", b"base:allocation")))
    assert not agreed_block_status(handshake, b"b")


def changed(name: str) -> bytes:
    return f"isochrone:changed:{name}".encode()


@pytest.fixture
def copied(export: MemoryExport) -> MemoryExport:
    export.contexts = {changed(name).decode(): [(1 << 20, 1)] for name in ("mon", "tue")}
    return export


def contexts_of(answer: list[tuple[int, int, bytes]]) -> list[tuple[int, str]]:
    return [
        (int.from_bytes(data[:4], "big"), data[4:].decode())
        for _, kind, data in answer
        if kind == OptionReply.META_CONTEXT
    ]


@pytest.mark.parametrize(
    ("queries", "found"),
    [
        ((), ("base:allocation", "isochrone:changed:mon", "isochrone:changed:tue")),
        ((b"isochrone:",), ("isochrone:changed:mon", "isochrone:changed:tue")),
        ((b"isochrone:changed:",), ("isochrone:changed:mon", "isochrone:changed:tue")),
        ((b"base:", b"isochrone:changed:tue"), ("base:allocation", "isochrone:changed:tue")),
        ((b"isochrone:changed:m",), ()),
        ((b"isochrone",), ()),
    ],
)
def test_copies_are_listed_by_name_and_by_the_beginnings_of_their_names(
    handshake: Handshake, copied: MemoryExport, queries: tuple[bytes, ...], found: tuple[str, ...]
) -> None:
    handshake.receive(option(Option.STRUCTURED_REPLY))
    answer = replies(handshake.receive(option(Option.LIST_META_CONTEXT, context_data(b"east", *queries))))
    assert contexts_of(answer) == [(0, name) for name in found]
    assert copied.open_map_count == 0


def test_several_contexts_are_selected_in_the_order_they_are_asked_for(
    handshake: Handshake, exports: MemoryExports, copied: MemoryExport
) -> None:
    handshake.receive(option(Option.STRUCTURED_REPLY))
    asked = (changed("tue"), b"base:allocation", changed("wed"), changed("mon"), changed("tue"))
    answer = replies(handshake.receive(option(Option.SET_META_CONTEXT, context_data(b"east", *asked))))
    selected = [(1, changed("tue").decode()), (2, "base:allocation"), (3, changed("mon").decode())]
    assert contexts_of(answer) == selected
    handshake.receive(option(Option.GO, info_data(b"east")))
    agreement = handshake.agreement
    assert agreement is not None
    assert [(one.id, one.name) for one in agreement.contexts] == selected
    assert copied.open_map_count == 2
    agreement.close(exports)
    assert (copied.open_map_count, copied.open_count) == (0, 0)


def test_a_beginning_of_a_name_selects_nothing(handshake: Handshake, copied: MemoryExport) -> None:
    handshake.receive(option(Option.STRUCTURED_REPLY))
    data = context_data(b"east", b"isochrone:changed:", b"isochrone:")
    assert kinds(handshake.receive(option(Option.SET_META_CONTEXT, data))) == [OptionReply.ACK]
    assert not agreed_block_status(handshake)


def test_looking_at_an_export_leaves_no_map_open(handshake: Handshake, copied: MemoryExport) -> None:
    handshake.receive(option(Option.STRUCTURED_REPLY))
    handshake.receive(option(Option.SET_META_CONTEXT, context_data(b"east", changed("mon"))))
    handshake.receive(option(Option.INFO, info_data(b"east")))
    assert (copied.open_map_count, copied.open_count) == (0, 0)


def test_more_contexts_than_a_reply_has_room_for_are_refused(
    handshake: Handshake, export: MemoryExport
) -> None:
    names = [f"c{number}" for number in range(CONTEXTS_SELECTED_MAX + 1)]
    export.contexts = {changed(name).decode(): [(1 << 20, 1)] for name in names}
    handshake.receive(option(Option.STRUCTURED_REPLY))
    data = context_data(b"east", *map(changed, names))
    assert kinds(handshake.receive(option(Option.SET_META_CONTEXT, data))) == [OptionReply.ERR_TOO_BIG]
    assert not agreed_block_status(handshake)


def test_an_export_whose_selected_copy_is_gone_meanwhile_is_refused_and_left_closed(
    handshake: Handshake, copied: MemoryExport
) -> None:
    handshake.receive(option(Option.STRUCTURED_REPLY))
    handshake.receive(option(Option.SET_META_CONTEXT, context_data(b"east", changed("mon"), changed("tue"))))
    del copied.contexts[changed("tue").decode()]
    answer = kinds(handshake.receive(option(Option.GO, info_data(b"east"))))
    assert answer == [OptionReply.ERR_UNKNOWN]
    assert (copied.open_map_count, copied.open_count) == (0, 0)
    assert handshake.is_open
