r"""Data sets, splits, tokens, item graphs and sampling."""

from .datasets.amazon import AmazonReviews
from .datasets.base import RecommendationDataset
from .datasets.split import SPLITS, split_interactions
from .datasets.synthetic import SyntheticMultimodal
from .datasets.synthetic_clusters import SyntheticClusters
from .datasets.table import TableDataset
from .sampler import BPRSampler
from .transforms.interaction_svd import InteractionSVD
from .transforms.item_knn import ItemKNN
from .transforms.opq_tokenizer import OPQTokenizer
from .transforms.user_knn import UserKNN

#: Data sets by name. :class:`TableDataset` reads a folder.
DATASETS = {
    'synthetic': SyntheticMultimodal,
    'clusters': SyntheticClusters,
    'amazon': AmazonReviews,
}

__all__ = [
    'DATASETS',
    'SPLITS',
    'AmazonReviews',
    'BPRSampler',
    'InteractionSVD',
    'ItemKNN',
    'OPQTokenizer',
    'RecommendationDataset',
    'SyntheticClusters',
    'SyntheticMultimodal',
    'TableDataset',
    'UserKNN',
    'split_interactions',
]
