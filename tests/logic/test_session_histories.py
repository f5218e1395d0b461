"""What each side wrote since the last common time, and what follows from it: never more than is known."""

from __future__ import annotations

import pytest

from isochrone.model.split import Divergence, Written
from isochrone.session.document import PairDocument, SessionDocument, SourceDocument
from isochrone.session.histories import histories

RECOVERED_NS = 1000
BEFORE_NS, AFTER_NS = 900, 1100
Told = int | None
"""What a primary said of its last write: a time, 0 for never, None while it has said nothing."""


def recovered(*last_writes_ns: Told) -> SessionDocument:
    """A recovered session with one pair a primary: volume v0 of p0 with secondary s0 (number 1), and so on."""
    return SessionDocument(
        session_id="a" * 32,
        name="bank",
        number=1,
        recovered_ns=RECOVERED_NS,
        sources=tuple(
            SourceDocument(name=f"p{n}", address="unix:/p", last_write_ns=last_ns)
            for n, last_ns in enumerate(last_writes_ns)
        ),
        pairs=tuple(
            PairDocument(
                source=n,
                primary_volume=f"v{n}",
                secondary_volume=f"s{n}",
                primary_number=7,
                secondary_number=n + 1,
                primary_marked_tracks=None if last_ns is None else 3,
            )
            for n, last_ns in enumerate(last_writes_ns)
        ),
    )


def written(*tracks: int) -> Written:
    """Marked tracks of the secondaries 1, 2, ..."""
    return Written(AFTER_NS if any(tracks) else 0, {n + 1: count for n, count in enumerate(tracks)})


@pytest.mark.parametrize(
    ("there_ns", "here", "divergence"),
    [
        (0, 0, Divergence.NONE),
        (BEFORE_NS, 0, Divergence.NONE),
        (RECOVERED_NS, 0, Divergence.NONE),
        (AFTER_NS, 0, Divergence.PRIMARY),
        (BEFORE_NS, 1, Divergence.SECONDARY),
        (AFTER_NS, 1, Divergence.DIVERGED),
        (None, 0, Divergence.UNKNOWN),
        (None, 1, Divergence.UNKNOWN),
    ],
)
def test_divergence_says_who_took_writes_after_the_last_common_time(
    there_ns: Told, here: int, divergence: Divergence
) -> None:
    assert histories(recovered(there_ns), written(here)).divergence is divergence


@pytest.mark.parametrize("there_ns", [0, AFTER_NS, None])
def test_marks_that_are_gone_say_nothing_about_the_recovered_site(there_ns: Told) -> None:
    found = histories(recovered(there_ns), None)
    assert found.divergence is Divergence.UNKNOWN
    assert found.secondary.wrote is None
    assert found.secondary.last_write_ns is None
    assert found.secondary.tracks == {"s0": None}


def test_one_primary_that_wrote_is_enough_and_one_that_is_silent_leaves_it_open() -> None:
    assert histories(recovered(BEFORE_NS, AFTER_NS), written(0, 0)).divergence is Divergence.PRIMARY
    assert histories(recovered(AFTER_NS, None), written(0, 2)).divergence is Divergence.DIVERGED
    assert histories(recovered(BEFORE_NS, None), written(0, 2)).divergence is Divergence.UNKNOWN
    assert histories(recovered(AFTER_NS, None), written(0, 0)).divergence is Divergence.UNKNOWN


def test_a_marked_track_proves_a_write_also_beside_a_volume_that_was_not_noted() -> None:
    noted = Written(AFTER_NS, {1: 4})
    found = histories(recovered(AFTER_NS, AFTER_NS), noted)
    assert found.secondary.wrote is True
    assert found.secondary.tracks == {"s0": 4, "s1": None}
    assert found.divergence is Divergence.DIVERGED
    assert histories(recovered(0, 0), Written(0, {1: 0})).secondary.wrote is None


def test_both_histories_are_told_by_volume_and_with_the_last_common_time() -> None:
    found = histories(recovered(AFTER_NS, None), written(5, 0))
    assert found.last_common_ns == RECOVERED_NS
    first, second = found.primaries
    assert (first.name, first.wrote, first.last_write_ns, first.tracks) == ("p0", True, AFTER_NS, {"v0": 3})
    assert (second.name, second.wrote, second.last_write_ns, second.tracks) == (
        "p1",
        None,
        None,
        {"v1": None},
    )
    assert (found.secondary.wrote, found.secondary.last_write_ns) == (True, AFTER_NS)
    assert found.secondary.tracks == {"s0": 5, "s1": 0}


def test_a_primary_without_a_pair_any_more_has_no_say() -> None:
    document = recovered(BEFORE_NS, None)
    document = document.changed(pairs=document.pairs[:1])
    assert histories(document, written(0)).divergence is Divergence.NONE
