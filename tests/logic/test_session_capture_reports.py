"""What primaries tell of delays reaches the session: its reports, and the budget of automatic resume."""

from __future__ import annotations

from isochrone.capture.settings import CaptureSettings
from isochrone.controller.backlog_reports import backlog_report
from isochrone.model.policy import SessionPolicy
from support.cores import MILLISECOND_NS, PrimarySite, SecondarySite, Wire, new_document
from support.store import TRACK

SIZE = TRACK + 24


def test_the_secondary_knows_who_is_delayed_by_how_much_and_why_until_the_link_is_lost() -> None:
    primary = PrimarySite(volumes={"a": 16}, settings=CaptureSettings(side_file_bytes_max=40 * SIZE))
    document = new_document().changed(policy=SessionPolicy(pace_delay_ns_max=MILLISECOND_NS))
    secondary = SecondarySite(primary.clock, document=document)
    wire = Wire(secondary, primary)
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)
    contact = secondary.session.contacts[0]
    (stream,) = primary.primary.streams.values()
    delays = [primary.write("a", track % 16, 1) for track in range(38)]
    wire.steps(15)
    told = contact.capture
    assert told is not None
    report = backlog_report(told)
    (volume,) = report.volumes
    assert volume.volume == "a"
    assert volume.write_count == sum(delay > 0 for delay in delays)
    assert volume.delay_ms_p99 == max(delays) / MILLISECOND_NS
    assert report.held_s == sum(delays) / 1e9 == stream.delay_totals.held_ns / 1e9
    assert report.capacity_bytes == 40 * SIZE
    wire.cut()
    assert secondary.session.contacts[0].capture is None
