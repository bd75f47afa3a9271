r"""Message-passing layers."""

from .hops import Hops
from .light_gcn import LightPropagation
from .propagate import Propagate, propagate

__all__ = ['Hops', 'LightPropagation', 'Propagate', 'propagate']
