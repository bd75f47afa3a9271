r"""Backbones: a file each, and a line here."""

from .bpr import BPR
from .freedom import FREEDOM
from .lightgcn import LightGCN
from .recommender import Recommender
from .vbpr import VBPR

MODELS: dict[str, type[Recommender]] = {
    model.__name__: model for model in (BPR, LightGCN, VBPR, FREEDOM)
}

__all__ = ['MODELS', 'Recommender', *MODELS]
