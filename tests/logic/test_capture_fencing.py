"""A primary that is fenced, what it tells of its writes, and how it becomes the primary again."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.capture.document import CaptureState
from isochrone.link.messages import (
    Ack,
    Appoint,
    Appointed,
    Configure,
    Fence,
    Fenced,
    FencedVolume,
    Marked,
    Marks,
    Message,
    RefusalCode,
    Refused,
    Resume,
    Suspend,
    Unquiesce,
    WantedVolume,
    Welcome,
)
from isochrone.model.errors import ConflictError
from isochrone.model.policy import SessionPolicy
from support.cores import SECOND_NS, SESSION_ID, WINDOW_OPEN, PrimarySite, hello
from support.store import run


def streaming() -> PrimarySite:
    """A primary whose volume "a" is copied, hardened and unmarked; its link is number 1, epoch 1."""
    site = PrimarySite()
    site.write("a", 0, 1, 2)
    stream = site.open_stream()
    replica = site.copied()
    stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
    site.tick()
    assert not site.marked()
    return site


def greet(site: PrimarySite, link: int, epoch: int) -> Message:
    site.links.link_opened(link)
    (answer,) = site.say(link, hello(epoch=epoch))
    return answer


def fenced(epoch: int = 2) -> tuple[PrimarySite, int]:
    """A primary that wrote track 5 after T, and was then fenced on link 2; returns T too."""
    site = streaming()
    recovered_ns = site.clock()
    site.write("a", 5, 9)
    greet(site, 2, epoch)
    site.say(2, Fence(epoch, recovered_ns, ["a"], ["a-copy"]))
    return site, recovered_ns


def test_the_first_word_of_a_newer_epoch_is_a_fence_in_itself() -> None:
    site = streaming()
    site.write("a", 5, 9)
    answer = greet(site, 2, 2)
    assert isinstance(answer, Welcome)
    assert (answer.awaits_appointment, answer.continues, answer.epoch) == (True, False, 2)
    with pytest.raises(ConflictError, match="under epoch 2"):
        site.write("a", 6, 1)
    assert site.marked() == {5}
    site.restart()
    assert site.primary.streams[SESSION_ID].state is CaptureState.ENDED


OLD_WORDS: list[Message] = [
    Ack(1 << 60, WINDOW_OPEN, 1 << 60),
    Configure(2, [WantedVolume("a", True)], SessionPolicy()),
    Suspend("late"),
    Resume(),
    Unquiesce(),
    Fence(1, 1),
    Marks("a", [0, 1]),
    Appoint(1),
]


@pytest.mark.parametrize("message", OLD_WORDS, ids=lambda m: type(m).__name__)
def test_words_on_a_link_of_an_older_epoch_are_refused_and_change_nothing(message: Message) -> None:
    site = streaming()
    site.write("a", 5, 9)
    greet(site, 2, 2)
    before = site.primary.streams[SESSION_ID].document
    (refused,) = site.say(1, message)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.epoch) == (RefusalCode.STALE_EPOCH, 2)
    assert "a recovery has happened since" in refused.text
    assert 1 in site.closed
    stream = site.primary.streams[SESSION_ID]
    assert (stream.document, stream.link, site.marked()) == (before, 2, {5})


def test_the_answer_to_a_fence_tells_the_last_write_and_what_is_marked() -> None:
    site = streaming()
    before_ns = site.clock()
    site.write("a", 5, 9, 9)
    after_ns = site.clock()
    greet(site, 2, 2)
    (answer,) = site.say(2, Fence(2, before_ns, ["a"], ["a-copy"]))
    assert isinstance(answer, Fenced)
    assert answer.volumes == [FencedVolume("a", 2)]
    assert before_ns < answer.last_write_ns < after_ns + 10
    assert site.primary.streams[SESSION_ID].document.partners == {"a": "a-copy"}


def test_nothing_written_since_is_told_as_such_however_long_ago_it_is() -> None:
    site = streaming()
    site.write("a", 5, 9)
    site.clock.advance(SECOND_NS)
    site.tick()
    recovered_ns = site.primary.stamper.promise()
    greet(site, 2, 2)
    (answer,) = site.say(2, Fence(2, recovered_ns, ["a"], ["a"]))
    assert isinstance(answer, Fenced)
    assert 0 < answer.last_write_ns < recovered_ns


def test_the_time_of_the_last_write_survives_a_kill() -> None:
    site = streaming()
    before_ns = site.clock()
    site.write("a", 5, 9)
    site.tick()
    last_ns = site.primary.streams[SESSION_ID].last_write_ns
    assert last_ns > before_ns
    site.restart()
    assert site.primary.streams[SESSION_ID].last_write_ns == last_ns


def test_a_write_that_a_kill_followed_at_once_is_not_dated_too_early() -> None:
    site = streaming()
    site.tick()
    before_ns = site.clock()
    site.write("a", 5, 9)
    site.restart()
    assert site.primary.streams[SESSION_ID].last_write_ns > before_ns


def test_after_a_power_loss_the_last_write_is_as_late_as_it_may_have_been() -> None:
    site = streaming()
    lost_ns = site.clock()
    run(site.pool.sync())
    site.disk.power_loss(Random(1))
    site.start()
    assert site.primary.streams[SESSION_ID].last_write_ns > lost_ns


def test_marks_of_the_other_side_join_and_the_appointed_primary_copies_both() -> None:
    site, _ = fenced()
    assert site.say(2, Marks("a", [1, 2, 9, 1])) == [Marked()]
    assert site.say(2, Appoint(2)) == [Appointed(2)]
    assert site.marked() == {1, 2, 5, 9}
    site.write("a", 7, 7)
    answer = greet(site, 3, 2)
    assert isinstance(answer, Welcome)
    assert not answer.awaits_appointment
    site.say(3, Configure(1, [WantedVolume("a", True)], SessionPolicy()))
    site.say(3, Ack(0, WINDOW_OPEN, 0))
    replica = site.copied(3)
    assert {track for _, track in replica.tracks} == {1, 2, 5, 7, 9}


def test_an_appointment_survives_a_kill_and_may_be_repeated() -> None:
    site, _ = fenced()
    site.say(2, Marks("a", [3, 1]))
    site.restart()
    assert site.marked() == {3, 5}
    greet(site, 2, 2)
    assert site.say(2, Appoint(2)) == [Appointed(2)]
    assert site.say(2, Appoint(2)) == [Appointed(2)]
    site.restart()
    assert site.primary.streams[SESSION_ID].state is CaptureState.MARKING
    assert site.marked() == {3, 5}


def test_no_stamp_after_an_appointment_is_older_than_the_last_common_time() -> None:
    site = streaming()
    future_ns = site.clock() + 100 * SECOND_NS
    greet(site, 2, 2)
    site.say(2, Fence(2, future_ns, ["a"], ["a"]))
    site.say(2, Appoint(2))
    assert site.primary.stamper.stamp() > future_ns
    site.restart()
    assert site.primary.stamper.stamp() > future_ns


@pytest.mark.parametrize("runs", [[0], [15, 2], [3, 0], [1 << 31, 1]])
def test_marks_of_tracks_that_the_volume_does_not_have_are_refused(runs: list[int]) -> None:
    site, _ = fenced()
    (refused,) = site.say(2, Marks("a", runs))
    assert isinstance(refused, Refused)
    assert "one size" in refused.text
    assert site.marked() == {5}


def test_marks_of_a_volume_that_is_not_captured_are_taken_and_of_no_effect() -> None:
    site, _ = fenced()
    assert site.say(2, Marks("gone", [0, 1])) == [Marked()]


@pytest.mark.parametrize("message", [Marks("a", [0, 1]), Appoint(3)], ids=["Marks", "Appoint"])
def test_a_running_primary_takes_no_marks_and_no_appointment_to_come(message: Message) -> None:
    site = streaming()
    (refused,) = site.say(1, message)
    assert isinstance(refused, Refused)
    assert not site.marked()


def test_marks_are_kept_while_the_committed_image_may_still_be_gone_back_to() -> None:
    """A recovery during a resync drops what was hardened since; the marks must cover it."""
    site = streaming()
    stream = site.primary.streams[SESSION_ID]
    committed_ns = stream.consistency_ns
    site.write("a", 5, 9)
    for _ in range(3):
        site.tick(advance_ns=3 * SECOND_NS)
        stream.acknowledged(Ack(site.clock(), WINDOW_OPEN, committed_ns))
    assert site.marked() == {5}
    for _ in range(3):
        site.tick(advance_ns=3 * SECOND_NS)
        stream.acknowledged(Ack(site.clock(), WINDOW_OPEN, site.clock()))
    site.tick()
    assert not site.marked()
