"""The log of a primary names unreadable tracks once, and says when there are none any more."""

from __future__ import annotations

from structlog.testing import capture_logs

from isochrone.controller.unreadable_log import UnreadableLog
from support.cores import PrimarySite


def test_unreadable_tracks_are_told_once_and_so_is_their_end() -> None:
    site = PrimarySite(volumes={"a": 8})
    site.write("a", 0, 1, 2, 3)
    for track in (0, 1):
        site.disk.spoil_track(site.pool.volumes["a"], track)
    site.open_stream()
    for _ in range(5):
        site.tick()
    log = UnreadableLog()
    with capture_logs() as lines:
        for second in range(2, 12):
            log.look(site.primary.streams.values(), second)
    assert [(line["log_level"], line["track_count"], line["first_runs"]) for line in lines] == [
        ("warning", 2, [(0, 2)])
    ]
    site.write("a", 0, 8, 9)
    site.copied()
    with capture_logs() as lines:
        for second in range(20, 30):
            log.look(site.primary.streams.values(), second)
    assert [line["event"] for line in lines] == ["no track is unreadable any more"]
