r"""ID-free multimodal recommendation on graphs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motor_geo import data, nn
    from motor_geo.data import ItemKNN, OPQTokenizer
    from motor_geo.nn import TokenCrossEncoder

__version__ = '0.1.0'
__all__ = ['ItemKNN', 'OPQTokenizer', 'TokenCrossEncoder', '__version__', 'data', 'nn']

_MODULES = {'ItemKNN': 'data', 'OPQTokenizer': 'data', 'TokenCrossEncoder': 'nn'}


def __getattr__(name: str) -> Any:
    r"""Imports a public name on first access (PEP 562)."""
    if name in ('data', 'nn'):
        return importlib.import_module(f'motor_geo.{name}')
    if name in _MODULES:
        return getattr(importlib.import_module(f'motor_geo.{_MODULES[name]}'), name)
    raise AttributeError(f"module 'motor_geo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
