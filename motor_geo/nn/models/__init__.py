r"""Backbones: a file each, and a line here."""

from .alignrec import AlignRec
from .bm3 import BM3
from .bpr import BPR
from .cohesion import COHESION
from .deepstyle import DeepStyle
from .dragon import DRAGON
from .dualgnn import DualGNN
from .freedom import FREEDOM
from .grcn import GRCN
from .gume import GUME
from .item_features import ItemFeatures
from .item_graph import ItemGraph, modality_weights
from .lattice import LATTICE
from .layergcn import LayerGCN
from .lgmrec import LGMRec
from .lightgcn import LightGCN
from .lirdrec import LIRDRec
from .mgcn import MGCN
from .micro import MICRO
from .mmgcn import MMGCN
from .pgl import PGL
from .recommender import Recommender, num_nodes
from .selfcf import SelfCF
from .simgcl import SimGCL
from .slmrec import SLMRec
from .smore import SMORE
from .vbpr import VBPR
from .xsimgcl import XSimGCL

MODELS: dict[str, type[Recommender]] = {
    model.__name__: model
    for model in (
        BPR,
        LightGCN,
        LayerGCN,
        VBPR,
        GRCN,
        SLMRec,
        BM3,
        FREEDOM,
        MGCN,
        LIRDRec,
        LATTICE,
        MICRO,
        LGMRec,
        MMGCN,
        PGL,
        SMORE,
        GUME,
        DRAGON,
        DualGNN,
        COHESION,
        AlignRec,
        SelfCF,
        DeepStyle,
        SimGCL,
        XSimGCL,
    )
}

__all__ = [
    'MODELS',
    'ItemFeatures',
    'ItemGraph',
    'Recommender',
    'modality_weights',
    'num_nodes',
    *MODELS,
]
