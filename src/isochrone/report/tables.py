"""Plain tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def table_of(headings: Sequence[str]) -> Table:
    """A plain table; a heading that ends with `>` is of a column of figures."""
    table = Table(
        box=None, pad_edge=False, header_style="bold dim", collapse_padding=True, padding=(0, 2, 0, 0)
    )
    for heading in headings:
        table.add_column(heading.rstrip(">"), justify="right" if heading.endswith(">") else "left")
    return table


def row(table: Table, *cells: str | Text) -> None:
    """Add a line; text that came from outside is never markup."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))


def facts_table(facts: Iterable[tuple[str, str | Text]]) -> Table:
    """One fact a line: its name, and what it is."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    for name, value in facts:
        row(table, name, value)
    return table


def indented(table: Table) -> RenderableType:
    """`table`, a little to the right."""
    return Padding(table, (0, 0, 0, 2), expand=False)
