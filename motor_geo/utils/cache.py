r"""Hashing by content, and the cache that is keyed by it."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch_geometric
from torch import Tensor

from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import TEMPORARY, lock_file
from motor_geo.utils.saved import load, save

#: The variable that limits the size of the cache, in gigabytes, and its default.
LIMIT, GIGABYTES = 'MOTOR_GEO_CACHE_GB', 10.0
MOST = 256  # Entries that a process holds at a time: open files are few.
_HELD: dict[str, int] = {}  # Open files of the entries that this process uses, locked.


def fingerprint(*parts: Any) -> str:
    r"""Hash of the contents of arrays, tensors and plain values (nested in
    lists, tuples and dictionaries), equal across processes.
    """
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            digest.update(f'array{value.dtype.str}{value.shape}'.encode())
            if value.dtype.hasobject:
                add(value.tolist())
            else:
                digest.update(np.ascontiguousarray(value).data)
        elif isinstance(value, dict):
            digest.update(b'dict')
            for key in sorted(value):
                add(key)
                add(value[key])
        elif isinstance(value, (list, tuple)):
            digest.update(f'list{len(value)}'.encode())
            for entry in value:
                add(entry)
        else:
            digest.update(f'{type(value).__name__}:{value!r};'.encode())

    add(list(parts))
    return digest.hexdigest()[:16]


def cache_dir() -> str:
    r"""Folder of cached tokens and graphs: :obj:`motor_geo` inside PyG's home
    (:obj:`torch_geometric.get_home_dir()`).
    """
    return osp.join(torch_geometric.get_home_dir(), 'motor_geo')


def cache_limit() -> float:
    r"""Bytes that the cache may take, from the environment variable
    :obj:`MOTOR_GEO_CACHE_GB`, or 10 GB.

    Raises:
        ConfigError: If the variable is no number from 0 on.
    """
    text = os.environ.get(LIMIT, '')
    with suppress(ValueError):
        value = float(text) if text.strip() else GIGABYTES
        if value >= 0:
            return value * 1e9
    raise ConfigError(
        f'The environment variable {LIMIT}: expected a number of gigabytes from 0 on, or inf, '
        f"got '{text}'"
    )


def cache_entries() -> list[str]:
    r"""The files of the cache; not those that are being written."""
    folder = cache_dir()
    names = sorted(os.listdir(folder)) if osp.isdir(folder) else []
    names = [name for name in names if name.endswith('.pt') and not name.startswith(TEMPORARY)]
    return [osp.join(folder, name) for name in names]


def shrink_cache(limit: float) -> None:
    r"""Removes entries, the one that was not used for longest first, until the
    cache takes no more than a number of bytes. What a process that is alive
    has read or written stays, so that the cache may be larger.
    """
    entries = []
    for path in cache_entries():
        with suppress(OSError):  # Another process removes it, too.
            status = os.stat(path)
            entries.append((status.st_mtime_ns, path, status.st_size))
    size = sum(entry[-1] for entry in entries)
    for _, path, bytes_ in sorted(entries):
        if size <= limit:
            return
        with suppress(OSError), open(path, 'rb') as file:
            if lock_file(file.fileno(), shared=False):  # Not while a process holds it.
                os.remove(path)
                size -= bytes_


def _hold(path: str) -> None:
    r"""Marks an entry as used now, and in use for as long as the process lives."""
    with suppress(OSError):
        os.utime(path)
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        if not lock_file(handle, shared=True):  # Such as where there are no locks.
            os.close(handle)
            return
        if path not in _HELD and len(_HELD) == MOST:
            os.close(_HELD.pop(next(iter(_HELD))))
        if path in _HELD:  # The name may be that of another file by now.
            os.close(_HELD.pop(path))
        _HELD[path] = handle


def release() -> None:
    r"""Says that this process no longer uses what it has read and written."""
    while _HELD:
        os.close(_HELD.popitem()[1])


def cached(
    kind: str,
    key: str,
    compute: Callable[[], dict[str, Tensor]],
    fits: Callable[[dict[str, Tensor]], bool] = lambda state: True,
) -> dict[str, Tensor]:
    r"""Returns the tensors stored under :obj:`key`, or computes and stores
    them. An entry that is damaged, or that belongs to another key, is computed
    anew; a folder that cannot be written to disables the cache. If the cache
    has grown beyond its limit, see :meth:`shrink_cache`.

    Args:
        kind: Readable prefix of the file name.
        key: :meth:`fingerprint` of everything the result depends on.
        compute: Called without arguments on a miss.
        fits: Whether what is stored has the form of a result; an error says no.

    Raises:
        ConfigError: If the limit is no number.
    """
    limit = cache_limit()
    name = f'{kind}-{key}'
    path = osp.join(cache_dir(), f'{name}.pt')
    if osp.exists(path):
        with suppress(Exception):  # Damaged or foreign: replaced below.
            content = load(path, 'an entry of the cache')
            if content['name'] == name and fits(content['tensors']):
                _hold(path)
                return content['tensors']
    result = compute()
    # PyTorch reports some errors of files as the latter.
    with suppress(OSError, RuntimeError):
        save({'name': name, 'tensors': result}, path)
        _hold(path)
        shrink_cache(limit)
    return result
