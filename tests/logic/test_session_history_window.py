"""Which instants of a session can be reached, and what is given up first."""

from __future__ import annotations

import pytest

from isochrone.session.document import SessionDocument
from isochrone.session.history_document import (
    GAPS_MAX,
    INSTANTS_MAX,
    GapDocument,
    HistoryDocument,
    InstantDocument,
    load_history,
    pruned,
    with_gap_recorded,
    with_instant,
)
from isochrone.session.history_window import (
    Gap,
    Reach,
    gap_of_a_resync,
    joined,
    open_gaps,
    release_for_space_ns,
    release_for_time_ns,
    uncovered,
)
from support.cores import new_document

REACH = Reach(100, 900, (Gap(200, 300), Gap(500, 510)))


def document_with(**pair_fields: object) -> SessionDocument:
    document = new_document()
    pair = document.pairs[0].model_copy(update={"complete": True, "duplex": True, **pair_fields})
    return document.changed(pairs=(pair,))


@pytest.mark.parametrize("at_ns", [100, 150, 200, 300, 301, 500, 510, 899, 900])
def test_every_instant_of_the_history_can_be_reached_and_both_ends_of_a_gap(at_ns: int) -> None:
    assert REACH.holds(at_ns)
    assert REACH.nearest(at_ns) == (at_ns, at_ns)


@pytest.mark.parametrize(
    ("at_ns", "nearest"),
    [
        (99, (None, 100)),
        (0, (None, 100)),
        (201, (200, 300)),
        (299, (200, 300)),
        (505, (500, 510)),
        (901, (900, None)),
    ],
)
def test_an_instant_that_cannot_be_reached_has_neighbours_that_can(
    at_ns: int, nearest: tuple[int | None, int | None]
) -> None:
    assert not REACH.holds(at_ns)
    assert REACH.nearest(at_ns) == nearest


def test_a_gap_that_is_open_has_nothing_behind_it() -> None:
    reach = Reach(100, 900, (Gap(700, None),))
    assert (reach.holds(700), reach.holds(701), reach.holds(900)) == (True, False, False)
    assert reach.nearest(800) == (700, None)
    assert reach.nearest(2000) == (700, None)


def test_a_gap_across_the_beginning_leaves_its_end() -> None:
    assert Reach(250, 900, (Gap(200, 300),)).nearest(260) == (None, 300)


def test_without_a_history_the_committed_image_is_all_there_is() -> None:
    reach = Reach(None, 900)
    assert (reach.holds(900), reach.holds(899)) == (True, False)
    assert reach.nearest(5) == (None, 900)


def test_gaps_that_overlap_are_one_and_an_open_one_swallows_what_follows() -> None:
    closed = [GapDocument(from_ns=10, to_ns=20), GapDocument(from_ns=30, to_ns=40)]
    assert joined(closed, [Gap(15, 35)]) == (Gap(10, 40),)
    assert joined(closed, [Gap(35, None), Gap(50, None)]) == (Gap(10, 20), Gap(30, None))
    assert joined(closed, []) == (Gap(10, 20), Gap(30, 40))


@pytest.mark.parametrize(
    ("stays", "gaps"),
    [
        ([(10, None)], []),
        ([(10, 20)], [Gap(20, None)]),
        ([(10, 20), (30, None)], [Gap(20, 30)]),
        ([(10, 40), (20, 30), (35, None)], []),
        ([(10, 40), (20, 30)], [Gap(40, None)]),
        ([(10, 20), (20, 30), (50, 60), (70, None)], [Gap(30, 50), Gap(60, 70)]),
        ([(10, None), (5, 20)], []),
        ([], []),
    ],
)
def test_while_no_volume_was_kept_there_is_a_gap(
    stays: list[tuple[int, int | None]], gaps: list[Gap]
) -> None:
    assert uncovered(stays) == gaps


def test_a_hold_and_a_pair_that_is_behind_are_open_gaps() -> None:
    assert open_gaps(document_with(), 900) == []
    held = document_with().changed(hold_floor_ns=700)
    assert open_gaps(held, 700) == [Gap(700, None)]
    behind = document_with(suspended=True, duplex=False, image_ns=400, suspend_at_ns=300)
    assert open_gaps(behind, 900) == [Gap(400, None)]
    assert open_gaps(behind, 350) == []  # C has not reached its end yet


def test_the_end_of_a_hold_closes_a_gap_from_the_image_it_kept() -> None:
    held = document_with().changed(hold_floor_ns=700)
    assert gap_of_a_resync(held, 850) == Gap(700, 850)


def test_a_pair_that_resumes_closes_the_gap_since_it_was_suspended() -> None:
    behind = document_with(duplex=False, image_ns=400).changed(hold_floor_ns=700)
    assert gap_of_a_resync(behind, 850) == Gap(400, 850)
    still = document_with(duplex=False, image_ns=400, suspended=True).changed(hold_floor_ns=700)
    assert gap_of_a_resync(still, 850) == Gap(700, 850)


def test_the_window_passes_at_its_oldest_end() -> None:
    assert release_for_time_ns(100, 900, 1000) is None
    assert release_for_time_ns(100, 900, 800) is None
    assert release_for_time_ns(100, 900, 500) == 400


def test_too_much_space_gives_up_the_oldest_part() -> None:
    assert release_for_space_ns(100, 900, 10, 0) is None
    assert release_for_space_ns(100, 900, 10, 10) is None
    assert release_for_space_ns(100, 900, 11, 10) == 200
    assert release_for_space_ns(100, 101, 11, 10) == 101
    assert release_for_space_ns(100, 100, 11, 10) is None


# What is remembered


def test_an_instant_is_remembered_once_in_the_order_of_times() -> None:
    first, second = (InstantDocument(time_ns=t, text=str(t), source=0) for t in (5, 7))
    document = with_instant(with_instant(with_instant(HistoryDocument(name="s"), second), first), first)
    assert document.instants == (first, second)
    assert load_history(document.key, document.model_dump_json().encode()) == document


def test_of_too_many_instants_the_oldest_goes() -> None:
    document = HistoryDocument(name="s")
    for time_ns in range(1, INSTANTS_MAX + 2):
        document = with_instant(document, InstantDocument(time_ns=time_ns, text="x", source=0))
    assert (len(document.instants), document.instants[0].time_ns) == (INSTANTS_MAX, 2)


def test_gaps_are_joined_where_they_overlap_and_the_oldest_when_they_are_too_many() -> None:
    document = HistoryDocument(name="s")
    for start in range(0, 10 * (GAPS_MAX + 1), 10):
        document = with_gap_recorded(document, start, start + 5)
    assert len(document.gaps) == GAPS_MAX
    assert document.gaps[0] == GapDocument(from_ns=0, to_ns=15)
    assert with_gap_recorded(document, 12, 22).gaps[0] == GapDocument(from_ns=0, to_ns=25)
    assert with_gap_recorded(document, 7, 7) is document


def test_what_lies_before_the_history_is_forgotten() -> None:
    document = with_gap_recorded(with_gap_recorded(HistoryDocument(name="s"), 10, 20), 30, 40)
    for time_ns in (15, 35):
        document = with_instant(document, InstantDocument(time_ns=time_ns, text="x", source=0))
    assert pruned(document, 5) is document
    later = pruned(document, 32)
    assert later.gaps == (GapDocument(from_ns=30, to_ns=40),)
    assert [instant.time_ns for instant in later.instants] == [35]
