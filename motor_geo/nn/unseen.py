r"""Vectors of items without training interactions, used to rank them among all
items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation
from motor_geo.nn.functional.known_features import known_features
from motor_geo.nn.memo import Memo
from motor_geo.typing import (
    RATES,
    Embeddings,
    find_edges,
    modalities,
    num_nodes,
    with_edges,
)
from motor_geo.utils.numbers import positive
from motor_geo.utils.topk import topk

#: Number of similarities in a block.
BLOCK = 2**24


class UnseenItems(nn.Module):
    r"""Replaces the vectors of unseen items, which have no training
    interactions. By default, all options are off and the backbone ranks as
    published.

    A graph convolution leaves an unseen item only its own content vector
    :math:`\mathbf{x}`, which is shorter than the vectors of other items, and
    user vectors align with trained items. Such an item ranks well among unseen
    items, but rarely among all items. Let :math:`\mathcal{N}(i)` be the nearest
    items by content among those with interactions, :math:`w_{ij}` their
    similarities, normalized to a sum of one, and :math:`\mathbf{v}_j` their
    final vectors. The vector of an unseen item is then

    .. math::
        \mathbf{v}_i = f \left( (1 - \beta) \, \mathbf{x}^{\prime}_i +
        \beta \sum_{j \in \mathcal{N}(i)} w_{ij} \mathbf{v}_j \right), \qquad
        \mathbf{x}^{\prime}_i = \frac{\mathbf{x}_i}{\| \mathbf{x}_i \|}
        \sum_{j \in \mathcal{N}(i)} w_{ij} \| \mathbf{v}_j \| ,

    with :math:`\mathbf{x}^{\prime}_i = \mathbf{x}_i` if :obj:`length` is not
    set. The vectors of users and of all other items do not change, and neither
    does training. The exception is :obj:`layers`, which also applies to users
    without edges and in training.

    Args:
        layers: If set to :obj:`True`,
            :class:`~motor_geo.nn.conv.LightPropagation` averages only over the
            layers that exist, so that a node without edges keeps its length.
        length: If set to :obj:`True`, matches the length of the vector to the
            lengths of its nearest items.
        neighbors: Weight :math:`\beta` of the nearest items.
        virtual_edges: If positive, adds edges from an unseen item to up to this
            many users of its nearest items, and takes its vector from the
            enlarged graph.
        factor: Factor :math:`f`. :obj:`None` chooses it on validation after
            training.
        cost: Largest relative loss of warm recall that the chosen factor may
            cause, compared with a ranking without unseen items. Among the
            factors within this limit, the one with the highest unseen recall is
            chosen. :obj:`None` chooses the factor with the highest harmonic
            mean.
        k: Number of nearest items.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        layers: bool = False,
        length: bool = False,
        neighbors: float = 0.0,
        virtual_edges: int = 0,
        factor: float | None = 1.0,
        cost: float | None = 0.02,
        k: int = 10,
    ):
        super().__init__()
        if not 0 <= neighbors <= 1:
            raise ValueError(f"'neighbors' must be from 0 to 1 (got {neighbors})")
        if virtual_edges < 0:
            raise ValueError(f"'virtual_edges' must not be negative (got {virtual_edges})")
        if factor is not None:
            positive('factor', factor)
        if cost is not None and not 0 <= cost <= 1:
            raise ValueError(f"'cost' must be from 0 to 1 (got {cost})")
        if k < 1:
            raise ValueError(f"'k' must be positive (got {k})")
        self.layers = layers
        self.length = length
        self.neighbors = neighbors
        self.virtual_edges = virtual_edges
        self.chosen = factor is not None
        self.factor = 1.0 if factor is None else factor
        self.cost = cost
        self.k = k
        self._nearest = Memo()
        self._enlarged = Memo()

    @property
    def changes(self) -> bool:
        r"""Whether any option differs from the published ranking."""
        return (
            *(self.layers, self.length, self.neighbors, self.virtual_edges),
            self.factor,
        ) != (False, False, 0.0, 0, 1.0) or not self.chosen

    def attach(self, model: nn.Module) -> None:
        r"""Registers the module with a model, which then replaces the vectors of
        unseen items whenever it is in evaluation mode.
        """
        self.edge_type = model.edge_type
        if self.layers:
            for module in model.modules():
                if isinstance(module, LightPropagation):
                    module.existing = True
        model.unseen = self  # A submodule, so that copies of the model have their own.
        model.register_forward_hook(_finish)

    def forward(self, model: nn.Module, data: HeteroData, emb: Embeddings) -> Embeddings:
        r"""Replaces the vectors of unseen items.

        Args:
            model: The backbone. It is called again if there are virtual edges.
            data: The graph.
            emb: User and item vectors of the backbone.

        Shapes:
            - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

        Raises:
            ValueError: If the nearest items are needed and the graph has no item
                features.
        """
        edge_type: EdgeType = getattr(model, 'edge_type', RATES)
        edge_index = find_edges(data, edge_type)
        seen = edge_index[1].bincount(minlength=emb.item.size(0)) > 0
        unseen = (~seen).nonzero().view(-1)
        if unseen.numel() == 0 or not bool(seen.any()):
            return emb
        x = emb.item[unseen]
        if self.virtual_edges > 0:
            x = self._virtual(model, data, edge_type)[unseen]
        if self.length or self.neighbors > 0:
            near, weight = self.nearest(data, edge_type)
            item = emb.item
            if self.length:
                length = item.norm(dim=-1)[near]
                x = F.normalize(x, dim=-1) * (weight * length).sum(1, keepdim=True)
            if self.neighbors > 0:
                mean = torch.stack(
                    [(w.unsqueeze(-1) * item[i]).sum(0) for i, w in zip(near, weight)]
                )
                x = (1 - self.neighbors) * x + self.neighbors * mean
        return Embeddings(emb.user, emb.item.index_copy(0, unseen, self.factor * x))

    def nearest(self, data: HeteroData, edge_type: EdgeType = RATES) -> tuple[Tensor, Tensor]:
        r"""The nearest items with interactions for every item without, by the mean
        cosine similarity of their centered features, and their weights.

        Args:
            data: The graph with features :obj:`x_<modality>`.
            edge_type: Edge type of the training interactions, from users to items.

        Shapes:
            - **output:** items :math:`(n, k)`, weights :math:`(n, k)`

        Raises:
            ValueError: If the graph has no item features.
        """
        edge_index, item_type = find_edges(data, edge_type), edge_type[2]
        names = modalities(data, 'UnseenItems', 1, item_type)
        tables = [known_features(data, name, item_type) for name in names]
        compute = lambda: nearest_seen(tables, edge_index, self.k)  # noqa: E731
        return self._nearest(compute, edge_index, tables, self.k)

    def _virtual(self, model: nn.Module, data: HeteroData, edge_type: EdgeType) -> Tensor:
        r"""Item vectors on the graph with virtual edges."""
        edge_index = find_edges(data, edge_type)
        near, weight = self.nearest(data, edge_type)
        size = num_nodes(data, edge_type[0]), num_nodes(data, edge_type[2])

        def compute() -> Tensor:
            more = virtual_edges(edge_index, *size, near, weight, self.virtual_edges)
            both = torch.cat([edge_index, more], dim=1)
            return both[:, (both[0] * size[1] + both[1]).argsort()]

        edges = self._enlarged(compute, edge_index, near, weight, *size, self.virtual_edges)
        out = with_edges(data, edges, edge_type)
        emb: Embeddings = model.forward(out)
        objective = getattr(model, 'objective', None)
        return (emb if objective is None else objective.finish(emb)).item

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(layers={self.layers}, length={self.length}, '
            f'neighbors={self.neighbors}, virtual_edges={self.virtual_edges}, '
            f'factor={self.factor}, k={self.k})'
        )


def _finish(model: nn.Module, args: tuple[HeteroData], out: Embeddings) -> Embeddings:
    r"""A forward hook, so that it applies to every call of the model."""
    if model.training or not isinstance(out, Embeddings):
        return out
    readout = readout_of(model)
    return out if readout is None else readout(model, args[0], out)


def readout_of(model: nn.Module) -> UnseenItems | None:
    r"""The :class:`UnseenItems` of a model, or :obj:`None` if it ranks as published."""
    readout = getattr(model, 'unseen', None)
    return readout if isinstance(readout, UnseenItems) else None


def nearest_seen(tables: list[Tensor], edge_index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""The nearest items with edges for every item without edges.

    Args:
        tables: Features of every modality.
        edge_index: Interactions.
        k: Number of nearest items.

    Shapes:
        - **input:** features :math:`(N, d_m)`, interactions :math:`(2, E)`
        - **output:** items :math:`(n, k)` and their weights :math:`(n, k)`, which
          are positive and sum to one
    """
    seen = edge_index[1].bincount(minlength=len(tables[0])) > 0
    old = seen.nonzero().view(-1)
    parts = []
    for table in tables:
        x = table.float()
        parts.append(F.normalize(x - x[old].mean(dim=0), dim=-1) / len(tables) ** 0.5)
    x = torch.cat(parts, dim=-1)
    known = x[old].t().contiguous()
    k = min(k, old.numel())
    values, items = [], []
    for block in x[~seen].split(max(1, BLOCK // max(old.numel(), 1))):
        value, index = topk(block @ known, k)
        values.append(value)
        items.append(old[index])
    weight = torch.cat(values).clamp(min=0) + 1e-6  # Equal weights if no item is similar.
    return torch.cat(items), weight / weight.sum(dim=1, keepdim=True)


def virtual_edges(
    edge_index: Tensor, num_users: int, num_items: int, near: Tensor, weight: Tensor, size: int
) -> Tensor:
    r"""Edges from items without edges to the users of their nearest items. Users
    who receive the largest total weight from the nearest items come first.

    Args:
        edge_index: Interactions.
        num_users: Number of users.
        num_items: Number of items.
        near: Nearest items of every item without edges, in ascending order of
            these items.
        weight: Weights of the nearest items.
        size: Maximum number of users per item.

    Shapes:
        - **input:** interactions :math:`(2, E)`, items and weights
          :math:`(n, k)`
        - **output:** interactions :math:`(2, E^{\prime})`
    """
    from scipy.sparse import csr_matrix

    user, item = edge_index.cpu().numpy()
    ones = torch.ones(user.size).numpy()
    users = csr_matrix((ones, (item, user)), shape=(num_items, num_users))
    rows = torch.arange(len(near)).repeat_interleave(near.size(1)).numpy()
    weights = weight.reshape(-1).cpu().numpy(), (rows, near.reshape(-1).cpu().numpy())
    reached = (csr_matrix(weights, shape=(len(near), num_items)) @ users).tocsr()
    reached.sort_indices()
    out_user, out_row = [], []
    for row in range(len(near)):
        part = slice(reached.indptr[row], reached.indptr[row + 1])
        best = (-reached.data[part]).argsort(kind='stable')[:size]
        out_user.append(torch.from_numpy(reached.indices[part][best]).long())
        out_row.append(torch.full((len(best),), row))
    seen = edge_index[1].bincount(minlength=num_items) > 0
    unseen = (~seen).nonzero().view(-1).cpu()
    pairs = torch.stack([torch.cat(out_user), unseen[torch.cat(out_row)]])
    return pairs.to(edge_index)
