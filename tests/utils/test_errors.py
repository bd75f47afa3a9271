import io
import logging
import sys
import warnings

import pytest

from motor_geo.utils.errors import ConfigError, run_command, suggest


def narrow():
    return io.TextIOWrapper(io.BytesIO(), encoding='ascii', errors='strict')


def test_what_cannot_be_printed_ends_nothing(monkeypatch):
    out, err = narrow(), narrow()
    monkeypatch.setattr(sys, 'stdout', out)
    monkeypatch.setattr(sys, 'stderr', err)

    def command():
        print('läden')
        logging.getLogger('motor_geo').info('Ω 1')
        warnings.warn('größe', stacklevel=1)
        raise ConfigError("'日本' is no folder")

    assert run_command(command) == 2
    for stream in (out, err):
        stream.flush()
    assert out.buffer.getvalue().decode() == 'l?den\n? 1\n'
    assert err.buffer.getvalue().decode() == "warning: gr??e\nerror: '??' is no folder\n"
    assert out.errors == err.errors == 'strict'  # As it was.


def test_streams_of_other_kinds(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', out := io.StringIO())
    monkeypatch.setattr(sys, 'stderr', None)

    def command():
        print('läden')
        return 0

    assert run_command(command) == 0 and out.getvalue() == 'läden\n'


@pytest.mark.parametrize(
    'error, code, said',
    [
        (ConfigError('two\n  lines'), 2, ('', 'error: two lines\n')),
        (FloatingPointError('inf'), 2, ('', 'error: inf\n')),
        (KeyboardInterrupt(), 130, ('\nstopped\n', '')),
    ],
)
def test_a_command_ends_in_a_line(error, code, said, capsys):
    def command():
        raise error

    assert run_command(command, 'stopped') == code
    assert tuple(capsys.readouterr()) == said


def test_suggestions_are_near():
    assert suggest('pacience', ['patience', 'epochs']) == "; did you mean 'patience'?"
    assert suggest('x', ['b', 'a']) == '; known are a, b'
