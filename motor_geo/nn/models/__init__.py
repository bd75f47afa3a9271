r"""Backbones, and models that are fitted without gradient steps. Every model has
a file of its own and an entry in this module.
"""

from .alignrec import AlignRec
from .bm3 import BM3
from .bpr import BPR
from .cohesion import COHESION
from .content_knn import ContentKNN
from .deepstyle import DeepStyle
from .dragon import DRAGON
from .dualgnn import DualGNN
from .ease import EASE
from .fitted import FittedRecommender
from .freedom import FREEDOM
from .grcn import GRCN
from .gume import GUME
from .ials import IALS
from .item_features import ItemFeatures
from .item_graph import ItemGraph, modality_weights
from .item_knn import ItemKNN
from .item_similarity import ItemSimilarity
from .lattice import LATTICE
from .layergcn import LayerGCN
from .lgmrec import LGMRec
from .lightgcn import LightGCN
from .lirdrec import LIRDRec
from .mgcn import MGCN
from .micro import MICRO
from .mmgcn import MMGCN
from .pgl import PGL
from .popularity import Popularity
from .recommender import Recommender, num_nodes
from .rp3beta import RP3beta
from .selfcf import SelfCF
from .simgcl import SimGCL
from .slmrec import SLMRec
from .smore import SMORE
from .token_als import TokenALS
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
#: Models that are fitted in closed form or by their own solver.
FITTED: dict[str, type[FittedRecommender]] = {
    model.__name__: model
    for model in (Popularity, ItemKNN, ContentKNN, RP3beta, EASE, IALS, TokenALS)
}

__all__ = [
    'FITTED',
    'MODELS',
    'FittedRecommender',
    'ItemFeatures',
    'ItemGraph',
    'ItemSimilarity',
    'Recommender',
    'modality_weights',
    'num_nodes',
    *MODELS,
    *FITTED,
]
