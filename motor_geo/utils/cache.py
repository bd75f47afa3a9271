r"""Hashes of contents, and a cache on disk that is keyed by them."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch_geometric
from torch import Tensor

from motor_geo.typing import LazyEdges
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import TEMPORARY, lock_file
from motor_geo.utils.saved import load, save

#: The environment variable that limits the size of the cache in gigabytes, and its default.
LIMIT, GIGABYTES = 'MOTOR_GEO_CACHE_GB', 10.0
MOST = 256  # Maximum number of entries that a process locks, since open files are limited.
_HELD: dict[str, int] = {}  # Handles of the locked entries that this process uses.


class Single(NamedTuple):
    r"""A tensor that :func:`fingerprint` hashes as if it had single precision."""

    x: Tensor


def fingerprint(*parts: Any) -> str:
    r"""Returns a hash of the contents of arrays, tensors and plain values, which
    may be nested in lists, tuples and dictionaries. It is the same in all
    processes. :class:`~motor_geo.typing.LazyEdges` count as the tensor that they
    stand for, block by block.

    Args:
        *parts: The values.
    """
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Single):
            x = value.x.cpu()
            digest.update(f'array<f4{tuple(x.shape)}'.encode())
            for block in x.split(max(1, 2**20 // max(1, x[:1].numel()))):
                digest.update(np.ascontiguousarray(block.float().numpy()).data)
            return
        if isinstance(value, LazyEdges):
            blocks = chain(value.blocks(0), value.blocks(1))
            for i, block in enumerate(block.cpu().numpy() for block in blocks):
                if i == 0:
                    digest.update(f'array{block.dtype.str}{(2, value.size)}'.encode())
                digest.update(np.ascontiguousarray(block).data)
            return
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
    r"""Returns the folder of the cache: :obj:`motor_geo` inside the home folder
    of PyG (:obj:`torch_geometric.get_home_dir()`).
    """
    return osp.join(torch_geometric.get_home_dir(), 'motor_geo')


def cache_limit() -> float:
    r"""Returns the size limit of the cache in bytes, from the environment
    variable :obj:`MOTOR_GEO_CACHE_GB`. (default: 10 GB)

    Raises:
        ConfigError: If the variable is not a non-negative number.
    """
    text = os.environ.get(LIMIT, '')
    with suppress(ValueError):
        value = float(text) if text.strip() else GIGABYTES
        if value >= 0:
            return value * 1e9
    raise ConfigError(
        f'The environment variable {LIMIT}: expected a non-negative number of gigabytes or inf, '
        f"got '{text}'"
    )


def cache_entries() -> list[str]:
    r"""Returns the paths of all complete entries of the cache."""
    folder = cache_dir()
    names = sorted(os.listdir(folder)) if osp.isdir(folder) else []
    names = [name for name in names if name.endswith('.pt') and not name.startswith(TEMPORARY)]
    return [osp.join(folder, name) for name in names]


def shrink_cache(limit: float) -> None:
    r"""Removes the least recently used entries until the cache is within a size
    limit. Entries that a running process has read or written stay, so the cache
    may exceed the limit.

    Args:
        limit: The size limit in bytes.
    """
    entries = []
    for path in cache_entries():
        with suppress(OSError):  # Another process may remove it.
            status = os.stat(path)
            entries.append((status.st_mtime_ns, path, status.st_size))
    size = sum(entry[-1] for entry in entries)
    for _, path, bytes_ in sorted(entries):
        if size <= limit:
            return
        with suppress(OSError), open(path, 'rb') as file:
            if lock_file(file.fileno(), shared=False):  # Fails while another process uses it.
                os.remove(path)
                size -= bytes_


def _hold(path: str) -> None:
    r"""Updates the time of last use of an entry, and locks it until this process
    ends or locks :obj:`MOST` other entries.
    """
    with suppress(OSError):
        os.utime(path)
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        if not lock_file(handle, shared=True):  # For example, if there are no locks.
            os.close(handle)
            return
        if path not in _HELD and len(_HELD) == MOST:
            os.close(_HELD.pop(next(iter(_HELD))))
        if path in _HELD:  # Another file may have this name by now.
            os.close(_HELD.pop(path))
        _HELD[path] = handle


def release() -> None:
    r"""Unlocks all entries that this process has read or written."""
    while _HELD:
        os.close(_HELD.popitem()[1])


def cached(
    kind: str,
    key: str,
    compute: Callable[[], dict[str, Tensor]],
    fits: Callable[[dict[str, Tensor]], bool] = lambda state: True,
) -> dict[str, Tensor]:
    r"""Returns the tensors stored under :obj:`key`, or computes and stores
    them. It computes an entry again if it is damaged or belongs to another key.
    If the folder is not writable, nothing is stored. If the cache exceeds its
    limit, :meth:`shrink_cache` removes entries.

    Args:
        kind: Readable prefix of the file name.
        key: The :meth:`fingerprint` of everything that the result depends on.
        compute: Computes the tensors if there is no valid entry.
        fits: Returns whether stored tensors have the form of a result. An
            exception counts as :obj:`False`. (default: always)

    Raises:
        ConfigError: If the size limit is not a non-negative number.
    """
    limit = cache_limit()
    name = f'{kind}-{key}'
    path = osp.join(cache_dir(), f'{name}.pt')
    if osp.exists(path):
        with suppress(Exception):  # Replaces damaged and foreign entries below.
            content = load(path, 'an entry of the cache')
            if content['name'] == name and fits(content['tensors']):
                _hold(path)
                return content['tensors']
    result = compute()
    # PyTorch reports some I/O errors as the latter.
    with suppress(OSError, RuntimeError):
        save({'name': name, 'tensors': result}, path)
        _hold(path)
        shrink_cache(limit)
    return result
