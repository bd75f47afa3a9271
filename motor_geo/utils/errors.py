r"""Errors and warnings as one sentence each."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class ConfigError(ValueError):
    r"""A key or a value of a configuration is wrong."""


def one_line(error: BaseException) -> str:
    r"""The message of an error without line breaks."""
    return ' '.join(line.strip() for line in str(error).splitlines())


@contextmanager
def plain_warnings() -> Iterator[None]:
    r"""Shows warnings as a line each, without the place in the source."""

    def show(message: Any, *args: Any, **kwargs: Any) -> None:
        print(f'warning: {one_line(message)}', file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def run_command(command: Callable[[], int], interrupted: str = 'interrupted') -> int:
    r"""Runs a command. Errors and warnings are a line each, and so is an
    interruption, also while modules are imported.

    Args:
        command: Returns the exit status.
        interrupted: What is said after Ctrl-C.

    Returns:
        The exit status: 2 after an error, 130 after Ctrl-C.
    """
    try:
        with plain_warnings():
            return command()
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'\n{interrupted}')
        return 130


def suggest(name: str, known: Iterable[str]) -> str:
    r"""The end of an error message: the nearest known name, or all names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    lower = [entry for entry in known if entry.lower() == name.lower()]
    if lower or close:
        return f"; did you mean '{(lower or close)[0]}'?"
    return f'; known are {", ".join(known)}'
