r"""Checks files before reading, and writes files atomically."""

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
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from motor_geo.utils.errors import ConfigError, one_line


def _processes() -> str:
    r"""Identifies the namespace of process numbers, if there is one."""
    try:
        return os.readlink('/proc/self/ns/pid')
    except OSError:
        return ''


TEMPORARY = '.tmp-'
#: Prefix of our temporary files. Other files belong to other programs.
OURS = re.compile(r'\.tmp-([0-9]+)-([0-9a-f]{8})-')
#: Error codes of systems without locks, such as some network file systems.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
#: Identifies this machine or container, within which a process number is unique.
HOST = f'{zlib.crc32((platform.node() + _processes()).encode()):08x}'
DAY = 86_400
_OWN: set[str] = set()  # Temporary files that this process is writing.
_SWEPT: set[str] = set()  # Folders in which this process has removed old temporary files.


def check_file(path: str, expected: str) -> None:
    r"""Checks that a path is a regular file, and not a folder or a pipe whose
    reader might wait forever.

    Args:
        path: The file.
        expected: What the file should be, for the message.

    Raises:
        FileNotFoundError: If the file is missing or not a regular file.
        OSError: If the path cannot be accessed.
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
    r"""Reads a JSON file.

    Args:
        path: The file.

    Raises:
        OSError: If the file is missing or cannot be read.
        ValueError: If it is not valid JSON.
    """
    check_file(path, 'a JSON file')
    with open(path, encoding='utf-8') as file:
        try:
            return json.load(file)
        except RecursionError as error:
            raise ValueError('it is nested too deeply') from error


def crc_of(path: str) -> int:
    r"""Returns the CRC-32 of a file."""
    value = 0
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            value = zlib.crc32(block, value)
    return value


def temporary_prefix() -> str:
    r"""Returns the prefix of temporary files of this process."""
    return f'{TEMPORARY}{os.getpid()}-{HOST}-'


def remove_temporary(folder: str) -> None:
    r"""Removes the temporary files that killed processes left in a folder. Files
    of running processes stay. Files from other machines, whose processes cannot
    be checked, stay for a day. Files with other names belong to other programs
    and stay.

    Args:
        folder: The folder.
    """
    for name in os.listdir(folder):
        found = OURS.match(name)
        path = osp.join(folder, name)
        if found is None or path in _OWN:
            continue
        with suppress(OSError):  # Another process may remove it.
            if found[2] != HOST:
                if time.time() - os.lstat(path).st_mtime < DAY:
                    continue
            elif is_alive(int(found[1])):
                continue
            if osp.isdir(path) and not osp.islink(path):
                shutil.rmtree(path)
            else:
                os.remove(path)


def is_alive(process: int) -> bool:
    r"""Returns whether a process other than this one is running."""
    if process in (0, os.getpid()) or os.name != 'posix':
        return False
    try:
        os.kill(process, 0)
    except PermissionError:  # It belongs to another user.
        return True
    except (OSError, OverflowError):
        return False
    return True


@contextmanager
def atomic_write(path: str) -> Iterator[str]:
    r"""Yields a temporary path in the folder of :obj:`path`. When the block ends,
    renames the temporary file to :obj:`path`, or removes it after an exception.
    The content reaches the disk before the new name does, so a power failure
    leaves either the old or the new file. Also removes temporary files of
    killed processes from the folder.

    Args:
        path: The file to write. Its folder is created if necessary.

    Raises:
        OSError: If the folder is not writable or the disk is full.
    """
    if osp.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    folder = osp.dirname(osp.abspath(path))
    os.makedirs(folder, exist_ok=True)
    if folder not in _SWEPT:
        _SWEPT.add(folder)
        with suppress(OSError):
            remove_temporary(folder)
    suffix = osp.splitext(path)[1]  # Otherwise, `np.save` would append one.
    with _naming(path):
        handle, temporary = tempfile.mkstemp(suffix=suffix, prefix=temporary_prefix(), dir=folder)
    os.close(handle)
    _OWN.add(temporary)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # `mkstemp` creates private files.
        _flush(temporary, os.O_RDWR)
        with _naming(path):
            os.replace(temporary, path)
        _flush(folder, os.O_RDONLY)
    except BaseException:
        if osp.exists(temporary):
            os.remove(temporary)
        raise
    finally:
        _OWN.discard(temporary)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    r"""Errors within the block name this path, not a temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _flush(path: str, flags: int) -> None:
    r"""Waits until a file or a folder is written to disk."""
    if os.name != 'posix':  # Other systems cannot open folders.
        return
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *NO_LOCKS):  # Not supported by the file system.
            raise
    finally:
        os.close(handle)


@contextmanager
def temporary_folder(folder: str) -> Iterator[str]:
    r"""Yields a new temporary folder inside a folder. When the block ends,
    removes it unless it was renamed.

    Args:
        folder: The parent folder, which is created if necessary.
    """
    os.makedirs(folder, exist_ok=True)
    with suppress(OSError):
        remove_temporary(folder)
    with _naming(folder):
        path = tempfile.mkdtemp(prefix=temporary_prefix(), dir=folder)
    _OWN.add(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _OWN.discard(path)


def move_folder(temporary: str, folder: str) -> None:
    r"""Moves a finished temporary folder into place. After a power failure, the
    new folder has either all of the content or none.

    Args:
        temporary: The finished folder.
        folder: The new folder, which must be empty or not exist.

    Raises:
        ConfigError: If another process created the folder first.
        WritingError: If the folder cannot be renamed.
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
        raise ConfigError(f"'{folder}' already exists: another process created it first") from error
    _flush(osp.dirname(folder), os.O_RDONLY)


def finish_folder(temporary: str) -> None:
    r"""Gives a temporary folder the usual permissions, and waits until its
    content is written to disk.

    Args:
        temporary: The folder.
    """
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o777 & ~mask)  # `mkdtemp` creates private folders.
    for place, _, names in os.walk(temporary):
        for name in names:
            _flush(osp.join(place, name), os.O_RDONLY)
        _flush(place, os.O_RDONLY)


def check_new(folder: str) -> None:
    r"""Checks that a folder can be created or is empty.

    Args:
        folder: The folder.

    Raises:
        ConfigError: If it is not empty, not writable, or a mount point.
    """
    check_writable(folder)
    real = osp.realpath(folder)
    try:
        os.lstat(real)
    except FileNotFoundError:
        pass
    except OSError as error:  # For example, the name is too long.
        raise ConfigError(f"The folder '{folder}' cannot be created: {error.strerror}") from error
    if osp.lexists(real) and (not osp.isdir(real) or os.listdir(real)):
        raise ConfigError(f"'{folder}' already exists; choose another folder or delete it")
    if osp.ismount(real):
        raise ConfigError(f"'{folder}' is a mount point; expected a folder inside it")
    check_writable(osp.dirname(real))


def lock_file(handle: int, shared: bool) -> bool:
    r"""Tries to lock an open file until it is closed, without waiting.

    Args:
        handle: The file descriptor.
        shared: If set to :obj:`True`, other processes may also hold a shared
            lock.

    Returns:
        Whether the file was locked. Always :obj:`False` on systems without
        such locks.
    """
    try:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def check_writable(folder: str) -> None:
    r"""Checks that a folder is writable or can be created, without creating it.

    Args:
        folder: The folder.

    Raises:
        ConfigError: If it is not writable or cannot be created.
    """
    parent = osp.abspath(folder)
    while not osp.lexists(parent):
        parent = osp.dirname(parent)
    if not osp.isdir(parent):
        raise ConfigError(f"The folder '{folder}' cannot be created: '{parent}' is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"The folder '{folder}' cannot be written to: '{parent}' is read-only")


class WritingError(OSError):
    r"""Raised if a file cannot be written. The message names the file."""


@contextmanager
def writing(path: str) -> Iterator[str]:
    r"""Adds the name of the file to errors during writing.

    Args:
        path: The file.

    Raises:
        WritingError: If writing fails; the message names the file.
    """
    try:
        yield path
    except WritingError:  # It names another file.
        raise
    except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as the latter.
        reason = getattr(error, 'strerror', None) or f'{one_line(error)} (is the disk full?)'
        raise WritingError(f"'{path}' cannot be written: {reason}") from error
