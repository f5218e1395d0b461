"""Why a session does not move on is said in words, for every cause, and nothing is said when nothing is wrong."""

from __future__ import annotations

import pytest

from isochrone.link.messages import Configured, RecordSet, Suspended, VolumeInfo, VolumeRefusal, Welcome
from isochrone.model.records import RecordKind
from isochrone.model.states import PairState, SessionState
from isochrone.session.contact import ContactState
from isochrone.session.explain import blocked_on, image_incomplete_because, pair_state
from support.cores import PRIMARY_IDS, SECOND_NS, SecondarySite, new_document
from support.store import TRACK, records, tracks

STREAM = "cc" * 16


def streaming(pool_tracks: int = 256, refused: tuple[VolumeRefusal, ...] = ()) -> SecondarySite:
    site = SecondarySite(pool_tracks=pool_tracks)
    site.greet()
    site.say(Welcome(PRIMARY_IDS[0], "p1", STREAM, 1, 0, False, False))
    infos = [] if refused else [VolumeInfo("a", 7, 16 * TRACK, 16)]
    site.say(Configured(1, infos, list(refused)))
    return site


def why(site: SecondarySite) -> str:
    return blocked_on(site.session, site.clock.ns)


def test_a_streaming_session_is_blocked_on_nothing() -> None:
    assert why(streaming()) == ""


def test_a_suspended_session_says_by_what() -> None:
    site = streaming()
    site.session.suspend("maintenance")
    assert why(site) == "suspended: maintenance"


@pytest.mark.parametrize("state", [SessionState.RECOVERY, SessionState.ENDED])
def test_a_session_that_is_over_waits_for_nothing(state: SessionState) -> None:
    site = streaming()
    site.session.remember(site.session.document.changed(state=state, hold_floor_ns=5))
    site.links.link_lost(0, "cut")
    assert why(site) == ""


def test_a_primary_not_yet_reached_is_named_with_the_time_it_took_so_far() -> None:
    site = SecondarySite()
    site.clock.advance(2 * SECOND_NS)
    assert why(site) == "primary p1 is not streaming for 2.0 s: not connected yet"


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (ContactState.DIALING, "dialing"),
        (ContactState.GREETED, "greeted"),
        (ContactState.WELCOMED, "welcomed"),
    ],
)
def test_how_far_a_contact_has_come_is_said(state: ContactState, word: str) -> None:
    site = streaming()
    site.session.contacts[0].enter(state, site.clock())
    assert why(site).endswith(f": {word}")


def test_a_lost_link_says_why() -> None:
    site = streaming()
    site.links.link_lost(0, "connection reset")
    assert "not streaming" in why(site)
    assert "connection reset" in why(site)


def test_a_suspended_primary_is_named() -> None:
    site = streaming()
    site.session.suspend("x")
    site.say(Suspended("x", 0))
    site.session.resume()
    assert "primary p1 is suspended" in why(site)


def test_a_refused_volume_is_named_with_the_reason() -> None:
    site = streaming(refused=(VolumeRefusal("a", "no volume 'a' here"),))
    assert why(site) == "primary p1, volume a: no volume 'a' here"


def test_a_full_pool_is_said() -> None:
    site = streaming(pool_tracks=4)
    rows = records((5, 7, 0, 5, RecordKind.DATA))
    site.say(RecordSet(1, 5, rows.tobytes(), tracks(1, 2, 3, 4, 5)))
    assert "received writes cannot be stored" in why(site)
    assert "of 4 are free" in why(site)


def test_a_resync_says_that_the_last_image_stays_in_service() -> None:
    site = streaming()
    site.session.remember(site.session.document.changed(hold_floor_ns=5))
    assert "last complete image stays in service" in why(site)


def test_a_switchover_says_that_writes_are_refused() -> None:
    site = streaming()
    pair = site.session.document.pairs[0].model_copy(update={"complete": True})
    site.session.remember(site.session.document.with_pairs({"a": pair}))
    site.session.recover(drain=True, allow_incomplete=False)
    assert "the primaries refuse writes until everything acknowledged is here" in why(site)


def test_every_cause_is_said_at_once() -> None:
    site = streaming()
    site.session.remember(site.session.document.changed(hold_floor_ns=5))
    site.session.mover.full_reason = "no room"
    site.links.link_lost(0, "cut")
    reasons = why(site).split("; ")
    assert len(reasons) == 3
    assert [word in why(site) for word in ("no room", "cut", "resync")] == [True] * 3


def test_a_primary_without_a_pair_keeps_nothing_waiting() -> None:
    site = SecondarySite(document=new_document(primaries=("p1", "p2")))
    site.greet()
    site.say(Welcome(PRIMARY_IDS[0], "p1", STREAM, 1, 0, False, False))
    site.say(Configured(1, [VolumeInfo("a", 7, 16 * TRACK, 0)], []))
    assert why(site) == ""


def test_the_image_is_incomplete_because_of_the_pairs_that_never_were_duplex() -> None:
    site = SecondarySite(document=new_document(pairs=((0, "a", "sa"), (0, "b", "sb"))))
    assert image_incomplete_because(site.session) == "the first copy of sa, sb is not complete"
    pairs = {p.secondary_volume: p.model_copy(update={"complete": True}) for p in site.session.document.pairs}
    site.session.remember(site.session.document.with_pairs({"sa": pairs["sa"]}))
    assert image_incomplete_because(site.session) == "the first copy of sb is not complete"
    site.session.remember(site.session.document.with_pairs(pairs))
    assert image_incomplete_because(site.session) == ""
    site.session.remember(site.session.document.changed(pairs=()))
    assert image_incomplete_because(site.session) == "the session has no pairs"


@pytest.mark.parametrize(
    ("state", "duplex", "shown"),
    [
        (SessionState.ACTIVE, True, PairState.DUPLEX),
        (SessionState.ACTIVE, False, PairState.COPY),
        (SessionState.SUSPENDED, True, PairState.SUSPENDED),
        (SessionState.SUSPENDED, False, PairState.SUSPENDED),
        (SessionState.RECOVERY, True, PairState.SIMPLEX),
        (SessionState.ENDED, True, PairState.SIMPLEX),
    ],
)
def test_the_state_of_a_pair_follows_its_session(state: SessionState, duplex: bool, shown: PairState) -> None:
    site = streaming()
    pair = site.session.document.pairs[0].model_copy(update={"duplex": duplex})
    site.session.remember(site.session.document.with_pairs({"a": pair}).changed(state=state))
    assert pair_state(site.session, pair) is shown


def test_a_pair_whose_copy_nobody_has_told_of_is_pending() -> None:
    site = SecondarySite()
    assert pair_state(site.session, site.session.document.pairs[0]) is PairState.PENDING
