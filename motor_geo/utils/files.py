r"""Writing without leaving halves behind, locks of folders, and checked
matrices.
"""

from __future__ import annotations

import errno
import os
import os.path as osp
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from filelock import FileLock, Timeout

from motor_geo.utils.errors import ConfigError, one_line

TEMPORARY = '.tmp-'
#: What systems without locks say, such as some network file systems.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def remove_temporary(folder: str) -> None:
    r"""Removes what an :meth:`atomic_write` that was killed left in a folder.
    Files that another process is writing stay.
    """
    for name in os.listdir(folder):
        if name.startswith(TEMPORARY):
            process = name.removeprefix(TEMPORARY).partition('-')[0]
            if not (process.isdecimal() and _is_alive(int(process))):
                os.remove(osp.join(folder, name))


def _is_alive(process: int) -> bool:
    r"""Whether another process runs."""
    if process in (0, os.getpid()) or os.name != 'posix':
        return False
    try:
        os.kill(process, 0)
    except PermissionError:  # Of another user.
        return True
    except (OSError, OverflowError):
        return False
    return True


@contextmanager
def atomic_write(path: str) -> Iterator[str]:
    r"""Yields a temporary path in the folder of :obj:`path` and renames it to
    :obj:`path` when the block ends without an exception; otherwise removes
    it.

    Raises:
        OSError: If the folder cannot be written to, or the disk is full.
    """
    folder = osp.dirname(osp.abspath(path))
    os.makedirs(folder, exist_ok=True)
    suffix = osp.splitext(path)[1]  # `np.save` appends one that is missing.
    prefix = f'{TEMPORARY}{os.getpid()}-'
    handle, temporary = tempfile.mkstemp(suffix=suffix, prefix=prefix, dir=folder)
    os.close(handle)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # `mkstemp` makes private files.
        os.replace(temporary, path)
    except BaseException:
        if osp.exists(temporary):
            os.remove(temporary)
        raise


@contextmanager
def locked(folder: str, wait: bool = False) -> Iterator[bool]:
    r"""Holds the lock of a folder, which is the file :obj:`.lock` in it, and
    yields whether it could be had. The process that holds it may take it
    again; it ends with the process, however that ends.

    Args:
        folder: The folder, which is made if need be.
        wait: Whether to wait for another process.
    """
    with writing(folder):
        os.makedirs(folder, exist_ok=True)
    lock = FileLock(osp.join(osp.abspath(folder), '.lock'), is_singleton=True)
    with ExitStack() as stack:
        held = True
        try:
            stack.enter_context(lock.acquire(blocking=wait))
        except Timeout:
            held = False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(
                f"The file system of '{folder}' has no locks ({error.strerror}): let one process "
                'at a time work there',
                stacklevel=2,
            )
        yield held


def load_array(
    path: str, num_rows: int | None = None, mmap: bool = False, finite: bool = True
) -> np.ndarray:
    r"""Loads a feature matrix from a :obj:`.npy` file and checks it.

    Args:
        path: The file.
        num_rows: Expected number of rows, if known.
        mmap: If set to :obj:`True`, the file stays on disk.
        finite: If set to :obj:`False`, NaN and infinite values are let through.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is not a two-dimensional numeric :obj:`.npy`, has
            another number of rows, or holds NaN or infinite values; the
            message names the file and the first bad row.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f"'{path}' does not exist (expected a .npy feature matrix)")
    try:
        array = np.load(path, allow_pickle=False, mmap_mode='r' if mmap else None)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"'{path}' cannot be read as a numeric .npy file without pickled objects: {error}"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in 'fiu':
        found = (
            f'{array.ndim} dimensions of {array.dtype}'
            if isinstance(array, np.ndarray)
            else 'an archive'
        )
        raise ValueError(f"'{path}': expected a numeric matrix [items, width], got {found}")
    if num_rows is not None and array.shape[0] != num_rows:
        raise ValueError(f"'{path}': expected {num_rows} rows (one per item), got {array.shape[0]}")
    if array.shape[1] == 0:
        raise ValueError(f"'{path}': expected at least one column, got none")
    if finite:
        check_finite(array, f"'{path}'")
    return array


def check_finite(array: np.ndarray, name: str, block: int = 65_536) -> None:
    r"""Raises a :class:`ValueError` that names the first row of
    :obj:`array` with a NaN or infinite value.
    """
    for start in range(0, array.shape[0], block):
        bad = ~np.isfinite(array[start : start + block]).all(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            raise ValueError(
                f'{name}: row {row} holds NaN or infinite values; expected finite numbers'
            )


def check_writable(folder: str) -> None:
    r"""Checks that a folder can be written to or made, without making it.

    Raises:
        ConfigError: If not.
    """
    parent = osp.abspath(folder)
    while not osp.lexists(parent):
        parent = osp.dirname(parent)
    if not osp.isdir(parent):
        raise ConfigError(f"The folder '{folder}' cannot be made: '{parent}' is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"The folder '{folder}' cannot be written to: '{parent}' is read-only")


@contextmanager
def writing(path: str) -> Iterator[str]:
    r"""Gives errors of writing the name of the file."""
    try:
        yield path
    except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as the latter.
        reason = getattr(error, 'strerror', None) or f'{one_line(error)} (is the disk full?)'
        raise OSError(f"'{path}' cannot be written: {reason}") from error
