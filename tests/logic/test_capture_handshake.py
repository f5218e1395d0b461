"""Who may pull a session: every branch of the decision on Hello."""

from __future__ import annotations

import itertools

import pytest

from isochrone.capture.document import CaptureDocument
from isochrone.capture.handshake import Accept, StreamPosition, decide_hello
from isochrone.link.messages import PROTOCOL_VERSION, Hello, RefusalCode, Refused
from support.cores import MOVER_ID, PRIMARY_IDS, SESSION_ID, hello
from support.store import TRACK

NO_STREAM = StreamPosition("", 0)
STREAM = "cc" * 16


def known(*, epoch: int = 3, hardened_record_ns: int = 0, session_id: str = SESSION_ID) -> CaptureDocument:
    return CaptureDocument(
        session_id=session_id,
        session_name="s",
        epoch=epoch,
        mover_id=MOVER_ID,
        mover_name="mover",
        hardened_record_ns=hardened_record_ns,
    )


def decide(
    greeting: Hello,
    session: CaptureDocument | None = None,
    *,
    same_name: CaptureDocument | None = None,
    position: StreamPosition = NO_STREAM,
    is_mover_here: bool = False,
) -> Accept | Refused:
    return decide_hello(
        greeting,
        session,
        same_name,
        position,
        TRACK,
        controller_id=PRIMARY_IDS[0],
        is_mover_here=is_mover_here,
    )


def accepted(greeting: Hello, session: CaptureDocument, position: StreamPosition = NO_STREAM) -> Accept:
    verdict = decide(greeting, session, position=position)
    assert isinstance(verdict, Accept)
    return verdict


@pytest.mark.parametrize(
    ("greeting", "code", "cure"),
    [
        (hello(epoch=3, protocol_version=PROTOCOL_VERSION + 1), RefusalCode.VERSION, "same release"),
        (hello(epoch=3, track_size_bytes=2 * TRACK), RefusalCode.TRACK_SIZE, "create one of the pools"),
        (hello(epoch=3, mover_id="ee" * 16), RefusalCode.SESSION_IN_USE, "pulled by controller mover"),
        (hello(epoch=2), RefusalCode.STALE_EPOCH, "older than a recovery"),
    ],
    ids=["version", "track size", "another mover", "an old epoch"],
)
def test_a_mover_that_must_not_pull_is_refused_and_told_why(
    greeting: Hello, code: RefusalCode, cure: str
) -> None:
    verdict = decide(greeting, known())
    assert isinstance(verdict, Refused)
    assert verdict.code is code
    assert cure in verdict.text


def test_a_refusal_of_a_known_session_names_its_epoch() -> None:
    for greeting in (hello(epoch=2), hello(mover_id="ee" * 16)):
        verdict = decide(greeting, known())
        assert isinstance(verdict, Refused)
        assert verdict.epoch == 3


def test_a_name_that_another_session_bears_here_is_refused_also_for_a_new_session() -> None:
    other = known(session_id="dd" * 16)
    for session in (None, known()):
        verdict = decide(hello(epoch=3), session, same_name=other)
        assert isinstance(verdict, Refused)
        assert verdict.code is RefusalCode.SESSION_IN_USE
        assert "isochrone session delete s" in verdict.text


def test_a_session_heard_of_for_the_first_time_begins_with_what_hello_says() -> None:
    verdict = decide(hello(epoch=7, session_name="orders"))
    assert isinstance(verdict, Accept)
    assert (verdict.continues, verdict.lost_history) == (False, False)
    document = verdict.document
    assert (document.session_id, document.session_name, document.epoch) == (SESSION_ID, "orders", 7)
    assert (document.mover_id, document.mover_name, document.volumes) == (MOVER_ID, "mover", ())


def test_a_newer_epoch_ends_the_session_here_and_keeps_the_rest() -> None:
    document = known(hardened_record_ns=5).changed(volumes=(1, 2), suspended=True, reason="x")
    verdict = accepted(hello(epoch=9, received_through_ns=5), document)
    assert verdict.fences
    assert verdict.document == document.changed(epoch=9, ended=True, suspended=False, reason="")
    again = accepted(hello(epoch=9), verdict.document)
    assert (again.fences, again.continues, again.document) == (False, False, verdict.document)


def test_a_mover_that_means_another_controller_is_refused_before_anything_is_remembered() -> None:
    verdict = decide(hello(controller_id="ee" * 16))
    assert isinstance(verdict, Refused)
    assert verdict.code is RefusalCode.WRONG_CONTROLLER
    assert "correct the address" in verdict.text
    assert isinstance(decide(hello(controller_id=PRIMARY_IDS[0])), Accept)


def test_a_controller_that_pulls_the_session_itself_feeds_no_mover_of_it() -> None:
    verdict = decide(hello(epoch=9), known(), is_mover_here=True)
    assert isinstance(verdict, Refused)
    assert "isochrone session delete s" in verdict.text


def test_a_site_in_service_takes_an_old_primary_as_its_mover_under_a_newer_epoch_only() -> None:
    heir = "ee" * 16
    serving = known().changed(serving=True, heirs=(heir,))
    refused = decide(hello(epoch=3, mover_id=heir), serving)
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.STALE_EPOCH
    verdict = accepted(hello(epoch=4, mover_id=heir), serving)
    assert (verdict.fences, verdict.document.serving, verdict.document.mover_id) == (False, True, heir)
    assert isinstance(decide(hello(epoch=4, mover_id="dd" * 16), serving), Refused)


@pytest.mark.parametrize(
    ("said", "stream", "received", "dropped", "continues"),
    [
        (STREAM, STREAM, 100, 100, True),
        (STREAM, STREAM, 101, 100, True),
        (STREAM, STREAM, 99, 100, False),
        ("dd" * 16, STREAM, 100, 0, False),
        ("", STREAM, 100, 0, False),
        ("", "", 100, 0, False),
        (STREAM, "", 100, 0, False),
    ],
)
def test_a_stream_continues_only_for_a_mover_of_it_that_lacks_nothing_dropped(
    said: str, stream: str, received: int, dropped: int, continues: bool
) -> None:
    greeting = hello(epoch=3, incarnation=said, received_through_ns=received)
    assert accepted(greeting, known(), StreamPosition(stream, dropped)).continues is continues


@pytest.mark.parametrize(
    ("received", "hardened", "dropped", "lost"),
    [(0, 0, 0, False), (50, 50, 0, False), (49, 50, 0, True), (50, 50, 60, True), (60, 50, 60, False)],
)
def test_a_mover_that_lacks_what_it_had_hardened_has_lost_history(
    received: int, hardened: int, dropped: int, lost: bool
) -> None:
    greeting = hello(epoch=3, incarnation=STREAM, received_through_ns=received)
    session = known(hardened_record_ns=hardened)
    assert accepted(greeting, session, StreamPosition(STREAM, dropped)).lost_history is lost


def test_a_stream_never_continues_over_lost_history() -> None:
    for received, hardened, dropped in itertools.product(range(4), repeat=3):
        greeting = hello(epoch=3, incarnation=STREAM, received_through_ns=received)
        verdict = accepted(greeting, known(hardened_record_ns=hardened), StreamPosition(STREAM, dropped))
        assert not (verdict.continues and verdict.lost_history), (received, hardened, dropped)
