"""The model of the spill bites: each deliberate breakage is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from isochrone.capture import backlog as backlog_module
from isochrone.capture.backlog import Backlog
from isochrone.capture.side_file import SideFile, SideFileEntry
from property import test_spill
from property.test_spill import SpillMachine

Patch = pytest.MonkeyPatch


def free_a_place_with_the_first_session_that_is_done(patch: Patch) -> None:
    release = SideFile.release

    def broken(self: SideFile, entry: SideFileEntry) -> None:
        if entry.holders > 1 and entry.slot is not None and not entry.slot.is_freed:
            assert self.spill is not None
            self.spill.free(entry.slot)
        release(self, entry)

    patch.setattr(SideFile, "release", broken)


def read_back_the_newest_first(patch: Patch) -> None:
    read_ahead = Backlog._read_ahead

    def broken(self: Backlog) -> None:
        self._spilled.reverse()
        read_ahead(self)

    patch.setattr(Backlog, "_read_ahead", broken)


def join_what_another_session_holds_too(patch: Patch) -> None:
    patch.setattr(backlog_module, "_may_join", lambda entry: entry.slot is None)


def send_pieces_whole(patch: Patch) -> None:
    patch.setattr(test_spill, "select_records", lambda batch, *_: batch)


def put_new_entries_before_spilled_ones(patch: Patch) -> None:
    append = Backlog.append

    def broken(self: Backlog, entry: SideFileEntry) -> None:
        spilled, self._spilled = self._spilled, type(self._spilled)()
        fresh, self._fresh = self._fresh, type(self._fresh)()
        append(self, entry)
        self._spilled, self._fresh = spilled, fresh

    patch.setattr(Backlog, "append", broken)


BREAKAGES: list[Callable[[Patch], None]] = [
    free_a_place_with_the_first_session_that_is_done,
    read_back_the_newest_first,
    join_what_another_session_holds_too,
    send_pieces_whole,
    put_new_entries_before_spilled_ones,
]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_a_broken_spill_is_caught(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    # The first walk that objects will do; how small it can be made nobody asks.
    search = settings(
        max_examples=400,
        stateful_step_count=60,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        derandomize=True,
    )
    with pytest.raises(BaseException) as caught:  # noqa: PT011 (whatever it is: an oracle's or the code's own objection)
        run_state_machine_as_test(SpillMachine, settings=search)
    assert not isinstance(caught.value, KeyboardInterrupt)
