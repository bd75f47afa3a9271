r"""Prints each error and warning as a single line."""

from __future__ import annotations

import difflib
import io
import logging
import os
import re
import select
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class ConfigError(ValueError):
    r"""Raised if a key or a value of a configuration is invalid."""


def one_line(error: BaseException) -> str:
    r"""Returns the message of an error without line breaks."""
    return ' '.join(line.strip() for line in str(error).splitlines())


@contextmanager
def plain_warnings() -> Iterator[None]:
    r"""Shows each warning on one line, without its location in the source. It
    always shows the warnings of this package, regardless of the Python option
    :obj:`-W`, because they describe what a command did.
    """

    def show(message: Any, *args: Any, **kwargs: Any) -> None:
        print(f'warning: {one_line(message)}', file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.filterwarnings('default', category=UserWarning, module='motor_geo')
        yield


@contextmanager
def any_output() -> Iterator[None]:
    r"""Prints a question mark for each character that the encoding of the output
    lacks.
    """
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors='replace')
    try:
        yield
    finally:
        for stream, errors in zip(streams, before):
            stream.reconfigure(errors=errors)


@contextmanager
def plain_log() -> Iterator[None]:
    r"""Prints the log messages of the package as plain lines."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(record.getMessage(), flush=True)

    logger, handler = logging.getLogger('motor_geo'), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def closed_output() -> bool:
    r"""Returns whether the reader of the standard output has closed it. If so,
    discards all further output.
    """
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError):
        return False  # It is not a file.
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, output)
    os.close(null)
    return True


def run_command(command: Callable[[], int], interrupted: str = 'interrupted') -> int:
    r"""Runs a command, and prints each error, warning or interruption on one
    line, even if it occurs while modules are imported. Characters that cannot
    be printed do not stop a command, but a closed output does.

    Args:
        command: The command, which returns its exit status.
        interrupted: The message after Ctrl-C.

    Returns:
        The exit status of the command, 2 after an error, 130 after Ctrl-C, or
        141 after a broken pipe (:obj:`... | head`).
    """
    with any_output():
        try:
            with plain_warnings(), plain_log():
                code = command()
                if sys.stdout is not None:
                    sys.stdout.flush()
                return code
        except BrokenPipeError as error:
            if not closed_output():  # Another pipe is broken.
                print(f'error: {one_line(error)}', file=sys.stderr)
                return 2
            return 141
        except (ValueError, OSError, FloatingPointError, ImportError) as error:
            print(f'error: {one_line(error)}', file=sys.stderr)
            return 2
        except (MemoryError, RuntimeError) as error:
            text = out_of_memory(error)
            if text is None:
                raise
            print(f'error: {text}', file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f'\n{interrupted}')
            return 130


def out_of_memory(error: BaseException) -> str | None:
    r"""Returns a message if an error means that memory is exhausted, and
    :obj:`None` otherwise.
    """
    text = one_line(error)
    if isinstance(error, MemoryError):
        return f'out of memory: {text}' if text else 'out of memory'
    if not ('allocate memory' in text or 'out of memory' in text or 'bad_alloc' in text):
        return None
    found = re.search(r'tried to allocate (\d+) bytes|[Tt]ried to allocate ([\d.]+ [KMGT]iB)', text)
    if found is None:
        return 'out of memory'
    size = found[2] or f'{int(found[1]) / 1e9:.1f} GB'
    return f'out of memory: tried to allocate {size} at once'


def suggest(name: str, known: Iterable[str]) -> str:
    r"""Returns the end of an error message about an unknown name: the closest
    known name, or else all known names.

    Args:
        name: The unknown name.
        known: The known names.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    lower = [entry for entry in known if entry.lower() == name.lower()]
    if lower or close:
        return f"; did you mean '{(lower or close)[0]}'?"
    return f'; expected one of {", ".join(known)}'
