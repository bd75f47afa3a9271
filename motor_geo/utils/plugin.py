r"""Finds classes and functions of other packages by their import path or by the
name of an entry point.
"""

from __future__ import annotations

import importlib
import inspect
import os
import os.path as osp
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

from motor_geo.utils.errors import one_line, suggest


def plugins(group: str) -> dict[str, str]:
    r"""Returns the import paths of all entry points in a group, by name.

    Args:
        group: Name of the group.
    """
    return {point.name: point.value.replace(':', '.') for point in entry_points(group=group)}


def import_class(path: str, base: type | tuple[type, ...]) -> type:
    r"""Imports a class by its import path, such as :obj:`"my_package.MyGNN"`.
    Like :obj:`python -m`, it also finds modules in the current folder.

    Args:
        path: Module and name, separated by a dot.
        base: The required base class, or several of which one is enough.

    Raises:
        ValueError: If the module or the class does not exist, the module cannot
            be imported, or the class has another base. The message is meant to
            follow the path.
    """
    target = _import(path, lambda value: _is_class(value, base))
    if not _is_class(target, base):
        raise ValueError(f'is {_kind(target)}; expected a class derived from {names(base)}')
    return target


def names(base: type | tuple[type, ...]) -> str:
    r"""Joins the names of classes with "or"."""
    return base.__name__ if isinstance(base, type) else ' or '.join(map(names, base))


def import_function(path: str) -> Callable[..., Any]:
    r"""Imports a function by its import path, such as
    :obj:`"my_package.my_metric"`.

    Args:
        path: Module and name, separated by a dot.

    Raises:
        ValueError: As in :func:`import_class`.
    """
    target = _import(path, inspect.isfunction)
    if not callable(target) or inspect.isclass(target):
        kind = 'class' if inspect.isclass(target) else type(target).__name__
        raise ValueError(f'is a {kind}; expected a function')
    return target


def _import(path: str, wanted: Callable[[object], bool]) -> Any:
    r"""Imports the object that an import path names. If the name is unknown, the
    message suggests names of objects that are :obj:`wanted`.
    """
    module, _, name = path.rpartition('.')
    with _current_folder():
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and f'{module}.'.startswith(f'{error.name}.'):
                raise ValueError(
                    f"cannot be imported: there is no module '{error.name}', neither in the "
                    'current folder nor installed'
                ) from error
            raise ValueError(f'cannot be imported: {_place(error)}') from error
        except Exception as error:
            raise ValueError(f'cannot be imported: {_place(error)}') from error
    target = getattr(found, name, None)
    if target is None:
        known = [key for key, value in vars(found).items() if wanted(value)]
        hint = suggest(name, known) if known else ''
        raise ValueError(f"cannot be imported: the module '{module}' has no '{name}'{hint}")
    return target


def _is_class(value: object, base: type | tuple[type, ...]) -> bool:
    return inspect.isclass(value) and issubclass(value, base)


def _kind(value: object) -> str:
    return 'another class' if inspect.isclass(value) else f'a {type(value).__name__}'


def _place(error: Exception) -> str:
    r"""Formats an error with the file and the line where it occurred."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if 'importlib' not in frame.filename]
    file, line = own[-1].filename, own[-1].lineno
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
        error = SyntaxError(error.msg)
    return f"'{osp.relpath(file)}', line {line}: {type(error).__name__}: {one_line(error)}"


@contextmanager
def _current_folder() -> Iterator[None]:
    folder = os.getcwd()
    importlib.invalidate_caches()  # A module may have been written since the last import.
    if folder in sys.path or '' in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
