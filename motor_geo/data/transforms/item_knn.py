r"""Item-item graphs of nearest neighbors in feature space."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from motor_geo.data.transforms.features import (
    arguments,
    as_int,
    device_of,
    item_features,
    modality_names,
    needed_modalities,
)
from motor_geo.data.transforms.knn import WEIGHTINGS, attach, knn_graph_cosine, knn_weights
from motor_geo.data.transforms.knn_ivf import knn_graph_ivf
from motor_geo.typing import ITEM, feature_key, num_nodes, similar
from motor_geo.utils.cache import cached, fingerprint
from motor_geo.utils.cost import warn_of_time

LOG = logging.getLogger(__name__)
METHODS = ('exact', 'ivf')


class ItemKNN(BaseTransform):
    r"""Connects each item to the :math:`k` items with the most similar
    features (including itself), once per modality.

    With :math:`s_{ij}` the cosine similarity and :math:`\mathcal{T}(i)` the
    :math:`k` largest of row :math:`i`,

    .. math::
        S_{ij} = \frac{W_{ij}}{\sqrt{D_i D_j}}, \quad
        D_i = \sum_{j \in \mathcal{T}(i)} W_{ij}, \quad
        j \in \mathcal{T}(i)

    where :math:`W_{ij} = 1`, so that :math:`S_{ij} = 1 / k` if every list has
    :math:`k` entries (:obj:`"binary"`), or :math:`W_{ij} = s_{ij}`
    (:obj:`"cosine"`). The graph is directed, and degrees are row sums.

    Adds :obj:`edge_index` (row 0 the neighbor :math:`j`, row 1 the item
    :math:`i`, ordered by :math:`i`) and :obj:`edge_weight` to
    :obj:`data['item', 'similar_<modality>', 'item']`. An item with all-zero
    features is connected only to itself, with weight one. The same applies to
    an item with NaN or infinite values for which
    :obj:`data['item'].mask_<modality>` is :obj:`False`. Features in
    :obj:`data['item'].x` are the modality :obj:`"x"`.

    Args:
        k: Number of neighbors, including the item itself.
        modalities: The modalities to use. (default: all of the graph)
        weighting: :obj:`"binary"` or :obj:`"cosine"`.
        method: :obj:`"exact"` compares all pairs of items, in time quadratic in
            their number. :obj:`"ivf"` compares the items of nearby cells (see
            :func:`~motor_geo.data.transforms.knn_ivf.knn_graph_ivf`), for
            several hundred thousand items. :obj:`recall` then holds the share of
            the exact neighbors that it finds, by modality.
        num_probes: Number of cells to compare with :obj:`"ivf"`.
        block_size: Number of items to compare at once.
        cache: If set to :obj:`True`, caches neighbors on disk, keyed by the
            features and :obj:`k`.
        node_type: Node type of items.

    Shapes:
        - **output:** edge index :math:`(2, E)` and edge weight :math:`(E)` for
          each modality, with :math:`E \leq N k`

    Raises:
        ValueError: If a setting is out of range, :obj:`k` exceeds the number
            of items, or a modality is missing or not finite.
    """

    def __init__(
        self,
        k: int = 10,
        modalities: Sequence[str] | None = None,
        weighting: str = 'binary',
        block_size: int = 1024,
        cache: bool = True,
        node_type: str = ITEM,
        method: str = 'exact',
        num_probes: int = 16,
    ) -> None:
        k, block_size = as_int('k', k), as_int('block_size', block_size)
        num_probes = as_int('num_probes', num_probes)
        if k < 1 or block_size < 1 or num_probes < 1:
            raise ValueError(
                f'k, block_size and num_probes must be at least 1, got {k}, {block_size} and '
                f'{num_probes}.'
            )
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got '{method}'.")
        if weighting not in WEIGHTINGS:
            raise ValueError(
                f"weighting must be one of {', '.join(WEIGHTINGS)}, got '{weighting}'."
            )
        self.k = k
        self.modalities = modality_names(modalities)
        self.weighting = weighting
        self.block_size = block_size
        self.cache = cache
        self.node_type = node_type
        self.method = method
        self.num_probes = num_probes
        self.recall: dict[str, float] = {}

    @torch.inference_mode(False)
    @torch.no_grad()
    def forward(self, data: HeteroData) -> HeteroData:
        modalities = needed_modalities(data, self.modalities, self.node_type)
        features = {m: item_features(data, m, self.node_type) for m in modalities}
        for x in features.values():
            if self.k > x.shape[0]:
                raise ValueError(f'k={self.k} exceeds the number of items ({x.shape[0]}).')
        for m, x in features.items():
            index, similarity, recall = self._neighbors(x)
            self.recall[m] = recall
            if self.method == 'ivf':
                LOG.info("'%s': the approximate item graph has a recall of %.3f", m, recall)
            edge_index, edge_weight = knn_weights(index, similarity, self.weighting)
            store = data[self.node_type]
            device = device_of(store[feature_key(store, m)])
            graph = data[similar(m, self.node_type)]
            graph.edge_index = edge_index.to(device)
            graph.edge_weight = edge_weight.to(device)
        return data

    def extend(self, old: HeteroData, new: HeteroData) -> HeteroData:
        r"""Connects new items to themselves and their nearest old items. The
        neighbors of old items do not change.

        Args:
            old: The graph with the item graphs of this transform.
            new: The graph with additional items.
        """
        out = copy.copy(new)
        num_old = num_nodes(old, self.node_type)
        for m in needed_modalities(old, self.modalities, self.node_type):
            edge_type = similar(m, self.node_type)
            if edge_type not in old.edge_types:
                continue
            store, graph = new[self.node_type], old[edge_type]
            x = store[feature_key(store, m)]
            index, similarity = attach(x[:num_old], x[num_old:], self.k)
            # Recovers the row sums of old items from S_ii = 1 / D_i.
            source, target = graph.edge_index
            loop = source == target
            degree = torch.ones(num_old, dtype=graph.edge_weight.dtype, device=source.device)
            degree[target[loop]] = 1 / graph.edge_weight[loop]
            edge_index, weight = knn_weights(index, similarity, self.weighting, degree.cpu())
            out[edge_type].edge_index = torch.cat([graph.edge_index, edge_index.to(source)], dim=1)
            out[edge_type].edge_weight = torch.cat(
                [graph.edge_weight, weight.to(graph.edge_weight)]
            )
        return out

    def _neighbors(self, x: np.ndarray) -> tuple[Tensor, Tensor, float]:
        exact = self.method == 'exact'

        def compute() -> dict[str, Tensor]:
            if exact:
                warn_of_time(
                    f'The exact item graph of {len(x):,} items of {x.shape[1]} features',
                    len(x) ** 2 * x.shape[1] / 2,
                    "method='ivf' (--graph.method ivf) approximates it",
                )
                index, similarity = knn_graph_cosine(x, self.k, self.block_size)
                return {'index': index, 'similarity': similarity}
            options = {'num_probes': self.num_probes, 'block_size': self.block_size}
            index, similarity, recall = knn_graph_ivf(x, self.k, **options)
            state = {'index': index, 'similarity': similarity}
            return {**state, 'recall': torch.tensor(recall, dtype=torch.float64)}

        def fits(state: dict[str, Tensor]) -> bool:
            index = state['index']
            return index.shape == state['similarity'].shape == (len(x), self.k)

        if self.cache:
            own = () if exact else (self.num_probes,)
            name = 'knn_graph_cosine.2' if exact else 'knn_graph_ivf.1'
            state = cached('knn', fingerprint(name, x, self.k, *own), compute, fits)
        else:
            state = compute()
        return state['index'], state['similarity'], float(state.get('recall', 1.0))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({arguments(self, ("k", "weighting"))})'
