r"""Data sets, splits, tokens, item graphs and sampling."""

from .amazon import AmazonReviews
from .dataset import RecommendationDataset
from .graph import ItemKNN
from .interaction import InteractionSVD
from .sampler import BPRSampler
from .split import SPLITS, split_interactions
from .synthetic import SyntheticMultimodal
from .table import TableDataset
from .tokenize import OPQTokenizer

#: Data sets that have a name; a folder is read by :class:`TableDataset`.
DATASETS = {'synthetic': SyntheticMultimodal, 'amazon': AmazonReviews}

__all__ = [
    'DATASETS',
    'SPLITS',
    'AmazonReviews',
    'BPRSampler',
    'InteractionSVD',
    'ItemKNN',
    'OPQTokenizer',
    'RecommendationDataset',
    'SyntheticMultimodal',
    'TableDataset',
    'split_interactions',
]
