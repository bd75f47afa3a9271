import subprocess
import sys
import types
from pathlib import Path

import pytest

import motor_geo
from motor_geo.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('name', sorted(COMMANDS))
def test_commands(name, monkeypatch):
    seen = []
    command = types.SimpleNamespace(main=lambda arguments: seen.append(arguments) or 3)
    monkeypatch.setitem(sys.modules, f'motor_geo.{name}', command)
    assert main([name, '--k', '5']) == 3
    assert seen == [['--k', '5']]


def test_every_command_exists():
    for name in COMMANDS:
        assert 'def main(' in (ROOT / 'motor_geo' / f'{name}.py').read_text()


@pytest.mark.parametrize('arguments', [[], ['--help'], ['-h']])
def test_help(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f'  {name} ' in out for name in COMMANDS)


def test_unknown_command(capsys):
    assert main(['recomend', 'x']) == 2
    error = capsys.readouterr().err
    assert "unknown command 'recomend'; expected run, " in error
    assert error.endswith("; did you mean 'recommend'?\n")


def test_interrupted(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, 'motor_geo.run', types.SimpleNamespace(main=interrupt))
    assert main(['run']) == 130
    assert 'interrupted' in capsys.readouterr().err


def test_module():
    command = [sys.executable, '-m', 'motor_geo', '--version']
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (out.stdout, out.returncode) == (f'motor-geo {motor_geo.__version__}\n', 0)
