r"""Message-passing layers."""

from .light_gcn import LightPropagation
from .propagate import Propagate, propagate

__all__ = ['LightPropagation', 'Propagate', 'propagate']
