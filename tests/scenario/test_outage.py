"""Without a link for longer than the side file lasts: what is sent afterwards, and what a disaster would leave."""

import pytest

from soak.outage import SENT_RATIO_MAX, running_outage
from support.network import require_network

pytestmark = [pytest.mark.xdist_group("heavy")]

OUTAGE_S = 10.0
SEED = 1


@pytest.mark.timeout(600)
def test_an_outage_costs_the_tracks_written_in_it_and_leaves_one_instant_at_every_moment() -> None:
    require_network()
    with running_outage(SEED) as outage:
        sent = outage.measure(OUTAGE_S)
        assert sent.ratio <= SENT_RATIO_MAX, sent
        looked = outage.look(OUTAGE_S / 2, look_count=4)
    assert len(looked) == 4
    assert any("DUPLEX" not in each.moment for each in looked), (
        "no copy was taken in the middle of the resync"
    )
