import io
import logging
import os
import subprocess
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


@pytest.mark.parametrize('lines', [1, 100_000])
def test_a_reader_that_leaves_ends_a_command_without_a_word(lines):
    code = (
        'import sys; from motor_geo.utils.errors import run_command\n'
        f'sys.exit(run_command(lambda: print("line\\n" * {lines}) or 0))'
    )
    read, write = os.pipe()
    os.close(read)
    for how in ([], ['-u']):
        process = [sys.executable, *how, '-c', code]
        done = subprocess.run(process, stdout=write, stderr=subprocess.PIPE)
        assert done.returncode == 141 and done.stderr == b''
    os.close(write)


def test_another_pipe_that_breaks_is_an_error(capsys):
    def command():
        raise BrokenPipeError(32, 'Broken pipe')

    assert run_command(command) == 2
    assert capsys.readouterr().err == 'error: [Errno 32] Broken pipe\n'


def test_suggestions_are_near():
    assert suggest('pacience', ['patience', 'epochs']) == "; did you mean 'patience'?"
    assert suggest('x', ['b', 'a']) == '; expected one of a, b'


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (MemoryError(), 'out of memory'),
        (
            MemoryError("'x.npy' does not fit into memory (9.0 GB)"),
            "out of memory: 'x.npy' does not fit into memory (9.0 GB)",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
                'memory: you tried to allocate 800000000000 bytes. Error code 12'
            ),
            'out of memory: tried to allocate 800.0 GB at once',
        ),
        (
            RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has'),
            'out of memory: tried to allocate 2.00 GiB at once',
        ),
        (RuntimeError('std::bad_alloc'), 'out of memory'),
    ],
)
def test_no_memory_is_one_sentence(capsys, error, text):
    def command():
        raise error

    assert run_command(command) == 2
    assert capsys.readouterr().err == f'error: {text}\n'


def test_other_errors_of_pytorch_are_not_swallowed():
    def command():
        raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')

    with pytest.raises(RuntimeError, match='mat1'):
        run_command(command)
