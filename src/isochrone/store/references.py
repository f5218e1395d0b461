"""No count of references ever wraps: what could make one do so is refused before it is done.

Each volume keeps a bound of how often one track, or page, stands in it (`repeat_count_max`). The sum of the bounds is the
most that a count can come to, however pages are shared or copied later by writes. It is 1 per volume, unless ranges were
copied more than once; each such copy raises a bound, also when it replaces an earlier one. So when the sum becomes too
great the bounds are made exact, by counting, and only then is the request refused.
"""

from __future__ import annotations

from collections.abc import Callable

from isochrone.model.errors import BusyError
from isochrone.store.limits import REFERENCE_COUNT_MAX, STAGED_REFERENCE_COUNT
from isochrone.store.rebuild import count_repeats
from isochrone.store.state import PoolState


def check_references(state: PoolState, more: Callable[[], int]) -> None:
    """Raise BusyError when one track could be referred to too often after the bounds have grown by `more()` together."""
    if _highest(state) + more() <= REFERENCE_COUNT_MAX:
        return
    while state.tables.doomed.reclaim():
        pass
    for table in state.volumes.values():
        if table.repeat_count_max > 1:
            table.repeat_count_max = count_repeats(state.tables, table)
    highest = _highest(state) + more()
    if highest > REFERENCE_COUNT_MAX:
        raise BusyError(
            f"a track can be referred to {REFERENCE_COUNT_MAX} times, and {highest} could come of this: delete copies, or "
            "copy one range onto fewer others",
            count=highest,
        )


def _highest(state: PoolState) -> int:
    repeats = sum(table.repeat_count_max for table in state.volumes.values())
    return repeats + state.tables.doomed.repeat_count + STAGED_REFERENCE_COUNT
