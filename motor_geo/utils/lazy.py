r"""Transforms that are imported when they are first applied."""

from __future__ import annotations

import importlib
from typing import Any

from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform


class Lazy(BaseTransform):
    r"""A transform by its import path, so that a backbone can name the graphs
    that it needs although no module of :obj:`motor_geo.nn` imports
    :obj:`motor_geo.data`.

    Args:
        path: Import path, such as :obj:`"motor_geo.data.ItemKNN"`.
        **options: Arguments of its constructor.
    """

    def __init__(self, path: str, **options: Any):
        self.path = path
        self.options = options

    def build(self, **options: Any) -> BaseTransform:
        r"""The transform itself, with further arguments."""
        module, _, name = self.path.rpartition('.')
        return getattr(importlib.import_module(module), name)(**{**options, **self.options})

    def forward(self, data: HeteroData) -> HeteroData:
        return self.build()(data)

    def __repr__(self) -> str:
        words = ', '.join(f'{key}={value!r}' for key, value in self.options.items())
        return f'{self.path.rpartition(".")[2]}({words})'
