r"""Hashing by content, and the cache that is keyed by it."""

from __future__ import annotations

import hashlib
import os.path as osp
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch_geometric
from torch import Tensor

from motor_geo.utils.saved import load, save


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


def cached(
    kind: str,
    key: str,
    compute: Callable[[], dict[str, Tensor]],
    fits: Callable[[dict[str, Tensor]], bool] = lambda state: True,
) -> dict[str, Tensor]:
    r"""Returns the tensors stored under :obj:`key`, or computes and stores
    them. An entry that is damaged, or that belongs to another key, is computed
    anew; a folder that cannot be written to disables the cache.

    Args:
        kind: Readable prefix of the file name.
        key: :meth:`fingerprint` of everything the result depends on.
        compute: Called without arguments on a miss.
        fits: Whether what is stored has the form of a result; an error says no.
    """
    name = f'{kind}-{key}'
    path = osp.join(cache_dir(), f'{name}.pt')
    if osp.exists(path):
        with suppress(Exception):  # Damaged or foreign: replaced below.
            content = load(path, 'an entry of the cache')
            if content['name'] == name and fits(content['tensors']):
                return content['tensors']
    result = compute()
    # PyTorch reports some errors of files as the latter.
    with suppress(OSError, RuntimeError):
        save({'name': name, 'tensors': result}, path)
    return result
