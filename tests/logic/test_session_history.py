"""A session's history: what is kept of it, the images of its instants, and what is given up when."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from isochrone.link.messages import NamedInstant
from isochrone.model.choices import ComparePolicy
from isochrone.model.errors import BusyError, ConflictError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SessionState
from isochrone.model.volume_kind import VolumeKind
from isochrone.session import rewinding
from isochrone.session.histories import histories
from isochrone.session.history_document import HISTORY_PREFIX
from isochrone.session.images import holds, plan_at, plan_now
from isochrone.store.volume_set import CopyItem
from support.cores import (
    MILLISECOND_NS,
    SECOND_NS,
    SESSION_ID,
    images_equal,
)
from support.history import finish, shown
from support.history_sites import HOUR_NS, Sites
from support.store import run, tracks


def test_any_instant_between_two_writes_can_be_seen_of_all_volumes() -> None:
    sites = Sites(("a", "b"))
    instants = []
    for tag in range(1, 7):
        sites.write("a", 0, tag)
        instants.append((sites.write("b", 1, 10 + tag), tag))
    sites.wait_committed(instants[-1][0])
    for at_ns, tag in instants:
        assert holds(sites.session.history.reach(), sites.session, at_ns)
        shown_then = sites.make(plan_at(sites.session, f"i{tag}", at_ns))
        assert (shown_then[f"a~i{tag}"][0], shown_then[f"b~i{tag}"][1]) == (tag, 10 + tag)


def test_an_image_of_what_is_committed_needs_no_history() -> None:
    sites = Sites(history_ns=0)
    at_ns = sites.write("a", 0, 7)
    sites.wait_committed(at_ns)
    plan = plan_now(sites.session, "test")
    assert plan.document.at_ns == sites.session.mover.consistency_ns
    assert sites.make(plan)["a~test"][0] == 7
    assert sites.session.history.stats is None
    with pytest.raises(ConflictError, match=r"keeps no history.*--history 24h"):
        plan_at(sites.session, "x", at_ns - 1)


def test_the_history_of_a_pair_begins_when_it_is_duplex() -> None:
    sites = Sites()
    stats = sites.session.history.stats
    assert stats is not None
    (stay,) = stats.volumes
    assert stay.from_ns >= sites.session.contacts[0].copied_through_ns[stay_number(sites)]


def stay_number(sites: Sites) -> int:
    number = sites.session.document.pairs[0].primary_number
    assert number is not None
    return number


def test_a_pair_that_joins_later_is_left_out_of_earlier_images() -> None:
    sites = Sites()
    early_ns = sites.write("a", 0, 1)
    sites.wait_committed(early_ns)
    sites.primary.pool.create_volume("b", 16 * 4096)
    sites.session.add_pairs([], [("p1", "b", "b")])
    sites.wait_duplex()
    late_ns = sites.write("b", 0, 2)
    sites.wait_committed(late_ns)
    early = plan_at(sites.session, "early", early_ns)
    assert [member.secondary for member in early.document.members] == ["a"]
    assert early.document.left_out == ("b",)
    late = plan_at(sites.session, "late", late_ns)
    assert [member.secondary for member in late.document.members] == ["a", "b"]
    assert sites.make(late)["b~late"][0] == 2


def test_a_pair_that_left_is_in_the_images_of_its_time() -> None:
    sites = Sites(("a", "b"))
    then_ns = sites.write("b", 0, 5)
    sites.wait_committed(then_ns)
    sites.session.remove_pairs(["b"])
    sites.wire.run_until(lambda: len(sites.session.document.pairs) == 1)
    sites.wire.steps(3)
    now_ns = sites.write("a", 0, 1)
    sites.wait_committed(now_ns)
    assert [m.secondary for m in plan_at(sites.session, "now", now_ns).document.members] == ["a"]
    assert sites.make(plan_at(sites.session, "then", then_ns))["b~then"][0] == 5


def test_a_resync_leaves_a_gap_with_both_ends_within_reach() -> None:
    sites = Sites()
    before_ns = sites.write("a", 0, 1)
    sites.wait_committed(before_ns)
    sites.session.suspend("to have a gap")
    sites.wire.run_until(lambda: sites.session.document.state is SessionState.SUSPENDED)
    sites.wire.steps(3)
    inside_ns = sites.write("a", 0, 2)
    sites.session.resume()
    sites.wait_duplex()
    after_ns = sites.write("a", 0, 3)
    sites.wait_committed(after_ns)
    reach = sites.session.history.reach()
    assert not reach.holds(inside_ns)
    low_ns, high_ns = reach.nearest(inside_ns)
    assert low_ns is not None
    assert high_ns is not None
    assert sites.make(plan_at(sites.session, "low", low_ns))["a~low"][0] == 1
    assert sites.make(plan_at(sites.session, "high", high_ns))["a~high"][0] == 2
    sites.restart_secondary()
    assert not sites.session.history.reach().holds(inside_ns)


def test_while_a_resync_runs_the_image_from_before_is_the_last_one() -> None:
    sites = Sites()
    sites.session.suspend("to have a gap")
    sites.wire.steps(3)
    sites.write("a", 0, 2)
    sites.session.resume()
    reach = sites.session.history.reach()
    while sites.session.document.hold_floor_ns is None:
        sites.wire.deliver()
    reach = sites.session.history.reach()
    assert reach.gaps[-1].to_ns is None
    assert reach.nearest(sites.clock()) == (reach.through_ns, None)


def test_a_pair_that_is_suspended_by_itself_leaves_a_gap_until_it_is_duplex_again() -> None:
    sites = Sites(("a", "b"))
    sites.session.pair_suspension.drain(["b"], "alone", sites.clock())
    sites.wire.run_until(lambda: sites.session.document.pairs[1].suspended)
    sites.wire.steps(5)
    cut_ns = sites.session.document.pairs[1].image_ns
    inside_ns = sites.write("a", 0, 9)
    sites.wait_committed(inside_ns)
    assert not sites.session.history.reach().holds(inside_ns)
    sites.session.pair_suspension.resume(["b"])
    sites.wait_duplex()
    reach = sites.session.history.reach()
    assert not reach.holds(inside_ns)
    assert reach.nearest(inside_ns)[0] == cut_ns


def test_what_is_older_than_the_window_goes() -> None:
    sites = Sites(history_ns=5 * SECOND_NS)
    first_ns = sites.write("a", 0, 1)
    sites.wait_committed(first_ns)
    for tag in range(2, 20):
        late_ns = sites.write("a", 0, tag)
        sites.wire.step(SECOND_NS)
    sites.wait_committed(late_ns)
    reach = sites.session.history.reach()
    assert reach.first_ns is not None
    assert not reach.holds(first_ns)
    assert 4 * SECOND_NS <= sites.session.mover.consistency_ns - reach.first_ns <= 8 * SECOND_NS
    assert sites.make(plan_at(sites.session, "late", late_ns))["a~late"][0] == 19


def test_a_session_that_stands_still_keeps_its_window() -> None:
    sites = Sites(history_ns=5 * SECOND_NS)
    at_ns = sites.write("a", 0, 1)
    sites.wait_committed(at_ns)
    sites.session.suspend("for long")
    for _ in range(20):
        sites.wire.step(SECOND_NS)
    assert sites.session.history.reach().holds(at_ns)


def test_what_takes_too_much_space_goes_oldest_first_and_is_told() -> None:
    sites = Sites()
    document = sites.session.document.changed(history_bytes_max=8 * 4096)
    sites.session.change_settings(document)
    first_ns = sites.write("a", 0, 1)
    for tag in range(1, 60):
        last_ns = sites.write("a", tag % 16, tag)
        sites.wire.step(100 * MILLISECOND_NS)
    sites.wait_committed(last_ns)
    for _ in range(5):
        sites.wire.step(SECOND_NS)
    history = sites.session.history
    assert history.stats is not None
    assert history.stats.held_bytes <= 8 * 4096
    assert history.reach().holds(last_ns)
    assert not history.reach().holds(first_ns)
    assert history.document.given_up_ns > first_ns
    assert "--history-size-max" in history.document.given_up_reason


def test_when_the_pool_needed_all_of_it_that_is_told_and_it_begins_anew_after_a_while() -> None:
    sites = Sites()
    lost_ns = sites.write("a", 0, 1)
    sites.wait_committed(lost_ns)
    sites.wire.step(SECOND_NS)
    sites.secondary.pool.history_drop(sites.session.document.number)
    sites.wire.step(2 * SECOND_NS)
    history = sites.session.history
    assert history.document.given_up_ns > lost_ns
    assert (history.stats, history.document.given_up_reason) == (None, "the pool needed the space")
    assert "begins anew after 30 s" in history.trouble
    for _ in range(32):
        sites.wire.step(SECOND_NS)
    assert history.trouble == ""
    at_ns = sites.write("a", 0, 2)
    sites.wait_committed(sites.write("a", 0, 3))
    assert sites.make(plan_at(sites.session, "then", at_ns))["a~then"][0] == 2
    assert not history.reach().holds(lost_ns)


def test_switched_off_it_is_gone_and_switched_on_it_begins_anew() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    sites.wait_committed(at_ns)
    document = sites.session.document
    sites.session.change_settings(document.changed(history_ns_max=0))
    sites.wire.steps(2)
    assert sites.session.history.stats is None
    sites.session.change_settings(document.changed(history_ns_max=HOUR_NS))
    sites.wire.steps(2)
    reach = sites.session.history.reach()
    assert reach.first_ns is not None
    assert not reach.holds(at_ns)


def test_it_does_not_begin_in_the_middle_of_a_resync() -> None:
    sites = Sites(("a", "b"), history_ns=0)
    sites.session.suspend("to have a gap")
    sites.wire.steps(3)
    sites.write("a", 0, 2)
    sites.session.resume()
    while sites.session.document.hold_floor_ns is None:
        sites.wire.deliver()
    sites.session.remember(sites.session.document.changed(history_ns_max=HOUR_NS))
    sites.session.tick()
    assert sites.session.history.stats is None
    sites.wait_duplex()
    assert sites.session.history.stats is not None


@pytest.mark.parametrize("name", ["history_begin", "history_release", "history_drop", "put_document"])
def test_what_the_pool_cannot_keep_stops_nothing_and_is_tried_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = Sites(history_ns=0 if name == "history_begin" else 3 * SECOND_NS)
    sites.session.history.was_named(0, NamedInstant(sites.write("a", 0, 1), "goes with its time"))
    document = sites.session.document
    if name == "history_begin":
        sites.session.change_settings(document.changed(history_ns_max=HOUR_NS))
    elif name == "history_drop":
        sites.session.change_settings(document.changed(history_ns_max=0))
    with monkeypatch.context() as patch:
        patch.setattr(sites.secondary.pool, name, refusing(name, getattr(sites.secondary.pool, name)))
        for tag in range(2, 9):
            last_ns = sites.write("a", 0, tag)
            sites.wire.step(SECOND_NS)
        sites.wait_committed(last_ns)
        assert "no room" in sites.session.history.trouble
        assert sites.primary.primary.streams[SESSION_ID].hardened_ns >= last_ns
    for _ in range(3):
        sites.wire.step(SECOND_NS)
    assert sites.session.history.trouble == ""
    assert (sites.session.history.stats is None) == (name == "history_drop")


def refusing(name: str, deed: Callable[..., Any]) -> Callable[..., Any]:
    """`deed`, as a pool does it that has no room for what a history wants."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        if name == "put_document" and not arguments[0].startswith(HISTORY_PREFIX):
            return deed(*arguments, **options)
        raise BusyError("no room")

    return refuse


def test_it_survives_a_kill_of_its_controller() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    later_ns = sites.write("a", 0, 2)
    sites.wait_committed(later_ns)
    sites.restart_secondary()
    assert sites.make(plan_at(sites.session, "then", at_ns))["a~then"][0] == 1


def test_a_deleted_session_leaves_no_history() -> None:
    sites = Sites()
    sites.wait_committed(sites.write("a", 0, 1))
    sites.session.delete(force=True)
    assert sites.secondary.pool.histories == ()


def test_a_name_that_is_taken_is_refused_with_what_to_do() -> None:
    sites = Sites()
    sites.make(plan_now(sites.session, "test"))
    with pytest.raises(ConflictError, match="--as test --discard"):
        plan_now(sites.session, "test")


def test_a_session_whose_image_is_not_whole_has_none_of_now() -> None:
    sites = Sites()
    pairs = tuple(p.model_copy(update={"complete": False}) for p in sites.session.document.pairs)
    sites.session.document = sites.session.document.changed(pairs=pairs)
    with pytest.raises(ConflictError, match="the first copy of a is not complete"):
        plan_now(sites.session, "test")


# Recovery to an instant


def recovered(sites: Sites, at_ns: int) -> None:
    sites.session.recover(drain=False, allow_incomplete=False, at_ns=at_ns)
    sites.secondary.harden()
    assert sites.session.document.state is SessionState.ENDED


def test_a_recovery_to_an_instant_leaves_all_writes_up_to_it_and_none_later() -> None:
    sites = Sites(("a", "b"))
    sites.write("a", 0, 1)
    at_ns = sites.write("b", 0, 2)
    sites.write("a", 0, 3)
    last_ns = sites.write("b", 0, 4)
    sites.wait_committed(last_ns)
    from_ns = sites.session.mover.consistency_ns
    recovered(sites, at_ns)
    volumes, document = sites.secondary.pool.volumes, sites.session.document
    assert (document.recovered_ns, document.rewound_from_ns) == (at_ns, from_ns)
    assert (shown(volumes["a"])[0], shown(volumes["b"])[0]) == (1, 2)
    kept = document.kept_copy
    assert (shown(volumes[f"a@{kept}"])[0], shown(volumes[f"b@{kept}"])[0]) == (3, 4)
    assert volumes[f"a@{kept}"].kind is VolumeKind.SNAPSHOT


def test_the_image_that_is_left_gets_a_name_that_no_copy_has() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    sites.wait_committed(sites.write("a", 0, 2))
    pool = sites.secondary.pool
    pool.create_volume("old", 4096)
    taken = rewinding.kept_name(sites.session.document, pool.volumes)
    pool.create_copies([CopyItem("old", f"old@{taken}", VolumeKind.SNAPSHOT)])
    recovered(sites, at_ns)
    assert sites.session.document.kept_copy != taken
    assert f"a@{sites.session.document.kept_copy}" in pool.volumes


def test_what_changed_since_is_marked_before_anybody_writes_and_nobody_is_said_to_have() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    sites.write("a", 5, 3)
    last_ns = sites.write("a", 7, 4)
    sites.wait_committed(last_ns)
    recovered(sites, at_ns)
    marked = sites.session.own_marks.marked(SESSION_ID)
    assert marked is not None
    (tracks,) = marked.values()
    assert tracks.nonzero()[0].tolist() == [5, 7]
    written = sites.session.own_marks.written(SESSION_ID)
    found = histories(sites.session.document, written)
    assert found.last_common_ns == at_ns
    assert found.secondary.wrote is False


@pytest.mark.parametrize("step", range(6))
def test_a_kill_at_any_step_goes_on_to_the_same_instant(step: int) -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    last_ns = sites.write("a", 5, 3)
    sites.wait_committed(last_ns)
    secondary = sites.secondary
    sites.session.recover(drain=False, allow_incomplete=False, at_ns=at_ns)
    secondary.collect()
    if step >= 1:
        secondary.restart()
    if step >= 2:
        run(secondary.pool.sync())
        secondary.session.hardened()
        secondary.collect()
        secondary.restart()
    if step >= 3:  # gone back, and nobody was told
        finish(secondary.pool.history_rewind(secondary.session.document.number, at_ns))
        secondary.restart()
    if step >= 4:
        finish(secondary.pool.history_rewind(secondary.session.document.number, at_ns))
        secondary.disk.power_loss(Random(step))
        secondary.reopen()
    secondary.harden()
    if step >= 5:
        secondary.restart()
    document = secondary.session.document
    assert (document.state, document.recovered_ns) == (SessionState.ENDED, at_ns)
    assert shown(secondary.pool.volumes["a"])[:6] == [1, 0, 0, 0, 0, 0]
    marked = secondary.session.own_marks.marked(SESSION_ID)
    assert marked is not None
    assert all(tracks[5] for tracks in marked.values())
    assert shown(secondary.pool.volumes[f"a@{document.kept_copy}"])[5] == 3


def test_after_it_a_resync_of_the_recovered_site_makes_both_equal() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    sites.write("a", 5, 3)
    last_ns = sites.write("a", 7, 4)
    sites.wait_committed(last_ns)
    sites.wire.steps(200)  # marks of what is hardened go
    recovered(sites, at_ns)
    sites.wire.run_until(lambda: all(source.fenced for source in sites.session.document.sources))
    sites.secondary.primary.write(sites.secondary.pool.volumes["a"], 9 * 4096, tracks(8))
    sites.session.discard_secondary()
    sites.wait_duplex()
    assert images_equal(sites.primary, sites.secondary, "a")
    assert shown(sites.secondary.pool.volumes["a"])[:10] == [1, 0, 0, 0, 0, 3, 0, 4, 0, 0]
    reach = sites.session.history.reach()
    assert reach.nearest(last_ns)[0] == at_ns
    new_ns = sites.write("a", 0, 11)
    sites.wait_committed(new_ns)
    assert sites.make(plan_at(sites.session, "new", new_ns))["a~new"][:10] == [11, 0, 0, 0, 0, 3, 0, 4, 0, 0]


def test_what_was_written_in_service_and_found_equal_later_is_in_every_image_after_it() -> None:
    sites = Sites()
    policy = SessionPolicy(compare=ComparePolicy.ALWAYS)
    sites.session.change_settings(sites.session.document.changed(policy=policy))
    before_ns = sites.write("a", 0, 1)
    sites.wait_committed(before_ns)
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.session.recover(drain=False, allow_incomplete=False)
    sites.secondary.harden()
    recovered_ns = sites.session.document.recovered_ns
    sites.secondary.primary.write(sites.secondary.pool.volumes["a"], 0, tracks(9))
    sites.primary.write("a", 0, 9)
    sites.session.discard_secondary()
    sites.wire.refuses.clear()
    sites.wait_duplex()
    for tag in (5, 6):
        later_ns = sites.write("a", 3, tag)
        sites.wait_committed(later_ns)
        shown_then = sites.make(plan_at(sites.session, f"i{tag}", later_ns))
        assert shown_then[f"a~i{tag}"][:4] == [9, 0, 0, tag]
    assert sites.make(plan_at(sites.session, "before", before_ns))["a~before"][0] == 1
    assert sites.session.history.reach().nearest(recovered_ns + 1)[0] == recovered_ns


def test_a_pair_that_leaves_during_a_resync_is_kept_no_longer() -> None:
    sites = Sites(("a", "b"))
    sites.wait_committed(sites.write("b", 0, 1))
    sites.session.suspend("to have a gap")
    sites.wire.steps(3)
    sites.write("a", 0, 2)
    sites.session.resume()
    while sites.session.document.hold_floor_ns is None:
        sites.wire.deliver()
    sites.session.drop_pairs([pair for pair in sites.session.document.pairs if pair.secondary_volume == "b"])
    sites.session.tick()
    assert sites.session.document.hold_floor_ns is not None
    stats = sites.session.history.stats
    assert stats is not None
    number = sites.secondary.pool.volumes["b"].number
    assert [stay.until_ns is None for stay in stats.volumes if stay.number == number] == [False]


def test_an_instant_between_c_and_f_needs_no_history() -> None:
    sites = Sites(history_ns=0)
    at_ns = sites.write("a", 0, 1)
    sites.write("a", 0, 2)
    sites.clock.advance(MILLISECOND_NS)
    sites.primary.primary.tick()
    while sites.wire.deliver():
        pass
    assert sites.session.mover.consistency_ns < at_ns < sites.session.recovery.limit_ns
    recovered(sites, at_ns)
    assert sites.session.document.rewound_from_ns == 0
    assert shown(sites.secondary.pool.volumes["a"])[0] == 1


def test_an_instant_that_has_not_come_or_was_not_kept_is_refused_and_nothing_is_changed() -> None:
    sites = Sites()
    first_ns = sites.session.history.reach().first_ns
    assert first_ns is not None
    before = sites.session.document
    for at_ns, words in ((sites.clock() + HOUR_NS, "give an earlier time"), (first_ns - 1, "begins at")):
        with pytest.raises(ConflictError, match=words):
            sites.session.recover(drain=False, allow_incomplete=False, at_ns=at_ns)
    assert sites.session.document is before
    assert [name for name in sites.secondary.pool.volumes if "@" in name] == []


def test_a_pair_without_an_image_of_the_instant_is_named() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    sites.wait_committed(at_ns)
    sites.primary.pool.create_volume("b", 16 * 4096)
    sites.session.add_pairs([], [("p1", "b", "b")])
    sites.wait_duplex()
    with pytest.raises(ConflictError, match=r"pair 'b'.*session remove s b"):
        sites.session.recover(drain=False, allow_incomplete=False, at_ns=at_ns)


def test_when_the_history_goes_first_the_volumes_stay_and_it_is_said() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    last_ns = sites.write("a", 0, 2)
    sites.wait_committed(last_ns)
    from_ns = sites.session.mover.consistency_ns
    sites.session.recover(drain=False, allow_incomplete=False, at_ns=at_ns)
    sites.secondary.pool.history_drop(sites.session.document.number)
    sites.secondary.harden()
    document = sites.session.document
    assert (document.state, document.recovered_ns) == (SessionState.ENDED, from_ns)
    assert "was given up before" in document.reason
    assert shown(sites.secondary.pool.volumes["a"])[0] == 2


def test_after_the_end_the_history_stays_for_its_window_and_goes_then() -> None:
    sites = Sites(history_ns=5 * SECOND_NS)
    at_ns = sites.write("a", 0, 1)
    last_ns = sites.write("a", 0, 2)
    sites.wait_committed(last_ns)
    recovered(sites, at_ns)
    assert sites.make(plan_at(sites.session, "late", last_ns))["a~late"][0] == 2
    for _ in range(8):
        sites.wire.step(SECOND_NS)
    assert sites.session.history.stats is None
