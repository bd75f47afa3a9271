from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.models.item_similarity import ItemSimilarity, neighbors
from motor_geo.typing import RATES
from motor_geo.utils.numbers import not_negative

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class ItemKNN(ItemSimilarity):
    r"""Nearest items by common users, from the `"Item-Based Top-N
    Recommendation Algorithms" <https://doi.org/10.1145/963770.963776>`_ paper,

    .. math::
        s(u, i) = \sum_{j \in \mathcal{N}_u} s_{ji}, \qquad
        s_{ji} = \frac{| \mathcal{N}_i \cap \mathcal{N}_j |}
        {\sqrt{| \mathcal{N}_i | \, | \mathcal{N}_j |} + h}

    where :math:`\mathcal{N}_i` are the users of item :math:`i` in training. The
    similarity :math:`s_{ji}` is zero unless :math:`i` is one of the :math:`k`
    items most similar to :math:`j`. Ties are broken by a random order drawn at
    construction. The term :math:`h` shrinks similarities that two rare items
    have by chance. It is essential if items have few users.

    Args:
        data: The user-item graph.
        k: Number of neighbors of every item.
        shrink: Shrinkage :math:`h`.
        on: Data by which items are compared, always :obj:`"interactions"`.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** a function that maps users :math:`(B)` to scores
          :math:`(B, N)`

    Raises:
        ValueError: If an argument is out of range.
    """

    order: Tensor

    def __init__(
        self,
        data: HeteroData,
        k: int = 50,
        shrink: float = 0.0,
        on: str = 'interactions',
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, edge_type)
        if on != 'interactions':
            raise ValueError(f"'on' must be 'interactions' (got '{on}')")
        if k < 1:
            raise ValueError(f"'k' must be at least 1 (got {k})")
        self.k = k
        self.shrink = not_negative('shrink', shrink)
        self.on = on
        self.register_buffer('order', torch.randperm(self.num_items))

    def similarity(self, train: csr_matrix) -> csr_matrix:
        norm = np.sqrt(np.maximum(train.getnnz(axis=0), 1)).astype(np.float32)
        order = self.order.cpu()
        return neighbors(train.T.tocsr(), train, norm, norm, self.k, order, shrink=self.shrink)
