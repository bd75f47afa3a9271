r"""Locks of folders that also hold between machines which share a file system."""

from __future__ import annotations

import logging
import os
import os.path as osp
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from motor_geo.utils.files import HOST, is_alive, writing

LOG = logging.getLogger(__name__)
#: The lock of a folder, and the file that a process creates to take over a lock.
LOCK, BREAK = '.lock', '.lock.break'
#: Seconds between two heartbeats, and the seconds of silence after which a lock is taken over.
BEAT, SILENT = 10.0, 120.0
#: Seconds after which an attempt to take over a lock counts as abandoned.
ABANDONED = 600.0
_HELD: dict[tuple[str, int, int], str] = {}  # Locks by path, process and thread.


def _boot() -> str:
    r"""Identifies this start of the operating system, if it has a name."""
    try:
        with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
            return file.read().strip()
    except OSError:
        return ''


#: Machines with the same name differ by it, and so do the processes of before a restart.
MACHINE = f'{HOST}-{_boot()}'


@contextmanager
def locked(folder: str, wait: bool = False) -> Iterator[bool]:
    r"""Acquires the lock of a folder, and yields whether this succeeded. The
    thread that holds the lock may acquire it again.

    The lock is the file :obj:`.lock` inside the folder, which only one process
    can create, on network file systems, too. It names the machine and the
    process, and a thread renews its time every ten seconds. If the process was
    killed, another one on the same machine takes the lock over at once, and one
    on another machine after two minutes. Ages are measured with the clock of
    the file system. A process that was suspended for longer may lose its lock,
    which it logs.

    Args:
        folder: The folder, which is created if necessary.
        wait: If set to :obj:`True`, waits until another process releases the
            lock.

    Raises:
        OSError: If the folder cannot be created or locked.
    """
    path = osp.join(osp.realpath(folder), LOCK)
    key = path, os.getpid(), threading.get_ident()
    if key in _HELD:
        yield True
        return
    with writing(folder):
        os.makedirs(folder, exist_ok=True)
        holder = _acquire(path, wait)
    if holder is None:
        yield False
        return
    _HELD[key] = holder
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, holder, stop), daemon=True)
    thread.start()
    try:
        yield True
    finally:
        del _HELD[key]
        stop.set()
        thread.join()
        if _read(path) == holder:
            with suppress(OSError):  # The folder may have been removed.
                os.remove(path)


def _acquire(path: str, wait: bool) -> str | None:
    r"""Creates or takes over a lock. Returns its content, or :obj:`None` if another
    process holds it.
    """
    holder = f'{MACHINE} {os.getpid()} {uuid.uuid4().hex}'
    pause = 0.01
    while not (_create(path, holder) or _take_over(path, holder)):
        if not wait and osp.lexists(path):
            return None
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    return holder


def _create(path: str, content: str) -> bool:
    r"""Creates a file, or returns :obj:`False` if it exists."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, 'w', encoding='ascii') as file:
            file.write(content)
    except OSError:
        os.remove(path)
        raise
    return True


def _read(path: str) -> str | None:
    r"""The content of a lock, or :obj:`None` if it does not exist."""
    try:
        with open(path, encoding='ascii', errors='replace') as file:
            return file.read()
    except OSError:
        return None


def _take_over(path: str, holder: str) -> bool:
    r"""Replaces a lock whose process has ended or is silent. Only one process at a
    time may try, so that none replaces the lock of one that was faster.
    """
    old = _read(path)
    breaker = osp.join(osp.dirname(path), BREAK)
    if not _create(breaker, holder):
        with suppress(FileNotFoundError):
            if time.time() - os.lstat(breaker).st_mtime > ABANDONED:
                os.remove(breaker)
        return False
    try:
        silence = os.lstat(breaker).st_mtime - os.lstat(path).st_mtime
        if _read(path) == old and (silence > SILENT or _has_ended(old or '')):
            os.replace(breaker, path)
            return True
    except FileNotFoundError:  # It has just been released.
        pass
    with suppress(FileNotFoundError):
        os.remove(breaker)
    return False


def _has_ended(holder: str) -> bool:
    r"""Whether the process of a lock is known to have ended."""
    machine, _, rest = holder.partition(' ')
    process = rest.partition(' ')[0]
    if machine != MACHINE or not process.isdecimal() or os.name != 'posix':
        return False
    if int(process) == os.getpid():  # Another thread, or an earlier process of this number.
        return holder not in _HELD.values()
    return not is_alive(int(process))


def _beat(path: str, holder: str, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        found = _read(path)
        if found == holder:
            with suppress(OSError):
                os.utime(path)
        elif found is not None:
            LOG.warning("'%s' was taken over by another process: this one was silent", path)
            return
