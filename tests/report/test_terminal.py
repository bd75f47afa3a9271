import sys
from types import SimpleNamespace

import pytest

from motor_geo.report import terminal

COLUMNS, ROWS = ['recall', 'all', 'new'], [['id', '0.1', '0.05'], ['tokens', '0.12', '0.20']]


def test_plain_columns_are_aligned(capsys):
    terminal.print_table(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        'recall   all   new',
        'id       0.1  0.05',
        'tokens  0.12  0.20',
    ]


def test_plain_without_rich(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, 'rich.box', None)
    monkeypatch.setitem(sys.modules, 'rich', None)
    terminal.print_table(COLUMNS, ROWS)
    assert 'tokens  0.12  0.20' in capsys.readouterr().out


def test_rich_in_a_terminal(monkeypatch):
    console = pytest.importorskip('rich.console')
    printed = []
    monkeypatch.setattr(terminal, 'sys', SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: 1)))
    monkeypatch.setattr(console.Console, 'print', lambda self, table: printed.append(table))
    terminal.print_table(COLUMNS, ROWS)
    assert printed[0].row_count == 2 and len(printed[0].columns) == 3
