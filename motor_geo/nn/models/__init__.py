r"""Backbones: a file each, and a line here."""

from .bm3 import BM3
from .bpr import BPR
from .freedom import FREEDOM
from .grcn import GRCN
from .lattice import LATTICE
from .layergcn import LayerGCN
from .lightgcn import LightGCN
from .lirdrec import LIRDRec
from .micro import MICRO
from .mmgcn import MMGCN
from .recommender import Recommender
from .vbpr import VBPR

MODELS: dict[str, type[Recommender]] = {
    model.__name__: model
    for model in (BPR, LightGCN, LayerGCN, VBPR, GRCN, BM3, FREEDOM, LIRDRec, LATTICE, MICRO, MMGCN)
}

__all__ = ['MODELS', 'Recommender', *MODELS]
