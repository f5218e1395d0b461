"""`isochrone session`: the group of commands, each with its examples."""

from __future__ import annotations

import typer

from isochrone.cli.options import examples
from isochrone.cli.session_history import history, image, mark
from isochrone.cli.session_pairs import add, create, remove
from isochrone.cli.session_resync import resync
from isochrone.cli.session_settings import set_session
from isochrone.cli.session_state import delete_session, list_sessions, recover, show_session
from isochrone.cli.session_suspend import resume, suspend

app = typer.Typer(
    help="Sessions: volume pairs kept consistent to one instant.", no_args_is_help=True, rich_markup_mode=None
)
app.command(
    epilog=examples(
        "isochrone session create bank --primary a=tcp:10.0.0.1:7481 --pair a:db",
        "isochrone session create bank --primary a=tcp:10.0.0.1:7481 --primary b=tcp:10.0.0.2:7481 \\",
        "    --pair a:db=db-copy --pair b:wal=wal-copy --compression zstd --wait",
    )
)(create)
app.command("list", epilog=examples("isochrone session list", "isochrone session list --json"))(list_sessions)
app.command(
    "show",
    epilog=examples(
        "isochrone session show bank",
        "isochrone session show bank --wait duplex --timeout 3600",
        "isochrone session show bank --json",
    ),
)(show_session)
app.command(
    epilog=examples(
        "isochrone session add bank --pair a:logs=logs-copy",
        "isochrone session add bank --primary c=tcp:10.0.0.3:7481 --pair c:archive --wait",
    )
)(add)
app.command(epilog=examples("isochrone session remove bank logs-copy archive"))(remove)
app.command(
    "set",
    epilog=examples(
        "isochrone session set bank --pace-delay-ms-max 20",
        "isochrone session set bank --compression zstd --overflow suspend",
    ),
)(set_session)
app.command(
    epilog=examples(
        'isochrone session suspend bank --reason "line maintenance until 6:00"',
        "isochrone session suspend bank --at 2026-11-20T10:31:02.5Z",
        "isochrone session suspend bank --at +30s --wait    an image of the moment in half a minute",
        "isochrone session suspend bank --drain --wait      everything acknowledged by now is in the image",
        "isochrone session suspend bank --cancel            while it is pending",
        "isochrone session suspend bank --pair logs-copy --pair archive --drain",
    )
)(suspend)
app.command(
    epilog=examples(
        "isochrone session resume bank",
        "isochrone session resume bank --pair logs-copy",
        "isochrone session show bank --wait duplex",
    )
)(resume)
app.command(
    epilog=examples(
        "isochrone session recover bank                 the primary site is lost",
        "isochrone session recover bank --drain         planned switchover: nothing is lost",
        "isochrone session recover bank --at -10m       as it was ten minutes ago, from its history",
        "isochrone session recover bank --yes --json    from a script",
    )
)(recover)
app.command(
    epilog=examples(
        "isochrone session resync bank                       both histories; nothing is done",
        "isochrone session resync bank --discard secondary   at the recovered site",
        "isochrone session resync bank --discard primary --primary s=tcp:10.0.1.1:7481   at the old primary",
    )
)(resync)
app.command(
    epilog=examples(
        'isochrone session mark bank "before the upgrade"     at a primary; prints the exact time',
        'isochrone session mark bank "end of day" --no-wait --json',
    )
)(mark)
app.command(epilog=examples("isochrone session history bank", "isochrone session history bank --json"))(
    history
)
app.command(
    epilog=examples(
        "isochrone session image bank                             as of now, named by the time",
        "isochrone session image bank --as drill --at 2026-11-20T10:31:02.123456Z",
        'isochrone session image bank --as old --at "before the upgrade"',
        "isochrone session image bank --at -5m --json             five minutes ago",
        "isochrone session image bank --list",
        "isochrone session image bank --as drill --discard",
    )
)(image)
app.command(
    "delete", epilog=examples("isochrone session delete bank", "isochrone session delete bank --yes")
)(delete_session)
