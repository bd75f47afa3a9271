r"""Reading files that may be anything, writing without leaving halves behind,
and locks of folders.
"""

from __future__ import annotations

import errno
import json
import os
import os.path as osp
import platform
import re
import shutil
import stat
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from filelock import FileLock, Timeout

from motor_geo.utils.errors import ConfigError, one_line


def _processes() -> str:
    r"""Names what numbers processes here, if anything does."""
    try:
        return os.readlink('/proc/self/ns/pid')
    except OSError:
        return ''


TEMPORARY = '.tmp-'
#: How names of temporary files begin. Others belong to somebody else.
OURS = re.compile(r'\.tmp-([0-9]+)-([0-9a-f]{8})-')
#: What systems without locks say, such as some network file systems.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
#: Tells where the number of a process means that process (this machine, or this container).
HOST = f'{zlib.crc32((platform.node() + _processes()).encode()):08x}'
DAY = 86_400
_OWN: set[str] = set()  # Temporary files that this process is writing.
_SWEPT: set[str] = set()  # Folders that it has looked for left ones.


def check_file(path: str, expected: str) -> None:
    r"""Checks that a file can be read to its end: that it is there, and neither
    a folder nor a pipe that nobody may ever write to.

    Args:
        path: The file.
        expected: What it should be, for the message.

    Raises:
        OSError: If not.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if osp.islink(path):
            raise FileNotFoundError(
                f"'{path}' is a link to '{os.readlink(path)}', which does not exist; expected "
                f'{expected}'
            ) from None
        raise FileNotFoundError(f"'{path}' does not exist (expected {expected})") from None
    except OSError as error:
        raise OSError(f"'{path}' cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        kind = 'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'
        raise FileNotFoundError(f"'{path}' is {kind}; expected {expected}")


def read_json(path: str) -> Any:
    r"""The content of a file of JSON.

    Raises:
        OSError: If it is missing, or no file that can be read.
        ValueError: If it is no JSON.
    """
    check_file(path, 'a file of JSON')
    with open(path, encoding='utf-8') as file:
        try:
            return json.load(file)
        except RecursionError as error:
            raise ValueError('it is nested too deep') from error


def crc_of(path: str) -> int:
    r"""The CRC-32 of a file."""
    value = 0
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            value = zlib.crc32(block, value)
    return value


def temporary_prefix() -> str:
    r"""How names of temporary files of this process begin."""
    return f'{TEMPORARY}{os.getpid()}-{HOST}-'


def remove_temporary(folder: str) -> None:
    r"""Removes what an :meth:`atomic_write` that was killed left in a folder.
    What another process is writing stays, and so does for a day what a process
    of another machine wrote, of which nothing is known. Files that are named
    otherwise are not ours.
    """
    for name in os.listdir(folder):
        found = OURS.match(name)
        path = osp.join(folder, name)
        if found is None or path in _OWN:
            continue
        with suppress(OSError):  # Another process removes it, too.
            if found[2] != HOST:
                if time.time() - os.lstat(path).st_mtime < DAY:
                    continue
            elif _is_alive(int(found[1])):
                continue
            if osp.isdir(path) and not osp.islink(path):
                shutil.rmtree(path)
            else:
                os.remove(path)


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
    it. The content is on the disk before the name is, so that a loss of power
    leaves the old file or the new one. What killed processes left in the
    folder is removed.

    Raises:
        OSError: If the folder cannot be written to, or the disk is full.
    """
    folder = osp.dirname(osp.abspath(path))
    os.makedirs(folder, exist_ok=True)
    if folder not in _SWEPT:
        _SWEPT.add(folder)
        with suppress(OSError):
            remove_temporary(folder)
    suffix = osp.splitext(path)[1]  # `np.save` appends one that is missing.
    handle, temporary = tempfile.mkstemp(suffix=suffix, prefix=temporary_prefix(), dir=folder)
    os.close(handle)
    _OWN.add(temporary)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # `mkstemp` makes private files.
        _flush(temporary, os.O_RDWR)
        os.replace(temporary, path)
        _flush(folder, os.O_RDONLY)
    except BaseException:
        if osp.exists(temporary):
            os.remove(temporary)
        raise
    finally:
        _OWN.discard(temporary)


def _flush(path: str, flags: int) -> None:
    r"""Waits until a file or a folder is on the disk."""
    if os.name != 'posix':  # Folders cannot be opened elsewhere.
        return
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *NO_LOCKS):  # A file system that cannot.
            raise
    finally:
        os.close(handle)


@contextmanager
def temporary_folder(folder: str) -> Iterator[str]:
    r"""Yields a new folder in a folder, which is removed in the end unless it
    was renamed.
    """
    os.makedirs(folder, exist_ok=True)
    with suppress(OSError):
        remove_temporary(folder)
    path = tempfile.mkdtemp(prefix=temporary_prefix(), dir=folder)
    _OWN.add(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _OWN.discard(path)


def move_folder(temporary: str, folder: str) -> None:
    r"""Gives a finished folder its name: :obj:`folder` does not exist or is
    empty, and holds all of it or nothing after a loss of power.

    Raises:
        ConfigError: If another process was faster.
    """
    finish_folder(temporary)
    folder = osp.realpath(folder)
    try:
        if osp.isdir(folder):
            os.rmdir(folder)
        os.rename(temporary, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise WritingError(f"'{folder}' cannot be written: {error.strerror}") from error
        raise ConfigError(f"'{folder}' exists already: another process was faster") from error
    _flush(osp.dirname(folder), os.O_RDONLY)


def finish_folder(temporary: str) -> None:
    r"""Gives a temporary folder the rights of others, and waits until all that
    is in it is on the disk.
    """
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o777 & ~mask)  # `mkdtemp` makes private folders.
    for place, _, names in os.walk(temporary):
        for name in names:
            _flush(osp.join(place, name), os.O_RDONLY)
        _flush(place, os.O_RDONLY)


def check_new(folder: str) -> None:
    r"""Checks that a folder can be made, or is there and empty.

    Raises:
        ConfigError: If not.
    """
    check_writable(folder)
    real = osp.realpath(folder)
    try:
        os.lstat(real)
    except FileNotFoundError:
        pass
    except OSError as error:  # Its name is too long.
        raise ConfigError(f"The folder '{folder}' cannot be made: {error.strerror}") from error
    if osp.lexists(real) and (not osp.isdir(real) or os.listdir(real)):
        raise ConfigError(f"'{folder}' exists already; give another folder or delete it")
    if osp.ismount(real):
        raise ConfigError(f"'{folder}' is where a disk is mounted; expected a folder in it")
    check_writable(osp.dirname(real))


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
        except (OSError, NotImplementedError) as error:  # The latter before filelock 3.20.
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            reason = getattr(error, 'strerror', None) or 'flock is missing'
            warnings.warn(
                f"The file system of '{folder}' has no locks ({reason}): let one process at a time "
                'work there',
                stacklevel=2,
            )
        yield held


def lock_file(handle: int, shared: bool) -> bool:
    r"""Locks an open file until it is closed, for this process or, if shared,
    for all that only read; returns whether that was possible at once. Systems
    without such locks say no.
    """
    try:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


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


class WritingError(OSError):
    r"""A file cannot be written; the message names it."""


@contextmanager
def writing(path: str) -> Iterator[str]:
    r"""Gives errors of writing the name of the file."""
    try:
        yield path
    except WritingError:  # Of a file beside it.
        raise
    except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as the latter.
        reason = getattr(error, 'strerror', None) or f'{one_line(error)} (is the disk full?)'
        raise WritingError(f"'{path}' cannot be written: {reason}") from error
