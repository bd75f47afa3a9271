from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.models.fitted import FittedRecommender
from motor_geo.typing import RATES, Embeddings
from motor_geo.utils.extras import needs
from motor_geo.utils.numbers import positive


class IALS(FittedRecommender):
    r"""Weighted matrix factorization by alternating least squares, from the
    `"Collaborative Filtering for Implicit Feedback Datasets"
    <https://doi.org/10.1109/ICDM.2008.22>`_ paper,

    .. math::
        \min \sum_{u, i} c_{ui} \left( x_{ui} - \mathbf{p}_u^{\top}
        \mathbf{q}_i \right)^2 + \lambda \Big( \sum_u \| \mathbf{p}_u \|^2 +
        \sum_i \| \mathbf{q}_i \|^2 \Big)

    where :math:`c_{ui}` is :math:`\alpha` for training interactions
    (:math:`x_{ui} = 1`) and one for all other pairs (:math:`x_{ui} = 0`).

    An iteration solves for all users and then for all items. It takes three
    conjugate gradient steps from the previous vectors, as in the
    `"Applications of the Conjugate Gradient Method for Implicit Feedback
    Collaborative Filtering" <https://doi.org/10.1145/2043932.2043987>`_ paper.
    The solver comes from the package
    `implicit <https://benfred.github.io/implicit/>`_
    (the extra :obj:`als`).

    Args:
        data: The user-item graph.
        channels: Size :math:`d` of user and item vectors.
        alpha: Weight :math:`\alpha` of training interactions, at least one.
        reg_weight: Weight :math:`\lambda` of the squared norms.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    iterative = True

    def __init__(
        self,
        data: HeteroData,
        channels: int = 64,
        alpha: float = 30.0,
        reg_weight: float = 100.0,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, edge_type)
        if not 1 <= alpha < math.inf:
            raise ValueError(f"'alpha' must be at least 1, the weight of other pairs (got {alpha})")
        self.channels = channels
        self.alpha = alpha
        self.reg_weight = positive('reg_weight', reg_weight)
        self.user_embedding, self.item_embedding = (
            nn.Parameter(torch.empty(size, channels), requires_grad=False)
            for size in (self.num_users, self.num_items)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0, 0.01)

    def fit(self, data: HeteroData) -> Iterator[dict[str, float]]:
        r"""Iterates endlessly and yields the objective, divided by the sum of
        all weights :math:`c_{ui}`.

        Raises:
            ImportError: If the package :obj:`implicit` is not installed.
        """
        try:
            from implicit.cpu.als import AlternatingLeastSquares
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise ImportError(needs('IALS', 'implicit', extra='als')) from error

        confidence = self.interactions(data) * self.alpha
        objective: list[float] = []
        while True:
            factors = [x.detach().cpu().numpy().copy() for x in self.parameters()]
            # With one BLAS thread, the order of sums does not depend on the number of threads.
            with threadpool_limits(1, 'blas'):
                model = AlternatingLeastSquares(
                    self.channels,
                    self.reg_weight,
                    iterations=1,
                    calculate_training_loss=True,
                    num_threads=torch.get_num_threads(),
                )
                model.user_factors, model.item_factors = factors
                model.fit(confidence, False, lambda *entry: objective.append(float(entry[2])))
            with torch.no_grad():
                for parameter, value in zip(self.parameters(), factors):
                    parameter.copy_(torch.from_numpy(value))
            yield {'objective': objective.pop()}

    def forward(self, data: HeteroData) -> Embeddings:
        return Embeddings(self.user_embedding, self.item_embedding)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_users}, {self.num_items}, {self.channels})'
