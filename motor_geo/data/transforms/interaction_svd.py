r"""Behavior vectors of items as an additional modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.typing import EdgeType

from motor_geo.data.transforms.features import (
    Matrix,
    arguments,
    as_array,
    as_int,
    check_matrix,
    edge_type_of,
    item_features,
    item_mask,
    modality_names,
)
from motor_geo.data.transforms.knn import attach
from motor_geo.typing import RATES, checked_edges, feature_modalities, node_store, num_nodes
from motor_geo.utils.cache import cached, fingerprint
from motor_geo.utils.threads import one_thread

CACHE = 'InteractionSVD.2'  # To be changed if the same interactions give different results.
COLD = ('neighbors', 'zero')
ROUNDING = 1e-6  # Values below this share of the largest one may be rounding errors.


class InteractionSVD(BaseTransform):
    r"""Adds a behavior vector to each item. Items of the same users get similar
    vectors. They come from a truncated singular value decomposition of the
    training interactions, with degrees smoothed as in `"Regularized Spectral
    Clustering under the Degree-Corrected Stochastic Blockmodel"
    <https://arxiv.org/abs/1309.4111>`_:

    .. math::
        \left( \mathbf{D}_U + \tau_U \mathbf{I} \right)^{-\frac{1}{2}}
        \mathbf{R} \left( \mathbf{D}_I + \tau_I \mathbf{I}
        \right)^{-\frac{1}{2}} \approx \mathbf{U} \mathbf{S}
        \mathbf{V}^{\top}, \qquad \mathbf{X} = \mathbf{V} \mathbf{S}^p

    with :math:`\tau = s \cdot \textrm{mean degree}`.
    :class:`OPQTokenizer` quantizes the result,
    :obj:`data['item'].x_behavior`, like any other modality. For any :math:`p`,
    popular items have longer vectors. The sign of each singular vector is
    chosen so that its largest entry is positive.

    .. note::
        Without smoothing, each connected component of the graph has a
        singular value of one. A sparse graph has more components than there
        are channels. The channels then only indicate the component of an item,
        and do not distinguish the items of the largest component.

    An item lacks this modality if it has no training interaction, or if all of
    its interactions are in a part of the graph that the singular vectors do
    not reach. :obj:`data['item'].mask_behavior` is :obj:`False` for such items,
    so no codebook is fitted to them. Instead, they get the mean vector of the
    :math:`k` items with the most similar content among those that have the
    modality. The content of an item is the concatenation of its features from
    all other modalities, each scaled to unit length. :meth:`encode` does the
    same for items that are not in the graph.

    Args:
        channels: Number of leading singular vectors. Must be less than both
            the number of users and the number of items with interactions.
        power: Exponent :math:`p` of the singular values.
        smoothing: Share :math:`s` of the mean degree that is added to every
            degree; :obj:`0` gives the plain symmetric normalization.
        cold: The vectors of items that lack the modality:
            :obj:`"neighbors"` (zeros if they have no content) or
            :obj:`"zero"`.
        k: Number of nearest items.
        modality: Name of the new modality.
        modalities: Modalities of content. (default: all others)
        seed: Seed of the start vector of the iteration.
        cache: If set to :obj:`True`, caches the decomposition on disk, keyed
            by the interactions, :obj:`channels`, :obj:`smoothing` and
            :obj:`seed`.
        edge_type: Edge type of interactions, from users to items.

    Shapes:
        - **output:** :obj:`x_behavior` :math:`(N, C)`, :obj:`mask_behavior`
          :math:`(N)`

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        channels: int = 64,
        power: float = 1.0,
        smoothing: float = 1.0,
        cold: str = 'neighbors',
        k: int = 10,
        modality: str = 'behavior',
        modalities: Sequence[str] | None = None,
        seed: int = 0,
        cache: bool = True,
        edge_type: EdgeType = RATES,
    ) -> None:
        channels, k, seed = as_int('channels', channels), as_int('k', k), as_int('seed', seed)
        if channels < 1 or k < 1:
            raise ValueError(f'channels and k must be at least 1, got {channels} and {k}.')
        if not (0 <= power < float('inf') and 0 <= smoothing < float('inf')):
            raise ValueError(
                f'power and smoothing must be at least 0 and finite, got {power} and {smoothing}.'
            )
        if cold not in COLD:
            raise ValueError(f"cold must be one of {', '.join(COLD)}, got '{cold}'.")
        if not modality:
            raise ValueError('The name of the new modality is empty.')
        modalities = modality_names(modalities)
        if modalities is not None and modality in modalities:
            raise ValueError(f"The new modality '{modality}' cannot be one of its own content.")
        self.channels = channels
        self.power = power
        self.smoothing = smoothing
        self.cold = cold
        self.k = k
        self.modality = modality
        self.modalities = modalities
        self.seed = seed
        self.cache = cache
        self.edge_type = edge_type_of(edge_type)

    @torch.inference_mode(False)
    @torch.no_grad()
    def forward(self, data: HeteroData) -> HeteroData:
        r"""Adds the behavior vectors to the graph.

        Args:
            data: The graph.

        Raises:
            ValueError: If the graph has too few users or items with
                interactions, or lacks a modality of content.
        """
        edge_index = checked_edges(data, self.edge_type)
        users, _, items = self.edge_type
        names = self._modalities(data)
        features = {}
        if self.cold == 'neighbors':
            features = {m: item_features(data, m, items) for m in names}
        sizes = num_nodes(data, users), num_nodes(data, items)
        x, known = self._behavior(edge_index.cpu(), *sizes)
        if features and not bool(known.all()):
            content = _content(features, {m: item_mask(data, m, items) for m in features})
            x[~known] = self._from_neighbors(x[known], content[known], content[~known])
        data[items][f'x_{self.modality}'] = x.to(edge_index.device)
        data[items][f'mask_{self.modality}'] = known.to(edge_index.device)
        return data

    @torch.inference_mode(False)
    @torch.no_grad()
    def encode(
        self,
        data: HeteroData,
        features: Mapping[str, Matrix],
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        r"""Computes the vectors of items that are not in the graph from those
        of similar items in the graph.

        Args:
            data: The graph, with the behavior vectors of its items.
            features: The feature matrix of each modality of content,
                **[n, d_m]**. May omit modalities that all items lack according
                to :obj:`mask`.
            mask: Which items have a modality, **[n]**, for some modalities.
                (default: all items have all modalities)

        Returns:
            The vectors, **[n, channels]**.

        Raises:
            ValueError: If the graph has no behavior vectors yet, a modality is
                missing, or sizes differ.
        """
        items = self.edge_type[2]
        x = node_store(data, items).get(f'x_{self.modality}')
        if x is None or x.size(1) != self.channels:
            raise ValueError(
                f"data['{items}'].x_{self.modality} with {self.channels} columns is missing: apply "
                'the transform to the graph first.'
            )
        names = self._modalities(data)
        masks = (
            {} if mask is None else {m: as_array(value).astype(bool) for m, value in mask.items()}
        )
        given = {m: as_array(value) for m, value in features.items()}
        for m in names:
            if m in masks and m not in given and not masks[m].any():
                width = item_features(data, m, items).shape[1]
                given[m] = np.zeros((masks[m].size, width), np.float32)
        missing = [m for m in names if m not in given]
        if missing or not given:
            raise ValueError(f'New items lack features of {missing or names}; expected {names}.')
        num_rows = {m: value.shape[0] for m, value in given.items()}
        if len(set(num_rows.values())) > 1:
            raise ValueError(f'The modalities differ in their number of rows: {num_rows}.')
        num_new = next(iter(num_rows.values()))
        for m, present in masks.items():
            if m not in names or present.shape != (num_new,):
                raise ValueError(
                    f"The mask of the modality '{m}' has shape {list(present.shape)}, expected "
                    f'[{num_new}] and one of the modalities {names}.'
                )
        if self.cold == 'zero' or not names:
            return x.new_zeros(num_new, self.channels)
        known = item_mask(data, self.modality, items)
        catalog = {m: item_features(data, m, items) for m in names}
        old = _content(catalog, {m: item_mask(data, m, items) for m in names})
        checked = {m: check_matrix(given[m], f"The features of '{m}'", masks.get(m)) for m in names}
        rows = slice(None) if known is None else torch.from_numpy(known)
        return self._from_neighbors(x.cpu()[rows], old[rows], _content(checked, masks)).to(x)

    def _modalities(self, data: HeteroData) -> list[str]:
        if self.modalities is not None:
            return self.modalities
        return [m for m in feature_modalities(data, self.edge_type[2]) if m != self.modality]

    def _from_neighbors(self, x: Tensor, old: Tensor, new: Tensor) -> Tensor:
        r"""Averages the vectors :obj:`x` over the rows of content :obj:`old`
        that are nearest to each row of :obj:`new`.
        """
        index, _ = attach(old, new, min(self.k, x.size(0)) + 1)
        # A zero row has only itself in its list instead of neighbors.
        found = (index < x.size(0)).unsqueeze(-1)
        total = (x[index.clamp(max=x.size(0) - 1)] * found).sum(dim=1)
        return total / found.sum(dim=1).clamp(min=1)

    def _behavior(
        self, edge_index: Tensor, num_users: int, num_items: int
    ) -> tuple[Tensor, Tensor]:
        r"""Returns vectors **[N, channels]**, and which items have one
        **[N]**.
        """
        pair = edge_index[0].long() * num_items + edge_index[1]
        if not bool((pair[1:] > pair[:-1]).all()):
            pair = pair.unique()
        users, user = _number(pair // num_items, num_users)
        warm, item = _number(pair % num_items, num_items)
        del pair
        size = users.numel(), warm.numel()
        if self.channels >= min(size):
            raise ValueError(
                f'channels must be less than the numbers of users ({size[0]}) and of items '
                f'({size[1]}) with training interactions, got {self.channels}.'
            )

        def compute() -> dict[str, Tensor]:
            value, vector = self._svd(user.numpy(), item.numpy(), size)
            return {'value': torch.from_numpy(value), 'vector': torch.from_numpy(vector)}

        def fits(state: dict[str, Tensor]) -> bool:
            shapes = [tuple(state[key].shape) for key in ('value', 'vector')]
            return shapes == [(self.channels,), (size[1], self.channels)]

        if self.cache:
            settings = (self.channels, self.smoothing, self.seed)
            key = fingerprint(CACHE, user, item, settings)
            state = cached('svd', key, compute, fits)
        else:
            state = compute()
        value, vector = state['value'], state['vector']
        vector = vector * torch.where(value > ROUNDING * value[0], value**self.power, 0.0)
        length = vector.norm(dim=1)
        reached = length > ROUNDING * length.max()
        x = torch.zeros(num_items, self.channels)
        known = torch.zeros(num_items, dtype=torch.bool)
        x[warm[reached]], known[warm[reached]] = vector[reached].float(), True
        return x, known

    def _svd(
        self, user: np.ndarray, item: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        from scipy.sparse import csr_array
        from scipy.sparse.linalg import svds

        degree = [np.bincount(index).astype(np.float64) for index in (user, item)]
        scale = [1 / np.sqrt(d + self.smoothing * d.mean()) for d in degree]
        matrix = csr_array((scale[0][user] * scale[1][item], (user, item)), shape=size)
        start = np.random.default_rng(self.seed).standard_normal(min(size))
        with one_thread():
            _, value, vector = svds(matrix, self.channels, v0=start, return_singular_vectors='vh')
        order = np.argsort(-value, kind='stable')
        value, vector = value[order], vector[order]
        # If several entries are equal up to rounding, the first one determines the sign.
        size_of = np.abs(vector)
        peak = (size_of >= (1 - 1e-6) * size_of.max(axis=1, keepdims=True)).argmax(axis=1)
        sign = np.where(vector[np.arange(len(vector)), peak] < 0, -1.0, 1.0)
        return value, np.ascontiguousarray((vector * sign[:, None]).T)

    def __repr__(self) -> str:
        words = arguments(self, ('channels', 'power', 'smoothing', 'cold'))
        return f'{self.__class__.__name__}({words.removeprefix("channels=")})'


def _number(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    r"""Returns the distinct indices in ascending order, and the position of each
    index among them.
    """
    seen = torch.zeros(size, dtype=torch.bool).index_fill_(0, index, True)
    return seen.nonzero().view(-1), (seen.cumsum(0) - 1)[index]


def _content(features: Mapping[str, np.ndarray], mask: Mapping[str, np.ndarray | None]) -> Tensor:
    r"""Concatenates the features of all modalities with equal weight, and zeros
    where an item lacks one.
    """
    blocks = []
    for m, x in features.items():
        block = F.normalize(torch.tensor(x, dtype=torch.float))
        present = mask.get(m)
        if present is not None:
            block = block * torch.from_numpy(present).view(-1, 1)
        blocks.append(block)
    return torch.cat(blocks, dim=1)
