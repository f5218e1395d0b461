"""Contact with one primary: when to dial again, when a link is silent, and what is forgotten with it."""

from __future__ import annotations

import pytest

from isochrone.session.contact import Contact, ContactState
from isochrone.session.gate import commit_limit_ns, copies_are_hardened
from isochrone.session.settings import SessionSettings

SETTINGS = SessionSettings(redial_ns_min=100, redial_ns_max=800, silence_ns_max=1000)


def contact(jitter: float = 1.0) -> Contact:
    return Contact(SETTINGS, lambda: jitter, 0)


def waits(dialled: Contact, attempts: int) -> list[int]:
    """How long each failed attempt keeps the next one back."""
    now, found = 0, []
    for _ in range(attempts):
        assert dialled.should_dial(now)
        dialled.enter(ContactState.DIALING, now)
        assert not dialled.should_dial(now + 10**9)
        dialled.lost("nobody answers", now)
        begun = now
        while not dialled.should_dial(now):
            now += 1
        found.append(now - begun)
    return found


def test_the_first_attempt_is_made_at_once() -> None:
    assert contact().should_dial(0)


def test_the_wait_doubles_up_to_its_limit() -> None:
    assert waits(contact(), 6) == [100, 200, 400, 800, 800, 800]


def test_jitter_spreads_the_wait_over_its_upper_half() -> None:
    assert waits(contact(jitter=0.0), 5) == [50, 100, 200, 400, 400]


def test_only_a_link_that_came_to_stream_starts_the_wait_anew() -> None:
    tried = contact()
    waits(tried, 3)
    tried.enter(ContactState.GREETED, 2000)
    tried.enter(ContactState.WELCOMED, 2000)
    tried.lost("refused", 2000)
    assert not tried.should_dial(2799)
    tried.enter(ContactState.STREAMING, 3000)
    tried.lost("cut", 3000)
    assert tried.should_dial(3100)


@pytest.mark.parametrize(
    ("state", "up", "welcomed"),
    [
        (ContactState.DOWN, False, False),
        (ContactState.DIALING, False, False),
        (ContactState.GREETED, True, False),
        (ContactState.WELCOMED, True, True),
        (ContactState.STREAMING, True, True),
    ],
)
def test_what_can_be_said_depends_on_the_state(state: ContactState, up: bool, welcomed: bool) -> None:
    seen = contact()
    seen.enter(state, 5)
    assert (seen.is_up, seen.is_welcomed, seen.since_ns, seen.heard_ns) == (up, welcomed, 5, 5)


@pytest.mark.parametrize("state", list(ContactState))
@pytest.mark.parametrize("suspended", [False, True])
def test_a_link_is_silent_only_when_words_are_due(state: ContactState, suspended: bool) -> None:
    seen = contact()
    seen.enter(state, 0)
    seen.suspended = suspended
    due = state in (ContactState.GREETED, ContactState.WELCOMED, ContactState.APPOINTING) or (
        state is ContactState.STREAMING and not suspended
    )
    assert not seen.is_silent(1000)
    assert seen.is_silent(1001) is due


def test_with_the_link_all_that_was_told_on_it_is_forgotten_but_for_why_it_broke() -> None:
    seen = contact()
    seen.enter(ContactState.STREAMING, 0)
    assert seen.error == ""
    seen.suspended = True
    seen.resumes_unanswered = 1
    seen.quiesced_ns = 5
    seen.tracks_remaining[1] = 3
    seen.copied_through_ns[1] = 9
    seen.lost("cut", 7)
    assert (seen.state, seen.error, seen.since_ns) == (ContactState.DOWN, "cut", 7)
    assert [seen.suspended, seen.resuming, seen.quiesced_ns is None] == [False, False, True]
    assert (seen.tracks_remaining, seen.copied_through_ns) == ({}, {})


def test_a_suspended_primary_that_was_asked_to_resume_owes_an_answer() -> None:
    seen = contact()
    seen.enter(ContactState.STREAMING, 0)
    seen.suspended = True
    seen.resumes_unanswered = 1
    assert seen.is_silent(1001)


# The commit gate


@pytest.mark.parametrize(
    ("journal", "floor", "limit"), [(50, None, 50), (50, 30, 30), (50, 60, 50), (0, None, 0), (50, 0, 0)]
)
def test_commits_follow_j_but_not_past_the_floor_of_a_hold(
    journal: int, floor: int | None, limit: int
) -> None:
    assert commit_limit_ns(journal, floor) == limit


@pytest.mark.parametrize(
    ("journal", "copied", "hardened"),
    [
        (50, [], True),
        (50, [50], True),
        (50, [51], False),
        (50, [0], False),
        (50, [10, 50], True),
        (50, [10, 0], False),
    ],
)
def test_a_hold_lifts_when_every_last_image_is_known_and_hardened(
    journal: int, copied: list[int], hardened: bool
) -> None:
    assert copies_are_hardened(journal, copied) is hardened
