from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.nn.models.fitted import FittedRecommender
from motor_geo.typing import Embeddings, find_edges, num_nodes


def popularity_embeddings(
    edge_index: Tensor, num_users: int, num_items: int, seed: int = 0
) -> Embeddings:
    r"""Embeddings of size one that rank items by their number of training
    interactions. Ties are broken at random, since the order of items in a file
    may reveal their popularity.

    Args:
        edge_index: Training interactions.
        num_users: Number of users.
        num_items: Number of items.
        seed: Seed of the random order.

    Shapes:
        - **input:** interactions :math:`(2, E)`
        - **output:** user vectors :math:`(M, 1)`, item vectors :math:`(N, 1)`
    """
    return count_embeddings(edge_index[1].bincount(minlength=num_items), num_users, seed)


def count_embeddings(count: Tensor, num_users: int, seed: int = 0) -> Embeddings:
    r"""The :func:`popularity_embeddings` of items with the given numbers of training
    interactions.

    Shapes:
        - **input:** counts :math:`(N)`
        - **output:** user vectors :math:`(M, 1)`, item vectors :math:`(N, 1)`
    """
    noise = torch.rand(count.numel(), generator=torch.Generator().manual_seed(seed))
    count = count.float() + noise.to(count.device) / 2
    return Embeddings(count.new_ones(num_users, 1), count.view(-1, 1))


class Popularity(FittedRecommender):
    r"""Ranks items by their number of training interactions, in the same order
    for every user,

    .. math::
        s(u, i) = | \mathcal{N}_i | .

    Args:
        data: The user-item graph.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, 1)`, item vectors :math:`(N, 1)`
    """

    def forward(self, data: HeteroData) -> Embeddings:
        sizes = num_nodes(data, self.user_type), num_nodes(data, self.item_type)
        return popularity_embeddings(find_edges(data, self.edge_type), *sizes)
