"""How a split world recovers: to the newest image, or to an instant of the history, through every crash to the same one."""

from __future__ import annotations

from random import Random
from typing import Final

from isochrone.session.session import Session
from isochrone.testing.oracle import OracleError

HISTORY_NS_MAX: Final = 10**13
"""Window of the sessions that keep a history: all that a world lives through."""


class Recovery:
    """One recovery, asked for as often as it takes. Nothing but the recovered site's state is carried between attempts.

    Args:
        may_go_back: whether the history may be used.
    """

    def __init__(self, rng: Random, *, may_go_back: bool) -> None:
        self._rng = rng
        self._may_go_back = may_go_back
        self._at_ns: int | None = None
        self.went_back = False

    def ask(self, session: Session) -> None:
        """Give the command, or ask again. Raises OracleError when an earlier command came out as another instant."""
        document = session.document
        if document.is_over:
            if self._at_ns is not None and document.recovered_ns != self._at_ns:
                raise OracleError(
                    "a recovery went to another instant than was asked for:",
                    [f"asked {self._at_ns}, went to {document.recovered_ns}: {document.reason}"],
                )
            return
        self._at_ns = self._choose(session) if self._may_go_back else None
        session.recover(drain=False, allow_incomplete=False, at_ns=self._at_ns)
        self.went_back = bool(session.document.rewound_from_ns)

    def _choose(self, session: Session) -> int | None:
        reach = session.history.reach()
        if reach.first_ns is None or self._rng.random() < 0.3:
            return None
        at_ns = self._rng.randint(reach.first_ns, max(reach.first_ns, reach.through_ns))
        return at_ns if reach.holds(at_ns) else None
