from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.models.item_similarity import ItemSimilarity
from motor_geo.typing import RATES
from motor_geo.utils.cost import warn_of_time
from motor_geo.utils.memory import available_memory
from motor_geo.utils.numbers import positive

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class EASE(ItemSimilarity):
    r"""The linear item-item model from the `"Embarrassingly Shallow
    Autoencoders for Sparse Data" <https://arxiv.org/abs/1905.03375>`_ paper,

    .. math::
        \min_{\mathbf{B}} \| \mathbf{X} - \mathbf{X} \mathbf{B} \|^2 + \lambda
        \| \mathbf{B} \|^2 \quad \text{with} \quad B_{ii} = 0, \qquad
        s(u, i) = \sum_{j \in \mathcal{N}_u} B_{ji} ,

    solved in closed form,

    .. math::
        \mathbf{P} = \left( \mathbf{X}^{\top} \mathbf{X} + \lambda \mathbf{I}
        \right)^{-1}, \qquad B_{ji} = - P_{ji} / P_{ii} \quad (j \neq i) .

    A run does not store the weights. Loading it solves for them again.

    Args:
        data: The user-item graph.
        reg_weight: Weight :math:`\lambda` of the squared norm, a positive number.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** a function that maps users :math:`(B)` to scores
          :math:`(B, N)`

    Raises:
        ValueError: If an argument is out of range, or the item-item matrices do
            not fit into memory.
    """

    def __init__(self, data: HeteroData, reg_weight: float = 300.0, edge_type: EdgeType = RATES):
        super().__init__(data, edge_type)
        self.reg_weight = positive('reg_weight', reg_weight)
        needed, free = self.num_bytes(self.num_items), available_memory()
        if free is not None and needed > free:
            raise ValueError(
                f"'EASE' solves for a weight of every pair of items: {self.num_items:,} items need "
                f'{needed:,} bytes of memory, {free:,} are free'
            )

        what = f"'EASE' solves for a weight of every pair of {self.num_items:,} items, which"
        warn_of_time(what, self.num_items**3, 'expected fewer items')

    @staticmethod
    def num_bytes(num_items: int) -> int:
        r"""Bytes of memory for the solution, which takes three matrices in double
        precision.
        """
        return 3 * 8 * num_items**2

    def similarity(self, train: csr_matrix) -> np.ndarray:
        gram = torch.from_numpy((train.T @ train).toarray()).double()
        gram.diagonal().add_(self.reg_weight)
        gram = torch.linalg.cholesky(gram)
        inverse = torch.cholesky_inverse(gram)
        inverse /= -inverse.diagonal().clone()
        return inverse.fill_diagonal_(0).float().numpy()

    def fitted_sizes(self) -> dict[str, tuple[int, ...]]:
        return {'weight': (self.num_items, self.num_items)}
