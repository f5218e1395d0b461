from __future__ import annotations

import pytest

from isochrone.cli.wait import Outcome, look
from isochrone.model.errors import RefusedError
from isochrone.model.states import PairState, SessionState
from isochrone.report.models import LinkState
from support.reports import PAIR, SESSION, SOURCE

ACTIVE, SUSPENDED, RECOVERY, ENDED = (
    SessionState.ACTIVE,
    SessionState.SUSPENDED,
    SessionState.RECOVERY,
    SessionState.ENDED,
)
DUPLEX, COPY = PairState.DUPLEX, PairState.COPY


@pytest.mark.parametrize(
    ("state", "pairs", "goal", "outcome"),
    [
        (ACTIVE, (DUPLEX, DUPLEX), "duplex", Outcome.REACHED),
        (ACTIVE, (DUPLEX, COPY), "duplex", Outcome.UNDER_WAY),
        (SUSPENDED, (DUPLEX, DUPLEX), "duplex", Outcome.IMPOSSIBLE),
        (RECOVERY, (DUPLEX,), "duplex", Outcome.IMPOSSIBLE),
        (ENDED, (DUPLEX,), "duplex", Outcome.IMPOSSIBLE),
        (SUSPENDED, (COPY,), "suspended", Outcome.REACHED),
        (ACTIVE, (COPY,), "suspended", Outcome.UNDER_WAY),
        (ENDED, (COPY,), "suspended", Outcome.IMPOSSIBLE),
        (ENDED, (COPY,), "ended", Outcome.REACHED),
        (RECOVERY, (COPY,), "ended", Outcome.UNDER_WAY),
        (SUSPENDED, (COPY,), "ended", Outcome.UNDER_WAY),
    ],
)
def test_a_wait_ends_when_its_goal_is_reached_or_out_of_reach(
    state: SessionState, pairs: tuple[PairState, ...], goal: str, outcome: Outcome
) -> None:
    reports = tuple(PAIR.model_copy(update={"state": pair}) for pair in pairs)
    assert look(SESSION.model_copy(update={"state": state, "pairs": reports}), goal) is outcome


def test_a_wait_for_duplex_ends_when_a_person_must_act() -> None:
    refused = PAIR.model_copy(update={"refused": True, "reason": "no volume 'db' here"})
    assert look(SESSION.model_copy(update={"pairs": (PAIR, refused)}), "duplex") is Outcome.IMPOSSIBLE
    shut = SOURCE.model_copy(update={"link_state": LinkState.REFUSED})
    assert look(SESSION.model_copy(update={"sources": (SOURCE, shut)}), "duplex") is Outcome.IMPOSSIBLE


def test_an_unknown_goal_is_refused() -> None:
    with pytest.raises(RefusedError, match="duplex, suspended or ended"):
        look(SESSION, "happy")
