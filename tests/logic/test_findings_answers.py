"""What a primary answers: durably where the other site goes on without it, and never by dying."""

from __future__ import annotations

import errno

import pytest

from isochrone.capture.actions import SendDurably, SendMessage
from isochrone.link.messages import (
    Configure,
    Configured,
    Fence,
    Fenced,
    Forget,
    Forgotten,
    Message,
    Quiesce,
    Quiesced,
    RefusalCode,
    Refused,
    WantedVolume,
)
from isochrone.model.policy import SessionPolicy
from isochrone.testing.sim_disk import fail_nth
from support.cores import SESSION_ID, PrimarySite, hello


@pytest.mark.parametrize(
    ("asked", "answer"), [(Fence(2, 5), Fenced), (Quiesce(), Quiesced), (Forget(), Forgotten)]
)
def test_an_answer_that_frees_the_other_site_to_go_on_waits_until_it_is_durable(
    asked: Message, answer: type[Message]
) -> None:
    site = PrimarySite()
    site.open_stream()
    site.links.link_received(1, asked)
    actions = site.primary.take_actions()
    assert [type(a.message) for a in actions if isinstance(a, SendDurably)] == [answer]
    assert not [a for a in actions if isinstance(a, SendMessage) and isinstance(a.message, answer)]


def test_what_is_said_between_forget_and_its_answer_is_not_refused() -> None:
    site = PrimarySite()
    site.open_stream()
    site.say(1, Forget())
    assert site.say(1, Quiesce()) == []
    assert site.closed == {}
    site.links.link_lost(1)
    site.open_stream(link=1)
    assert SESSION_ID in site.primary.streams


def test_a_volume_whose_change_map_finds_no_room_is_refused_and_the_others_go_on() -> None:
    site = PrimarySite(volumes={"a": 16, "b": 16})
    site.open_stream(("a",))
    site.disk.hook = fail_nth(1, errno.ENOSPC, kind="allocate")
    (answer,) = site.say(1, Configure(1, [WantedVolume("a"), WantedVolume("b")], SessionPolicy()))
    assert isinstance(answer, Configured)
    assert [info.name for info in answer.volumes] == ["a"]
    assert [refusal.name for refusal in answer.refused] == ["b"]
    (answer,) = site.say(1, Configure(1, [WantedVolume("a", True), WantedVolume("b")], SessionPolicy()))
    assert isinstance(answer, Configured)
    assert [info.name for info in answer.volumes] == ["a", "b"]


def test_a_message_that_the_device_fails_is_answered_not_raised() -> None:
    site = PrimarySite(volumes={"a": 16, "b": 16})
    site.open_stream(("a", "b"))
    site.disk.hook = fail_nth(1, kind="remove")
    (answer,) = site.say(1, Configure(1, [WantedVolume("a", True)], SessionPolicy()))
    assert isinstance(answer, Refused)
    assert answer.code is RefusalCode.BUSY


def test_a_second_hello_on_a_link_is_refused() -> None:
    site = PrimarySite()
    site.open_stream()
    (answer,) = site.say(1, hello(session_id="77" * 16, session_name="other"))
    assert isinstance(answer, Refused)
    assert list(site.primary.streams) == [SESSION_ID]
