"""How a session is shown."""

import pytest

from isochrone.controller.session_reports import link_state
from isochrone.report.models import LinkState
from isochrone.session.contact import Contact, ContactState
from isochrone.session.settings import SessionSettings


def contact_in(state: ContactState, error: str = "") -> Contact:
    contact = Contact(SessionSettings(), lambda: 0.0, 0)
    contact.enter(state, 0)
    contact.error = error
    return contact


@pytest.mark.parametrize("state", ContactState)
def test_a_link_in_any_state_can_be_shown_and_is_up_only_when_it_streams(state: ContactState) -> None:
    assert (link_state(contact_in(state)) is LinkState.UP) == (state is ContactState.STREAMING)


def test_a_refused_link_is_shown_as_refused() -> None:
    assert link_state(contact_in(ContactState.DOWN, "refused: no")) is LinkState.REFUSED
