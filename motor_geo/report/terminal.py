r"""Prints small tables to a terminal: in color if :obj:`rich` is installed and the
output is a terminal, and as plain text otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], bold: int = -1) -> None:
    r"""Prints a table. The first column is left-aligned, and the others are
    right-aligned.

    Args:
        columns: Headers of the columns.
        rows: Cells of each row.
        bold: Position of the row to highlight in color.
    """
    if not _print_rich(columns, rows, bold):
        print(plain_table(columns, rows))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Formats a table as plain text.

    Args:
        columns: Headers of the columns.
        rows: Cells of each row.
    """
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return '\n'.join(
        '  '.join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]
        ).rstrip()
        for line in lines
    )


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], bold: int) -> bool:
    if not sys.stdout.isatty():
        return False
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify='right' if i else 'left')
    for i, row in enumerate(rows):
        style = 'bold green' if i == bold % len(rows) else ''
        table.add_row(*(Text(cell, style) for cell in row))
    Console().print(table)
    return True
