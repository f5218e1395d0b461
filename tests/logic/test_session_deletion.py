"""Deleting a session: nothing is left here or at the primaries, and those that cannot be reached are waited for or not."""

from __future__ import annotations

from isochrone.link.messages import Forget, Forgotten
from isochrone.model.states import SessionState
from isochrone.session.contact import ContactState
from support.cores import PRIMARY_IDS, SECOND_NS, Clock, PrimarySite, SecondarySite, Wire, new_document
from support.store import tags


class Sites:
    """Two primaries with a DUPLEX pair each."""

    def __init__(self, *, reachable: tuple[int, ...] = (0, 1)) -> None:
        self.clock = Clock()
        self.primaries = [
            PrimarySite(self.clock, identity=identity, name=f"p{number + 1}", volumes={name: 16})
            for number, (identity, name) in enumerate(zip(PRIMARY_IDS, "ab", strict=True))
        ]
        document = new_document(primaries=("p1", "p2"), pairs=((0, "a", "a"), (1, "b", "b")))
        self.secondary = SecondarySite(self.clock, document=document)
        self.wire = Wire(self.secondary, *self.primaries)
        self.wire.refuses = {0, 1} - set(reachable)
        for primary, name in zip(self.primaries, "ab", strict=True):
            primary.write(name, 0, 7)
        self.wire.run_until(
            lambda: all(self.secondary.session.document.pairs[number].duplex for number in reachable)
        )

    def lose(self, source: int) -> None:
        self.wire.refuses.add(source)
        self.wire.cut(source)

    @property
    def is_forgotten(self) -> bool:
        return self.secondary.session.is_forgotten

    def captured(self) -> list[int]:
        return [len(primary.primary.streams) for primary in self.primaries]


def test_a_deleted_session_leaves_nothing_anywhere_and_the_secondaries_keep_what_was_committed() -> None:
    sites = Sites()
    sites.secondary.session.delete(force=False)
    sites.wire.run_until(lambda: sites.is_forgotten)
    assert sites.captured() == [0, 0]
    assert dict(sites.secondary.pool.documents) == {}
    assert sites.secondary.pool.staged_count(1) == 0
    assert (tags(sites.secondary.pool, "a", 1), tags(sites.secondary.pool, "b", 1)) == ([7], [7])


def test_a_primary_that_cannot_be_reached_is_waited_for() -> None:
    sites = Sites()
    sites.lose(1)
    sites.secondary.session.delete(force=False)
    sites.wire.steps(20)
    assert not sites.is_forgotten
    assert sites.captured() == [0, 1]
    assert dict(sites.secondary.pool.documents)
    sites.wire.refuses.clear()
    sites.wire.run_until(lambda: sites.is_forgotten, 1000)
    assert sites.captured() == [0, 0]


def test_with_force_nobody_is_waited_for_and_reachable_primaries_are_told() -> None:
    sites = Sites()
    sites.lose(1)
    sites.secondary.session.delete(force=True)
    assert sites.is_forgotten
    assert dict(sites.secondary.pool.documents) == {}
    assert sites.secondary.take(0) == [Forget()]
    assert sites.secondary.take(1) == []


def test_a_primary_that_never_answered_has_nothing_to_forget() -> None:
    sites = Sites(reachable=(0,))
    sites.secondary.session.delete(force=False)
    sites.wire.run_until(lambda: sites.is_forgotten)
    assert sites.captured() == [0, 0]


def test_a_session_that_nobody_ever_answered_is_deleted_at_once() -> None:
    site = SecondarySite()
    site.session.delete(force=False)
    assert site.session.is_forgotten
    assert dict(site.pool.documents) == {}


def test_an_ended_session_is_deleted_here_and_its_fenced_primaries_keep_refusing_writes() -> None:
    sites = Sites()
    sites.secondary.session.recover(drain=False, allow_incomplete=False)
    sites.secondary.harden()
    sites.wire.run_until(lambda: all(source.fenced for source in sites.secondary.session.document.sources))
    sites.secondary.session.delete(force=False)
    assert sites.is_forgotten
    assert sites.captured() == [1, 1]
    assert sites.primaries[0].primary.write_refusal(1)


def test_a_primary_that_forgot_is_not_called_again_while_the_other_is_waited_for() -> None:
    sites = Sites()
    sites.lose(1)
    sites.secondary.session.delete(force=False)
    sites.wire.steps(3)
    for _ in range(20):
        sites.secondary.tick(10 * SECOND_NS)
        assert set(sites.secondary.dialled) <= {1}
        sites.wire.deliver()
    assert sites.secondary.session.contacts[0].state is ContactState.DOWN


def test_a_deletion_that_finds_the_link_down_says_forget_at_the_next_welcome() -> None:
    sites = Sites()
    sites.wire.cut(0)
    sites.wire.cut(1)
    sites.secondary.session.delete(force=False)
    assert sites.secondary.take(0) == []
    sites.wire.run_until(lambda: sites.is_forgotten, 1000)
    assert sites.captured() == [0, 0]


def test_forgotten_counts_once_also_when_it_is_said_twice() -> None:
    sites = Sites()
    sites.secondary.session.delete(force=False)
    sites.secondary.say(Forgotten(), 0)
    sites.secondary.say(Forgotten(), 0)
    assert not sites.is_forgotten
    sites.secondary.say(Forgotten(), 1)
    assert sites.is_forgotten


def test_deleting_a_recovered_session_fences_a_late_primary_before_it_is_forgotten() -> None:
    """Never half: whether the primary came back just before the deletion or just after, it ends refusing writes."""
    sites = Sites()
    sites.lose(1)
    session = sites.secondary.session
    session.recover(drain=False, allow_incomplete=False)
    sites.wire.run_until(lambda: session.document.state is SessionState.ENDED)
    session.delete(force=False)
    sites.wire.steps(20)
    assert not sites.is_forgotten
    sites.wire.refuses.clear()
    sites.wire.run_until(lambda: sites.is_forgotten)
    assert sites.captured() == [1, 1]
    assert all(primary.primary.write_refusal(1) for primary in sites.primaries)
