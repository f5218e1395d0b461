"""A running session takes other settings: its mover at once, its primaries by a Configure, compression by a new link."""

from __future__ import annotations

from typing import Any

import pytest

from isochrone.capture.own_marks import OwnMarks
from isochrone.capture.primary import Primary
from isochrone.capture.settings import CaptureSettings
from isochrone.link.messages import Configure, Configured, Hello, VolumeInfo, WantedVolume, Welcome
from isochrone.model.choices import Compression, OverflowPolicy
from isochrone.model.errors import ConflictError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SessionState
from isochrone.session import transitions
from isochrone.session.actions import Action, CloseLink, SendMessage
from isochrone.session.document import PairDocument, SessionDocument, SourceDocument
from isochrone.session.links import SessionLinks
from isochrone.session.session import Session
from isochrone.session.settings import SessionSettings
from support.store import new_pool

ID = "0" * 32
DOCUMENT = SessionDocument(
    session_id=ID,
    name="bank",
    number=1,
    group_interval_ns=10,
    group_bytes_max=1 << 20,
    sources=(SourceDocument(name="a", address="tcp:a:1"),),
    pairs=(PairDocument(source=0, primary_volume="db", secondary_volume="db"),),
)


class Streaming:
    """A session whose one primary is streaming at second `now_ns`."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        disk, self.pool = new_pool()
        core = Primary(self.pool, disk, lambda: self.now_ns, CaptureSettings(), 0)
        self.session = Session(
            self.pool, DOCUMENT, lambda: self.now_ns, lambda: 0.5, SessionSettings(), OwnMarks(core, ID, "s")
        )
        self.session.remember(DOCUMENT)
        self.links = SessionLinks(self.session, self.pool, ID, "s")
        self.connect()

    def connect(self) -> list[Action]:
        self.session.tick()
        self.links.link_opened(0)
        self.links.link_received(0, Welcome("1" * 32, "a", "2" * 32, 1, self.now_ns, False, False))
        self.links.link_received(0, Configured(1, [VolumeInfo("db", 7, 4096, 0)]))
        return self.session.take_actions()

    def change(self, **settings: Any) -> list[Action]:
        self.session.change_settings(transitions.with_settings(self.session.document, **settings))
        return self.session.take_actions()


def test_the_mover_forms_groups_as_the_session_says() -> None:
    streaming = Streaming()
    assert streaming.session.mover.settings.group_bytes_max == 1 << 20
    streaming.change(group_bytes_max=2 << 20, group_interval_ns=25)
    settings = streaming.session.mover.settings
    assert (settings.group_bytes_max, settings.group_interval_ns) == (2 << 20, 25)


def test_primaries_are_told_the_policy_and_the_link_stays() -> None:
    actions = Streaming().change(overflow_policy=OverflowPolicy.SUSPEND, pace_delay_ns_max=5)
    policy = SessionPolicy(overflow_policy=OverflowPolicy.SUSPEND, pace_delay_ns_max=5)
    assert actions == [SendMessage(0, Configure(2, [WantedVolume("db", True)], policy), durably=True)]


def test_another_compression_is_asked_for_on_a_new_link() -> None:
    streaming = Streaming()
    assert [type(action) for action in streaming.change(compression=Compression.ZSTD)] == [CloseLink]
    streaming.now_ns += SessionSettings().redial_ns_max
    said = [action.message for action in streaming.connect() if isinstance(action, SendMessage)]
    assert [hello.compression for hello in said if isinstance(hello, Hello)] == [Compression.ZSTD]


def test_settings_survive_a_restart() -> None:
    streaming = Streaming()
    streaming.change(compression=Compression.LZ4, group_bytes_max=3 << 20)
    kept = SessionDocument.model_validate_json(streaming.pool.documents[DOCUMENT.key])
    assert (kept.compression, kept.group_bytes_max, kept.group_interval_ns) == (Compression.LZ4, 3 << 20, 10)


@pytest.mark.parametrize("state", [SessionState.RECOVERY, SessionState.ENDED])
def test_a_session_that_is_over_takes_no_settings(state: SessionState) -> None:
    with pytest.raises(ConflictError, match="no effect any more"):
        transitions.with_settings(DOCUMENT.changed(state=state), group_interval_ns=5)
