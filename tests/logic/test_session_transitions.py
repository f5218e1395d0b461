"""Commands and events on every state of a session: what is allowed, what follows, and what is refused with a cure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isochrone.model.choices import OverflowPolicy, PaceLevel
from isochrone.model.errors import ConflictError, DamagedError, NotFoundError, RefusedError
from isochrone.model.states import SessionState
from isochrone.session import transitions
from isochrone.session.document import SessionDocument, SourceDocument, load_document
from support.cores import new_document

NOW = 99
ACTIVE, SUSPENDED, RECOVERY, ENDED = SessionState
INCARNATION = "cc" * 16


def document(state: SessionState = ACTIVE, *, complete: bool = True, duplex: bool = False) -> SessionDocument:
    """A session of two primaries with one pair each."""
    made = new_document(primaries=("p1", "p2"), pairs=((0, "a", "sa"), (1, "b", "sb")))
    pairs = tuple(p.model_copy(update={"complete": complete, "duplex": duplex}) for p in made.pairs)
    return made.changed(state=state, pairs=pairs, recovered_ns=50 if state in (RECOVERY, ENDED) else 0)


COMMANDS: dict[str, Callable[[SessionDocument], SessionDocument]] = {
    "suspend": lambda d: transitions.suspended(d, "why", NOW),
    "resume": lambda d: transitions.resumed(d, NOW),
    "recover": lambda d: transitions.recovering(d, 70, NOW, allow_incomplete=False),
    "add pairs": lambda d: transitions.with_pairs_added(d, [], [("p1", "c", "sc")]),
    "remove pairs": lambda d: transitions.with_pairs_removing(d, ["sa"]),
    "settings": lambda d: transitions.with_settings(d, overflow_policy=OverflowPolicy.SUSPEND),
}
ALLOWED: dict[tuple[str, SessionState], SessionState] = {
    ("suspend", ACTIVE): SUSPENDED,
    ("suspend", SUSPENDED): SUSPENDED,
    ("resume", SUSPENDED): ACTIVE,
    ("recover", ACTIVE): RECOVERY,
    ("recover", SUSPENDED): RECOVERY,
    ("recover", RECOVERY): RECOVERY,
    ("recover", ENDED): ENDED,
    ("add pairs", ACTIVE): ACTIVE,
    ("add pairs", SUSPENDED): SUSPENDED,
    ("remove pairs", ACTIVE): ACTIVE,
    ("remove pairs", SUSPENDED): SUSPENDED,
    ("settings", ACTIVE): ACTIVE,
    ("settings", SUSPENDED): SUSPENDED,
}


@pytest.mark.parametrize("state", list(SessionState))
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_in_every_state_is_done_or_refused_by_name(command: str, state: SessionState) -> None:
    before = document(state)
    after = ALLOWED.get((command, state))
    if after is None:
        with pytest.raises(ConflictError, match="session 's' is"):
            COMMANDS[command](before)
    else:
        assert COMMANDS[command](before).state is after


@pytest.mark.parametrize(
    ("command", "state"), [("suspend", SUSPENDED), ("recover", RECOVERY), ("recover", ENDED)]
)
def test_a_repeated_command_changes_nothing(command: str, state: SessionState) -> None:
    before = document(state)
    assert COMMANDS[command](before) == before


def test_recovery_and_end_never_go_back() -> None:
    for (_, state), after in ALLOWED.items():
        if state in (RECOVERY, ENDED):
            assert after is state


def test_suspending_keeps_the_first_reason_and_cuts_a_long_one() -> None:
    once = transitions.suspended(document(), "x" * 5000, NOW)
    assert (len(once.reason), once.since_ns) == (1024, NOW)
    assert transitions.suspended(once, "other", 200) == once


def test_resuming_asks_every_primary_to_begin_again_and_clears_the_reason() -> None:
    resumed = transitions.resumed(transitions.suspended(document(), "why", 1), NOW)
    assert (resumed.reason, resumed.since_ns) == ("", NOW)
    assert all(source.resume_wanted for source in resumed.sources)


def test_recovery_raises_the_epoch_and_fixes_the_time() -> None:
    before = document()
    after = transitions.recovering(before, 70, NOW, allow_incomplete=False)
    assert (after.epoch, after.recovered_ns, after.since_ns) == (before.epoch + 1, 70, NOW)
    ended = transitions.ended(after.changed(hold_floor_ns=5), 120)
    assert (ended.state, ended.recovered_ns, ended.epoch, ended.hold_floor_ns) == (
        ENDED,
        70,
        after.epoch,
        None,
    )


@pytest.mark.parametrize("pairs", [(), None])
def test_an_incomplete_image_is_recovered_only_on_demand(pairs: tuple[()] | None) -> None:
    before = document(complete=False)
    before = before if pairs is None else before.changed(pairs=pairs)
    with pytest.raises(ConflictError, match="no complete image"):
        transitions.recovering(before, 70, NOW, allow_incomplete=False)
    assert transitions.recovering(before, 70, NOW, allow_incomplete=True).state is RECOVERY


def test_one_incomplete_pair_makes_the_image_incomplete_and_is_named() -> None:
    before = document()
    before = before.with_pairs({"sb": before.pairs[1].model_copy(update={"complete": False})})
    with pytest.raises(ConflictError, match="first copy of sb is not complete"):
        transitions.recovering(before, 70, NOW, allow_incomplete=False)


# The hold of a resync


def test_a_gap_takes_duplex_from_the_pairs_of_its_primary_and_holds_the_image() -> None:
    after = transitions.with_hold(document(duplex=True), 0, INCARNATION, 40, through_ns=0)
    assert [(pair.duplex, pair.complete) for pair in after.pairs] == [(False, True), (True, True)]
    assert after.hold_floor_ns == 40
    assert (after.sources[0].incarnation, after.sources[1].incarnation) == (INCARNATION, "")


def test_a_second_gap_keeps_the_floor_of_the_first() -> None:
    after = transitions.with_hold(document(duplex=True), 0, INCARNATION, 40, through_ns=0)
    assert transitions.with_hold(after, 1, INCARNATION, 60, through_ns=0).hold_floor_ns == 40
    assert transitions.with_hold(after, 0, INCARNATION, 30, through_ns=0).hold_floor_ns == 40


def test_a_first_copy_has_no_image_to_protect_and_holds_nothing() -> None:
    assert (
        transitions.with_hold(document(complete=False), 0, INCARNATION, 40, through_ns=0).hold_floor_ns
        is None
    )


def test_a_new_stream_has_done_what_resume_wanted() -> None:
    resumed = transitions.resumed(transitions.suspended(document(), "x", 1), 2)
    after = transitions.with_hold(resumed, 1, INCARNATION, 40, through_ns=0)
    assert [source.resume_wanted for source in after.sources] == [True, False]


def test_duplex_also_makes_the_pair_complete_and_touches_no_other() -> None:
    after = transitions.with_duplex(document(complete=False), ["sb"])
    assert [(pair.duplex, pair.complete) for pair in after.pairs] == [(False, False), (True, True)]
    assert not after.is_image_complete


# Pairs


def test_added_pairs_begin_unconfirmed_and_may_bring_a_new_primary() -> None:
    source = SourceDocument(name="p3", address="tcp:h:1")
    after = transitions.with_pairs_added(document(), [source], [("p3", "c", "sc"), ("p1", "d", "sd")])
    assert [(p.source, p.primary_volume, p.secondary_volume) for p in after.pairs[2:]] == [
        (2, "c", "sc"),
        (0, "d", "sd"),
    ]
    assert not any(pair.is_confirmed or pair.complete or pair.duplex for pair in after.pairs[2:])
    assert after.sources_in_use == {0, 1, 2}


def test_priorities_change_only_the_pairs_named() -> None:
    after = transitions.with_priorities(document(), {"sb": 7})
    assert [pair.priority for pair in after.pairs] == [0, 7]
    with pytest.raises(NotFoundError, match="no pair with secondary volume 'nope'"):
        transitions.with_priorities(document(), {"sa": 1, "nope": 2})


def test_pairs_have_pace_levels_of_their_own_by_either_name_and_give_them_up() -> None:
    after = transitions.with_pair_pace(document(), {"sb": PaceLevel.OFF, "p1:a": PaceLevel.FIRM})
    assert [pair.pace for pair in after.pairs] == [PaceLevel.FIRM, PaceLevel.OFF]
    assert [pair.pace for pair in transitions.with_pair_pace(after, {"sa": None}).pairs] == [
        None,
        PaceLevel.OFF,
    ]
    with pytest.raises(NotFoundError, match="has no pair 'p9:a'"):
        transitions.with_pair_pace(document(), {"p9:a": None})


def test_a_primary_named_again_may_bring_a_new_address_and_keeps_the_rest() -> None:
    before = document().with_source(0, controller_id="a1" * 16, incarnation=INCARNATION)
    after = transitions.with_pairs_added(before, [SourceDocument(name="p1", address="tcp:h:9")], [])
    assert after.sources[0] == before.sources[0].model_copy(update={"address": "tcp:h:9"})


@pytest.mark.parametrize(
    ("pair", "error", "text"),
    [
        (("nope", "c", "sc"), RefusedError, "add --primary nope=ADDRESS"),
        (("p1", "c", "sa"), ConflictError, "is a secondary of session"),
        (("p2", "c", "sa"), ConflictError, "is a secondary of session"),
        (("p1", "a", "sc"), ConflictError, "is in session 's' already"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(
    pair: tuple[str, str, str], error: type[RefusedError], text: str
) -> None:
    with pytest.raises(error, match=text):
        transitions.with_pairs_added(document(), [], [pair])


def test_the_same_pair_twice_in_one_command_is_refused() -> None:
    with pytest.raises(ConflictError):
        transitions.with_pairs_added(document(), [], [("p1", "c", "sc"), ("p2", "d", "sc")])


def test_pairs_leave_by_the_name_of_their_secondary() -> None:
    assert [p.removing for p in transitions.with_pairs_removing(document(), ["sb"]).pairs] == [False, True]
    with pytest.raises(NotFoundError, match="nope"):
        transitions.with_pairs_removing(document(), ["sb", "nope"])


# The document


def test_a_document_reads_back_as_it_was_written() -> None:
    made = transitions.with_hold(document(duplex=True), 0, INCARNATION, 40, through_ns=0)
    assert load_document(made.key, made.model_dump_json().encode()) == made


@pytest.mark.parametrize("value", [b"", b"{}", b'{"session_id": 5}', b"\xff"])
def test_a_damaged_document_is_named(value: bytes) -> None:
    with pytest.raises(DamagedError, match="session/s"):
        load_document("session/s", value)


# Many pairs


class CountedName(str):
    """A name that counts how often it is compared with another: work that grows with the square of pairs shows."""

    __slots__ = ()

    compared_count = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedName.compared_count += 1
        return str.__eq__(self, other)


@pytest.mark.parametrize("at_once", [True, False], ids=["to an empty session", "to one that has as many"])
def test_adding_pairs_looks_at_each_name_a_bounded_number_of_times(at_once: bool) -> None:
    count = 2000
    before = document().changed(pairs=())
    if not at_once:
        before = transitions.with_pairs_added(
            before, [], [("p1", CountedName(f"x{n}"), CountedName(f"sx{n}")) for n in range(count)]
        )
    CountedName.compared_count = 0
    pairs = [("p1", CountedName(f"v{n}"), CountedName(f"s{n}")) for n in range(count)]
    after = transitions.with_pairs_added(before, [], pairs)
    assert [pair.secondary_volume for pair in after.pairs[-count:]] == [name for _, _, name in pairs]
    assert CountedName.compared_count < 20 * count


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([("p1", "c", "sa")], "volume 'sa' is a secondary of session 's' already"),
        ([("p1", "a", "sc")], "volume p1:a is in session 's' already"),
        ([("p1", "a", "sa")], "volume 'sa' is a secondary of session 's' already"),
        ([("p2", "b", "sa")], "volume 'sa' is a secondary of session 's' already"),
        ([("p1", "a", "sb")], "volume p1:a is in session 's' already"),
        ([("p1", "c", "sc"), ("p2", "c", "sc")], "volume 'sc' is a secondary of session 's' already"),
        ([("p1", "c", "sc"), ("p1", "c", "sd")], "volume p1:c is in session 's' already"),
    ],
    ids=[
        "secondary",
        "primary",
        "both",
        "the secondary first",
        "the primary first",
        "twice here",
        "same here",
    ],
)
def test_a_pair_is_told_of_the_first_pair_that_is_in_its_way(
    pairs: list[tuple[str, str, str]], text: str
) -> None:
    with pytest.raises(ConflictError) as caught:
        transitions.with_pairs_added(document(), [], pairs)
    assert str(caught.value) == text


def test_the_same_volume_of_two_primaries_makes_two_pairs() -> None:
    after = transitions.with_pairs_added(document(), [], [("p2", "a", "sc")])
    assert [(pair.source, pair.primary_volume) for pair in after.pairs] == [(0, "a"), (1, "b"), (1, "a")]


def test_a_primary_named_again_gets_its_new_address_and_a_new_one_follows() -> None:
    given = [SourceDocument(name="p2", address="unix:/n"), SourceDocument(name="p3", address="unix:/p3")]
    after = transitions.with_pairs_added(document(), given, [("p3", "c", "sc")])
    assert [(source.name, source.address) for source in after.sources] == [
        ("p1", "unix:/p1"),
        ("p2", "unix:/n"),
        ("p3", "unix:/p3"),
    ]
    assert after.pairs[-1].source == 2
