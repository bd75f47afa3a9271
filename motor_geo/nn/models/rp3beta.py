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


class RP3beta(ItemSimilarity):
    r"""Three-step random walks from a user with a popularity discount, from the
    `"Updatable, Accurate, Diverse, and Scalable Recommendations for Interactive
    Applications" <https://doi.org/10.1145/2955101>`_ paper,

    .. math::
        s(u, i) = \frac{1}{| \mathcal{N}_i |^{\beta}}
        \sum_{j \in \mathcal{N}_u} \sum_{v \in \mathcal{N}_j \cap \mathcal{N}_i}
        \left( \frac{1}{| \mathcal{N}_u | \, | \mathcal{N}_j | \,
        | \mathcal{N}_v |} \right)^{\alpha}

    where :math:`\mathcal{N}` are the neighbors in the training graph. For each
    item :math:`j`, only the :math:`k` items :math:`i` with the largest
    discounted transition probabilities count. The code omits the factor
    :math:`1 / | \mathcal{N}_u |^{\alpha}` of the user, which does not change the
    ranking.

    Args:
        data: The user-item graph.
        k: Number of neighbors of every item.
        alpha: Exponent :math:`\alpha` of transition probabilities.
        beta: Exponent :math:`\beta` of the popularity of items.
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
        k: int = 100,
        alpha: float = 1.0,
        beta: float = 0.4,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, edge_type)
        if k < 1:
            raise ValueError(f"'k' must be at least 1 (got {k})")
        self.k = k
        self.alpha = not_negative('alpha', alpha)
        self.beta = not_negative('beta', beta)
        self.register_buffer('order', torch.randperm(self.num_items))

    def similarity(self, train: csr_matrix) -> csr_matrix:
        from scipy.sparse import diags_array

        degree = np.maximum(train.getnnz(axis=1), 1).astype(np.float32)
        count = np.maximum(train.getnnz(axis=0), 1).astype(np.float32)
        to_users, to_items = train.T.tocsr(), diags_array(degree**-self.alpha) @ train
        scale = count**self.beta, count**self.alpha
        return neighbors(to_users, to_items, *scale, self.k, self.order.cpu())
