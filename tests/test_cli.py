import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import motor_geo
from motor_geo.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('name', sorted(COMMANDS))
def test_commands(name, monkeypatch):
    seen = []
    command = types.SimpleNamespace(main=lambda arguments: seen.append(arguments) or 3)
    monkeypatch.setitem(sys.modules, COMMANDS[name][0], command)
    assert main([name, '--k', '5']) == 3
    assert seen == [['--k', '5']]


@pytest.mark.parametrize('arguments', [[], ['--help'], ['-h']])
def test_help(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f'  {name} ' in out for name in COMMANDS)


def test_help_of_every_command_needs_no_pytorch():
    code = (
        'import contextlib, sys\n'
        'from motor_geo.__main__ import COMMANDS, main\n'
        'for name in COMMANDS:\n'
        '    with contextlib.suppress(SystemExit):\n'
        "        main([name, '--help'])\n"
        "assert 'torch' not in sys.modules\n"
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr
    assert out.stdout.count('usage: ') == len(COMMANDS)


def test_an_unknown_command(capsys):
    assert main(['recomend', 'x']) == 2
    error = capsys.readouterr().err
    assert error == "error: unknown command 'recomend'; did you mean 'recommend'?\n"
    assert main(['xyz']) == 2
    assert '; expected one of bundle, compare, ' in capsys.readouterr().err


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


@pytest.mark.parametrize('name', sorted(COMMANDS))
def test_every_command_exists(name):
    assert callable(importlib.import_module(COMMANDS[name][0]).main)
