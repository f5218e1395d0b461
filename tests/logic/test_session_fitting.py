"""Pairs whose secondary does not fit: they stand aside with a reason, all others go on, and they are asked for again."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.link.messages import (
    Compare,
    Compared,
    Configure,
    Configured,
    Message,
    RecordSet,
    VolumeInfo,
    Welcome,
)
from isochrone.model.errors import ConflictError
from isochrone.model.records import RecordKind
from isochrone.model.states import PairState
from isochrone.session.contact import ContactState
from isochrone.session.document import PairDocument
from isochrone.session.explain import blocked_on, pair_state
from support.cores import (
    PRIMARY_IDS,
    SECOND_NS,
    SESSION_ID,
    Clock,
    PrimarySite,
    SecondarySite,
    Wire,
    images_equal,
    new_document,
)
from support.store import TRACK, records, tags, tracks


class Pairs:
    """A primary with volumes a and b that hold data, both to be replicated; `b` does not fit at the secondary."""

    def __init__(self, size_tracks: int, *, holds_data: bool) -> None:
        clock = Clock()
        self.primary = PrimarySite(clock, volumes={"a": 16, "b": 16})
        self.primary.write("a", 0, 1, 2, 3)
        self.primary.write("b", 0, 4, 5, 6)
        self.secondary = SecondarySite(clock, document=new_document(pairs=[(0, "a", "a"), (0, "b", "b")]))
        volume = self.secondary.pool.create_volume("b", size_tracks * TRACK)
        if holds_data:
            volume.write(0, tracks(9))
        self.wire = Wire(self.secondary, self.primary)

    @property
    def configures_sent(self) -> int:
        return self.secondary.session.contacts[0].configures_sent

    def is_duplex(self, *volumes: str) -> bool:
        pairs = self.secondary.session.document.pairs
        return all(pair.duplex for pair in pairs if pair.secondary_volume in volumes)

    def captured(self) -> set[str]:
        (stream,) = self.primary.primary.streams.values()
        return {captured.volume.name for captured in stream.volumes.values()}


MISFITS = [(8, False, "resize one of them"), (16, True, "holds data already")]
IDS = ["another size", "data"]


@pytest.mark.parametrize(("size_tracks", "holds_data", "text"), MISFITS, ids=IDS)
def test_a_pair_that_does_not_fit_stands_aside_untouched_and_the_others_of_its_primary_go_on(
    size_tracks: int, holds_data: bool, text: str
) -> None:
    site = Pairs(size_tracks, holds_data=holds_data)
    site.wire.run_until(lambda: site.is_duplex("a"))
    site.primary.write("a", 5, 7)
    site.primary.write("b", 5, 7)
    site.wire.steps(20)
    session = site.secondary.session
    contact = session.contacts[0]
    assert (contact.state, contact.configures_sent) == (ContactState.STREAMING, 2)
    assert text in contact.refused["b"]
    assert images_equal(site.primary, site.secondary, "a")
    assert pair_state(session, session.document.pairs[1]) is PairState.PENDING
    assert not session.document.pairs[1].is_confirmed
    assert tags(site.secondary.pool, "b", 1) == [9 if holds_data else 0]
    assert site.captured() == {"a"}


def test_a_secondary_that_was_deleted_is_created_and_copied_within_a_second() -> None:
    site = Pairs(16, holds_data=True)
    site.wire.run_until(lambda: site.is_duplex("a"))
    site.secondary.pool.delete_volume("b")
    site.wire.run_until(lambda: site.is_duplex("a", "b"), steps_max=130)
    assert images_equal(site.primary, site.secondary, "a", "b")
    assert site.secondary.session.contacts[0].refused == {}


def test_a_secondary_that_was_resized_is_copied_within_a_second_and_not_before() -> None:
    site = Pairs(8, holds_data=False)
    site.wire.run_until(lambda: site.is_duplex("a"))
    site.wire.steps(300)
    assert site.configures_sent == 2
    site.secondary.pool.resize_volume("b", 12 * TRACK)  # another misfit: asked for once more
    site.wire.steps(300)
    assert site.configures_sent == 4
    assert "has 49152 bytes" in site.secondary.session.contacts[0].refused["b"]
    site.secondary.pool.resize_volume("b", 16 * TRACK)
    site.wire.run_until(lambda: site.is_duplex("a", "b"), steps_max=130)
    assert images_equal(site.primary, site.secondary, "a", "b")


def test_a_pair_is_asked_for_again_at_a_slow_interval_because_its_primary_may_fit_now() -> None:
    site = Pairs(8, holds_data=False)
    site.wire.run_until(lambda: site.is_duplex("a"))
    site.primary.pool.resize_volume("b", 8 * TRACK)
    site.wire.step()
    assert site.configures_sent == 2
    for _ in range(62):
        site.wire.step(SECOND_NS)
    site.wire.run_until(lambda: site.is_duplex("a", "b"))
    assert images_equal(site.primary, site.secondary, "a", "b")


def test_a_pair_that_goes_on_not_fitting_costs_two_configures_a_minute() -> None:
    site = Pairs(8, holds_data=False)
    site.wire.run_until(lambda: site.is_duplex("a"))
    for _ in range(600):
        site.wire.step(SECOND_NS)
    assert 2 * 9 <= site.configures_sent <= 2 * 11
    assert site.is_duplex("a")


def test_a_change_of_the_session_asks_for_it_at_once() -> None:
    site = Pairs(8, holds_data=False)
    site.wire.run_until(lambda: site.is_duplex("a"))
    site.secondary.session.remove_pairs(["b"])
    site.wire.run_until(lambda: len(site.secondary.session.document.pairs) == 1)
    site.secondary.session.add_pairs([], [("p1", "b", "b2")])
    site.wire.run_until(lambda: site.is_duplex("a", "b2"), steps_max=40)
    assert site.secondary.pool.volumes["b2"].read(0, TRACK) == site.primary.pool.volumes["b"].read(0, TRACK)
    assert site.secondary.session.contacts[0].refused == {}


def test_a_new_link_finds_the_misfit_anew_and_the_others_lose_nothing() -> None:
    site = Pairs(8, holds_data=False)
    site.wire.run_until(lambda: site.is_duplex("a"))
    site.wire.cut()
    site.primary.write("a", 6, 8)
    site.wire.run_until(lambda: site.secondary.session.contacts[0].is_up)
    site.wire.steps(20)
    assert site.configures_sent == 2
    assert site.is_duplex("a")
    assert images_equal(site.primary, site.secondary, "a")


def test_a_pending_suspension_is_not_crossed_by_a_pair_that_comes_back() -> None:
    site = Pairs(16, holds_data=True)
    site.wire.run_until(lambda: site.is_duplex("a"))
    session = site.secondary.session
    session.suspension.suspend_at(site.secondary.clock() + 5 * SECOND_NS, "later")
    site.wire.steps(3)
    sent = site.configures_sent
    site.secondary.pool.delete_volume("b")
    site.wire.steps(300)
    assert site.configures_sent == sent
    site.wire.steps(400)
    session.resume()
    site.wire.run_until(lambda: site.is_duplex("a", "b"), steps_max=400)
    assert images_equal(site.primary, site.secondary, "a", "b")


@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens_meanwhile_the_others_go_on_and_the_pair_is_whole_once_it_fits(seed: int) -> None:
    rng = Random(seed)
    site = Pairs(8, holds_data=False)
    secondary, wire = site.secondary, site.wire

    def exchange() -> None:
        """Delete or resize the secondary, or make another of a wrong size; never one that the session has."""
        pool, pair = secondary.pool, secondary.session.document.pairs[1]
        if pair.is_confirmed:
            return
        if "b" not in pool.volumes:
            pool.create_volume("b", rng.choice((4, 12)) * TRACK)
        elif rng.random() < 0.5:
            pool.resize_volume("b", rng.choice((4, 12)) * TRACK)
        elif rng.random() < 0.3:
            pool.delete_volume("b")

    for _ in range(60):
        volume, tag = rng.choice("ab"), rng.randrange(1, 250)
        site.primary.write(volume, rng.randrange(16), tag)
        match rng.randrange(12):
            case 0:
                wire.cut()
            case 1:
                wire.restart_primary()
            case 2:
                wire.restart_secondary()
            case 3 | 4 | 5:
                exchange()
            case 6:
                secondary.session.reconfigure()
            case 7:
                secondary.clock.advance(SECOND_NS // 2)
            case 8:
                wire.deliver()
            case _:
                wire.steps(rng.randrange(4))
    if not secondary.session.document.pairs[1].is_confirmed and "b" in secondary.pool.volumes:
        wire.run_until(lambda: site.is_duplex("a"), steps_max=800)
        secondary.pool.delete_volume("b")
    wire.run_until(lambda: site.is_duplex("a", "b"), steps_max=800)
    wire.steps(20)
    assert images_equal(site.primary, secondary, "a", "b")


# A pair that was confirmed is set aside


class Confirmed(Pairs):
    """Both pairs were DUPLEX; then the session was deleted at the primary, and volume b exchanged or deleted there."""

    def __init__(self, size_tracks: int) -> None:
        """`size_tracks` of the new volume b, 0 for none."""
        super().__init__(16, holds_data=False)
        self.wire.run_until(lambda: self.is_duplex("a", "b"))
        self.wire.steps(3)
        self.wire.refuses.add(0)
        self.wire.cut()
        self.form_ns = self.secondary.session.mover.form_ns
        self.primary.primary.delete_stream(SESSION_ID)
        self.primary.pool.delete_volume("b")
        if size_tracks:
            self.primary.pool.create_volume("b", size_tracks * TRACK)
            self.primary.write("b", 0, 77)
        self.wire.refuses.clear()
        self.wire.run_until(lambda: self.pair.suspended and self.is_duplex("a"))

    @property
    def pair(self) -> PairDocument:
        return self.secondary.session.document.pairs[1]


EXCHANGED = [(16, "created anew"), (8, "created anew"), (0, "no volume 'b' here")]


@pytest.mark.parametrize(("size_tracks", "text"), EXCHANGED)
def test_a_confirmed_pair_whose_volume_was_exchanged_is_suspended_by_itself_and_the_others_go_on(
    size_tracks: int, text: str
) -> None:
    site = Confirmed(size_tracks)
    site.primary.write("a", 5, 7)
    site.wire.steps(40)
    session, contact = site.secondary.session, site.secondary.session.contacts[0]
    assert images_equal(site.primary, site.secondary, "a")
    assert tags(site.secondary.pool, "b", 4) == [4, 5, 6, 0]
    assert pair_state(session, site.pair) is PairState.SUSPENDED
    assert text in site.pair.suspend_reason
    assert text in blocked_on(session, session.now_ns())
    assert contact.state is ContactState.STREAMING
    assert contact.configures_sent <= 3
    assert session.mover.consistency_ns > site.form_ns
    assert site.pair.image_time_ns(session.mover.consistency_ns) <= site.form_ns
    with pytest.raises(ConflictError, match="was suspended, and its image is of an earlier time"):
        session.recover(drain=False, allow_incomplete=False)


def test_a_pair_that_was_set_aside_costs_nothing_more_over_restarts_of_either_side() -> None:
    site = Confirmed(16)
    for restart in (site.wire.restart_primary, site.wire.restart_secondary, site.wire.cut):
        restart()
        site.wire.run_until(lambda: site.is_duplex("a") and site.secondary.session.contacts[0].is_up)
        site.wire.steps(30)
        assert site.configures_sent <= 2
        assert pair_state(site.secondary.session, site.pair) is PairState.SUSPENDED
        assert tags(site.secondary.pool, "b", 4) == [4, 5, 6, 0]


def test_a_pair_that_was_set_aside_is_not_resumed_and_leaves_by_command() -> None:
    site = Confirmed(16)
    with pytest.raises(ConflictError, match="remove the pair and add it again"):
        site.secondary.session.pair_suspension.resume(["b"])
    site.secondary.session.remove_pairs(["b"])
    site.wire.run_until(lambda: len(site.secondary.session.document.pairs) == 1)
    site.secondary.session.add_pairs([], [("p1", "b", "b2")])
    site.wire.run_until(lambda: site.is_duplex("a", "b2"))
    assert tags(site.secondary.pool, "b2", 2) == [77, 0]
    assert tags(site.secondary.pool, "b", 4) == [4, 5, 6, 0]


def test_a_resume_while_the_volume_is_still_missing_changes_nothing() -> None:
    site = Confirmed(0)
    site.secondary.session.pair_suspension.resume(["b"])
    site.wire.steps(30)
    assert pair_state(site.secondary.session, site.pair) is PairState.SUSPENDED
    assert tags(site.secondary.pool, "b", 4) == [4, 5, 6, 0]
    assert site.is_duplex("a")


# What the primary sends before it has heard


def answered(number: int = 1) -> Configured:
    infos = [VolumeInfo("a", 7, 16 * TRACK, 16), VolumeInfo("b", 8, 16 * TRACK, 16)]
    return Configured(number, infos, [])


def misfit_site() -> SecondarySite:
    """The primary has answered the first Configure; b does not fit, and it has not heard so yet."""
    site = SecondarySite(document=new_document(pairs=[(0, "a", "a"), (0, "b", "b")]))
    site.pool.create_volume("b", 8 * TRACK)
    site.greet()
    site.say(Welcome(PRIMARY_IDS[0], "p1", "cc" * 16, 1, 0, False, False, ""))
    return site


def test_records_of_it_that_are_on_their_way_are_dropped_and_those_of_others_taken() -> None:
    site = misfit_site()
    site.say(answered())
    rows = records(
        (500, 7, 0, 1, RecordKind.DATA), (501, 8, 15, 1, RecordKind.DATA), (502, 7, 1, 1, RecordKind.DATA)
    )
    site.say(RecordSet(1, 600, rows.tobytes(), tracks(1, 2, 3)))
    assert site.session.contacts[0].state is ContactState.STREAMING
    assert site.pool.staged_count(1) == 2
    assert site.session.mover.sources[0].received_ns == 600


def test_a_comparison_of_it_that_is_on_its_way_is_answered() -> None:
    site = misfit_site()
    site.say(answered())
    answers: list[Message] = site.say(Compare(4, 8, 0, 1, ((0, 2),), b"x" * 32))
    assert answers == [Compared(4, (True, True))]


def test_a_configure_without_it_follows_the_answer_and_names_the_others() -> None:
    site = misfit_site()
    (configure,) = [message for message in site.say(answered()) if isinstance(message, Configure)]
    assert [volume.name for volume in configure.volumes] == ["a"]
