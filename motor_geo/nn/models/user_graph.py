from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData

from motor_geo.nn.graph import sorted_edge_index
from motor_geo.nn.memo import Memo
from motor_geo.parallel.user_shard import UserShard
from motor_geo.typing import USER, num_nodes, similar_users


class UserGraph:
    r"""The user-user graph of a :obj:`HeteroData`. The result is cached as long
    as the graph stays the same.

    Args:
        node_type: Node type of users.

    Raises:
        ValueError: If the graph is missing.
    """

    def __init__(self, node_type: str = USER):
        self.node_type = node_type
        self._graphs = Memo()

    def check(self, data: HeteroData, model: str) -> None:
        r"""Raises a :class:`ValueError` if the graph is missing."""
        edge_type = similar_users(self.node_type)
        if edge_type not in data.edge_types:
            raise ValueError(
                f"'{model}' needs the user graph {edge_type}: apply 'UserKNN' to the data first"
            )

    def __call__(
        self, data: HeteroData, dtype: torch.dtype, shard: UserShard | None = None
    ) -> tuple[EdgeIndex, Tensor]:
        r"""The edges, sorted by target, and their weights.

        Args:
            data: The graph.
            dtype: Type of the weights.
            shard: The part of all users that the targets are. Sources are all users.
        """
        edge_type = similar_users(self.node_type)
        if edge_type not in data.edge_types:  # Reading it would create an empty one.
            raise ValueError(
                f"The graph has no {edge_type}; apply the 'transforms' of the model first"
            )
        edges, weight = data[edge_type].edge_index, data[edge_type].edge_weight
        num_users = num_nodes(data, self.node_type)
        first = 0 if shard is None else shard.first

        def build() -> tuple[EdgeIndex, Tensor]:
            own, value, num_sources = edges, weight, num_users
            if shard is not None:
                mine = shard.mine(edges[1])
                own, value, num_sources = edges[:, mine], weight[mine], shard.num_users
                own = torch.stack([own[0], own[1] - first])
            edge_index, perm = sorted_edge_index(own, num_sources, num_users)
            return edge_index, (value if perm is None else value[perm]).to(dtype)

        return self._graphs(build, edges, weight, dtype, num_users, first)
