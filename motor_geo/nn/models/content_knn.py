from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.known_features import finite_features, known_features
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.fitted import FittedRecommender
from motor_geo.typing import RATES, Scores, find_edges, modalities, num_nodes
from motor_geo.utils.numbers import not_negative
from motor_geo.utils.topk import topk

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class ContentKNN(FittedRecommender):
    r"""Nearest items by content, as in the `"Are We Really Making Much Progress? A
    Worrying Analysis of Recent Neural Recommendation Approaches"
    <https://arxiv.org/abs/1907.06902>`_ paper,

    .. math::
        s(u, i) = \sum_{j \in \mathcal{N}_u} s_{ji}, \qquad
        s_{ji} = \frac{\mathbf{x}_j^{\top} \mathbf{x}_i}{\| \mathbf{x}_j \|
        \, \| \mathbf{x}_i \| + h}

    where :math:`\mathbf{x}` concatenates raw features. The similarity
    :math:`s_{ji}` is zero unless :math:`i` is one of the :math:`k` items most
    similar to :math:`j`, including :math:`j` itself. An item thus receives a
    score from those items of a user that have *it* among their nearest.
    Features are not normalized per modality, so a modality with large norms
    dominates.

    The model has nothing to fit, and also scores items without training
    interactions.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        k: Number of neighbors of every item, including itself.
        shrink: Constant :math:`h` in the denominator.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** a function that maps users :math:`(B)` to scores
          :math:`(B, N)`

    Raises:
        ValueError: If the graph has no item features or they hold NaN or infinite
            values, or an argument is out of range.
    """

    min_modalities = 1

    def __init__(
        self,
        data: HeteroData,
        k: int = 10,
        shrink: float = 10.0,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, edge_type)
        if k < 1:
            raise ValueError(f"'k' must be at least 1 (got {k})")
        self.k = k
        self.shrink = not_negative('shrink', shrink)
        self.names = modalities(data, 'ContentKNN', self.min_modalities, self.item_type)
        for name in self.names:
            finite_features(data, name, self.item_type)
        self._similarity = Memo()

    def forward(self, data: HeteroData) -> Scores:
        r"""A function that maps users **[B]** to their scores of all items
        **[B, N]**.
        """
        from scipy.sparse import csr_matrix

        tables = [known_features(data, m, self.item_type) for m in self.names]
        similarity = self._similarity(lambda: self.similarity(tables), tables)
        size = num_nodes(data, self.user_type), num_nodes(data, self.item_type)
        user, item = find_edges(data, self.edge_type).cpu().numpy()
        train = csr_matrix((np.ones(user.size, similarity.dtype), (user, item)), shape=size)
        train.sum_duplicates()  # Repeated edges count once.
        train.data[:] = 1

        def history(used: csr_matrix) -> Tensor:
            return torch.from_numpy((used @ similarity).toarray())

        def score(user: Tensor) -> Tensor:
            return history(train[user.cpu().numpy()]).to(user.device)

        return Scores(score, *size, history)

    def similarity(self, tables: list[Tensor], entries: int = 2**25) -> csr_matrix:
        r"""The similarities :math:`s_{ji}`, **[N, N]**, computed in blocks of about
        :obj:`entries` pairs.
        """
        from scipy.sparse import csr_matrix

        num_items = tables[0].size(0)
        dtype = torch.promote_types(tables[0].dtype, torch.float)
        norm = torch.stack([x.to(dtype).square().sum(dim=1) for x in tables]).sum(dim=0).sqrt()
        k, step = min(self.k, num_items), max(1, entries // max(num_items, 1))
        values, columns = [], []
        for start in range(0, num_items, step):
            block = sum(x[start : start + step].to(dtype) @ x.to(dtype).t() for x in tables)
            block = block / (norm[start : start + step].view(-1, 1) * norm + self.shrink)
            value, column = topk(block, k)
            values.append(value.cpu())
            columns.append(column.cpu())
        ptr = np.arange(0, num_items * k + 1, k)
        data = (torch.cat(values).flatten().numpy(), torch.cat(columns).flatten().numpy(), ptr)
        return csr_matrix(data, shape=(num_items, num_items))
