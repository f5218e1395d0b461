"""When the ways of application writes are worked out anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest

from isochrone.capture import primary as primary_module
from isochrone.capture.route import Route, build_routes
from isochrone.capture.settings import CaptureSettings
from isochrone.capture.stream import SessionStream
from isochrone.link.messages import Ack, RecordSet
from support.cores import WINDOW_OPEN, PrimarySite
from support.store import TRACK


def test_ways_are_worked_out_when_a_copy_begins_and_ends_and_at_no_tick_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[int] = []

    def counting(streams: Iterable[SessionStream]) -> dict[int, Route]:
        routes = build_routes(streams)
        built.append(sum(len(route.copiers) for route in routes.values()))
        return routes

    site = PrimarySite(
        volumes={"a": 8, "b": 64}, settings=dataclasses.replace(CaptureSettings(), copy_ahead_bytes_max=TRACK)
    )
    site.write("a", 0, 1)
    site.write("b", 0, *range(1, 33))
    monkeypatch.setattr(primary_module, "build_routes", counting)
    stream = site.open_stream(["a", "b"])
    assert built[-1] == 2
    built.clear()
    busy_ticks = 0
    while stream.is_copying:
        for message in site.tick():
            if isinstance(message, RecordSet):
                site.say(1, Ack(message.through_ns, WINDOW_OPEN, 0))
        busy_ticks += 1
    assert busy_ticks > 8
    assert built == [1, 0]  # once for each copy that ended
