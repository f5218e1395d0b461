"""`session resync` after a split: an operator has named the side whose writes are given up."""

from __future__ import annotations

from isochrone.api.requests import Primary as PrimaryRequest
from isochrone.api.requests import ResyncRequest
from isochrone.capture.stream import SessionStream
from isochrone.controller.exports import PoolExports
from isochrone.controller.session_set import SessionSet
from isochrone.controller.session_shell import SessionShell
from isochrone.controller.split_reports import discard_primary_command, discard_secondary_command
from isochrone.model.errors import ConflictError, RefusedError
from isochrone.model.split import Side
from isochrone.report.split_models import SplitReport
from isochrone.report.split_text import side_text, verdict_text
from isochrone.session.transitions import begun_again
from isochrone.session.turning import turned_round
from isochrone.store.pool import Pool


class Resyncing:
    """The command at the recovered site, and at an old primary."""

    def __init__(self, pool: Pool, exports: PoolExports, sessions: SessionSet) -> None:
        self._pool = pool
        self._exports = exports
        self._sessions = sessions

    def at_secondary(self, shell: SessionShell, request: ResyncRequest, split: SplitReport | None) -> None:
        """Give the writes of this recovered site up. Raises RefusedError when that is not what was asked."""
        document = shell.session.document
        begun_again(document, 0)  # or say why not, before anything else
        if request.discard is None:
            raise RefusedError(_both(document.name, split))
        if request.discard is Side.PRIMARY:
            old = " and ".join(source.name for source in document.sources)
            raise ConflictError(
                f"to give up what {old} wrote, the direction turns round: give the command at {old}: "
                f"{discard_primary_command(document.name, 'NAME')}, with the link address of this controller"
            )
        if request.primary is not None:
            raise RefusedError("--primary belongs to --discard primary: the primaries are known here")
        self._refuse_open([pair.secondary_volume for pair in document.pairs])
        shell.command(shell.session.discard_secondary)

    def at_primary(
        self, stream: SessionStream, request: ResyncRequest, split: SplitReport | None
    ) -> SessionShell:
        """Become the secondary: give this old primary's writes up. Raises RefusedError when that is not what was asked."""
        document = stream.document
        name = document.session_name
        if not document.ended or not document.recovered_ns:
            raise ConflictError(
                f"session {name!r} was not recovered at another site, as far as this controller has heard: there is "
                "nothing to discard"
            )
        if request.discard is None:
            raise RefusedError(_both(name, split))
        if request.discard is Side.SECONDARY:
            raise ConflictError(
                f"what {document.mover_name} wrote is given up there: {discard_secondary_command(name)}"
            )
        if not document.partners:
            raise ConflictError(
                f"session {name!r} had several primary controllers: their volumes cannot follow one mover each and stay "
                "consistent to one instant. Delete the session at all of them and at the recovered site, and create one in "
                "the other direction, with one of them as the secondary of all volumes (reference: session resync)"
            )
        if request.primary is None:
            raise RefusedError(
                f"say where {document.mover_name} is reached: --primary {document.mover_name}=ADDRESS"
            )
        pairs = [
            (document.partners[captured.volume.name], captured.volume.name, number)
            for number, captured in sorted(stream.volumes.items())
            if captured.volume.name in document.partners
        ]
        self._refuse_open([own for _, own, _ in pairs])
        return self._begin(stream, request.primary, pairs)

    def _begin(
        self, stream: SessionStream, primary: PrimaryRequest, pairs: list[tuple[str, str, int]]
    ) -> SessionShell:
        document = stream.document

        return self._sessions.begin(
            document.session_name,
            lambda number, now_ns: turned_round(
                session_id=document.session_id,
                name=document.session_name,
                number=number,
                epoch=document.epoch + 1,
                image_ns=document.recovered_ns,
                primary=(primary.name, primary.address, document.mover_id),
                pairs=pairs,
                policy=document.policy,
                now_ns=now_ns,
            ),
        )

    def _refuse_open(self, names: list[str]) -> None:
        """A client that has a volume open for writing would go on writing to what is about to be a secondary."""
        for name in names:
            volume = self._pool.volumes.get(name)
            count = self._exports.of(volume).connection_count if volume else 0
            if count:
                raise ConflictError(
                    f"volume {name!r} is open over NBD ({count} connections) and cannot become a secondary: stop the "
                    "application and disconnect its clients first",
                    name=name,
                )


def _both(name: str, split: SplitReport | None) -> str:
    """Say what each side would lose, and how to choose."""
    if split is None:
        return (
            f"say which side of session {name} gives its writes up: --discard primary or --discard secondary"
        )
    sides = "; ".join(f"{side.side} {side.name}: {side_text(side)}" for side in split.sides)
    return f"session {name}: {verdict_text(split)}. {sides}. Say whose writes are given up: {' | '.join(split.commands)}"
