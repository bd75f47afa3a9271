r"""Transforms that backbones declare. Lazy ones are only imported when they are
applied.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform


class Lazy(BaseTransform):
    r"""A transform given by its import path. It lets a backbone declare the
    graphs that it needs without an import of :obj:`motor_geo.data` in
    :obj:`motor_geo.nn`.

    Args:
        path: Import path, such as :obj:`"motor_geo.data.ItemKNN"`.
        **options: Arguments of the constructor of the transform.
    """

    def __init__(self, path: str, **options: Any):
        self.path = path
        self.options = options

    def build(self, **options: Any) -> BaseTransform:
        r"""Creates the transform itself.

        Args:
            **options: Additional arguments. Those of the constructor of
                :class:`Lazy` take precedence.
        """
        module, _, name = self.path.rpartition('.')
        return getattr(importlib.import_module(module), name)(**{**options, **self.options})

    def forward(self, data: HeteroData) -> HeteroData:
        return self.build()(data)

    def __repr__(self) -> str:
        words = ', '.join(f'{key}={value!r}' for key, value in self.options.items())
        return f'{self.path.rpartition(".")[2]}({words})'


def declared_transforms(backbone: Any) -> list[BaseTransform]:
    r"""Returns the transforms that a backbone declares, with lazy ones replaced
    by the transforms themselves.

    Args:
        backbone: A class with an attribute :obj:`transforms`.

    Raises:
        ValueError: If :obj:`transforms` is not a tuple or list, or one of its
            entries is a class or not callable.
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
    r"""Returns the output of a transform after checking that it is a graph.

    Args:
        out: The output of the transform.
        what: Name of the transform, for the message.

    Raises:
        ValueError: If it is not a graph.
    """
    if not isinstance(out, HeteroData):
        got = 'None' if out is None else f'a {type(out).__name__}'
        raise ValueError(f'{what} returned {got}; expected the graph')
    return out
