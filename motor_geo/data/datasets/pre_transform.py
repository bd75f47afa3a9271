r"""Stores transformed graphs on disk."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from motor_geo.data.datasets.base import Transform
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.saved import load, save

PLAIN = (bool, int, float, str, type(None))


def apply_once(data: HeteroData, transform: Transform, folder: str, key: str) -> HeteroData:
    r"""Applies a transform, or loads its stored result.

    The result is only stored if the arguments of the transform determine what
    it does: it must be a PyG transform whose attributes are plain values,
    tensors, arrays or such transforms, and applying it must not change them.
    Other transforms, such as functions or a tokenizer that fits itself, are
    applied every time.

    Args:
        data: The graph.
        transform: The transform.
        folder: Folder of the stored graphs.
        key: Hash of the graph.
    """
    before = _describe(transform)
    path = osp.join(folder, f'pre_transformed_{fingerprint(key, before)}.pt')
    if before is not None and osp.isfile(path):
        try:
            return HeteroData.from_dict(load(path, 'a graph'))
        except Exception:  # Damaged: computed again below.
            pass
    out = transform(copy.copy(data))
    content = out.to_dict()
    same = before is not None and fingerprint(before) == fingerprint(_describe(transform))
    if same and _is_plain(content):
        save(content, path)
    return out


def _describe(value: Any) -> Any:
    r"""Returns nested lists that identify a transform, or :obj:`None` if its
    attributes do not identify it.
    """
    try:
        return _spell(value)
    except TypeError:
        return None


def _spell(value: Any) -> Any:
    if isinstance(value, PLAIN) or isinstance(value, (Tensor, np.ndarray)):
        return [type(value).__name__, value]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(_spell, value)]
    if isinstance(value, dict):
        return ['dict', *([_spell(key), _spell(entry)] for key, entry in value.items())]
    if isinstance(value, BaseTransform):
        kind = type(value)
        return [kind.__module__, kind.__qualname__, _spell(vars(value))]
    raise TypeError(f'{type(value).__name__} has no description')


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (*PLAIN, Tensor))
