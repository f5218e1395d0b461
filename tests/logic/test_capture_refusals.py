"""What a primary answers to a Configure that names volumes it cannot capture."""

from __future__ import annotations

from isochrone.capture.actions import SendMessage
from isochrone.capture.links import PrimaryLinks
from isochrone.capture.primary import Primary
from isochrone.capture.settings import CaptureSettings
from isochrone.link.codec import Encoder
from isochrone.link.messages import (
    PROTOCOL_VERSION,
    REFUSAL_TEXT_BYTES_MAX,
    VOLUMES_PER_SESSION_MAX,
    Configure,
    Configured,
    Hello,
    WantedVolume,
)
from isochrone.model.choices import Compression
from isochrone.model.policy import SessionPolicy
from support.store import TRACK, new_pool

ID = "0" * 32
REASON = "it is a secondary of session 'far' here: end that session first"


class World:
    """One primary with the volumes `free` and `taken`; the latter is refused with `reason`."""

    def __init__(self, reason: str = REASON) -> None:
        disk, pool = new_pool()
        for name in ("free", "taken"):
            pool.create_volume(name, 4 * TRACK)
        self.refusals = {"taken": reason}
        self.primary = Primary(pool, disk, lambda: 1, CaptureSettings(), 0)
        self.links = PrimaryLinks(
            self.primary,
            ID,
            "a",
            TRACK,
            lambda: "1" * 32,
            refuse_volume=lambda name: self.refusals.get(name, ""),
            is_mover_here=lambda _: False,
        )
        self.links.link_opened(1)
        hello = Hello(PROTOCOL_VERSION, "2" * 32, "bank", 1, "3" * 32, "m", "", TRACK, Compression.OFF, "", 0)
        self.links.link_received(1, hello)

    def configure(self, *names: str) -> Configured:
        self.links.link_received(1, Configure(1, [WantedVolume(name) for name in names], SessionPolicy()))
        (answer,) = (
            action.message
            for action in self.primary.take_actions()
            if isinstance(action, SendMessage) and isinstance(action.message, Configured)
        )
        return answer


def test_a_refused_volume_is_named_with_the_reason_and_the_others_are_captured() -> None:
    answer = World().configure("free", "taken", "none")
    assert [info.name for info in answer.volumes] == ["free"]
    assert {refusal.name: refusal.text for refusal in answer.refused} == {
        "taken": REASON,
        "none": "no volume 'none' here: create it, or correct the pair's name",
    }


def test_a_volume_is_captured_once_nothing_speaks_against_it() -> None:
    world = World()
    world.configure("taken")
    world.refusals.clear()
    assert [info.name for info in world.configure("taken").volumes] == ["taken"]


def test_a_long_reason_is_cut_before_it_is_sent() -> None:
    (refusal,) = World("because " * 1000).configure("taken").refused
    assert refusal.text.endswith("...")
    assert len(refusal.text) == REFUSAL_TEXT_BYTES_MAX


def test_refusals_of_as_many_volumes_as_a_session_can_have_fit_one_message() -> None:
    names = [f"{number:064}" for number in range(VOLUMES_PER_SESSION_MAX)]
    answer = World().configure(*names)
    assert len(answer.refused) == VOLUMES_PER_SESSION_MAX
    assert Encoder().encode(answer)
