r"""The transforms that a backbone declares, some of which are imported when
they are first applied.
"""

from __future__ import annotations

import importlib
import inspect
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


def declared_transforms(backbone: Any) -> list[BaseTransform]:
    r"""The transforms that a class declares, each as itself.

    Raises:
        ValueError: If one is a class, or nothing that can be called.
    """
    declared, name = backbone.transforms, backbone.__name__
    if not isinstance(declared, (tuple, list)):
        kind = declared if inspect.isclass(declared) else type(declared)
        raise ValueError(
            f"'transforms' of {name} must be a tuple, such as ({kind.__name__}(),), got "
            f'{declared!r}'
        )
    out = []
    for position, transform in enumerate(declared):
        if inspect.isclass(transform):
            raise ValueError(
                f'transforms[{position}] of {name} is a class; expected an instance, '
                f'{transform.__name__}()'
            )
        if not callable(transform):
            raise ValueError(
                f'transforms[{position}] of {name} is {transform!r}; expected a transform'
            )
        out.append(transform.build() if isinstance(transform, Lazy) else transform)
    return out


def check_graph(out: Any, what: str) -> HeteroData:
    r"""What a transform returned.

    Raises:
        ValueError: If it is no graph.
    """
    if not isinstance(out, HeteroData):
        got = 'None' if out is None else f'a {type(out).__name__}'
        raise ValueError(f'{what} returned {got}; expected the graph')
    return out
