from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from motor_geo.nn.graph import sorted_edge_index
from motor_geo.nn.memo import Memo
from motor_geo.typing import ITEM, similar


class EnlargedGraph(NamedTuple):
    r"""A user-item graph with additional edges between similar items. Users come
    first in the node numbering.
    """

    edge_index: EdgeIndex  # [2, E]: all edges, with users and items numbered together.
    weight: Tensor
    to_user: EdgeIndex  # Edges from items to users, numbered separately.
    to_user_weight: Tensor


def enlarged_graph(
    edge_index: Tensor,
    neighbors: Sequence[Tensor],
    num_users: int,
    num_items: int,
    dtype: torch.dtype,
) -> EnlargedGraph:
    r"""Adds edges between similar items to a user-item graph. An item receives an
    edge from every other item that is among its nearest in *every* modality.
    Edges are normalized by the in-degrees of both endpoints,

    .. math::
        G_{ij} = \frac{1}{\sqrt{d_i d_j}}, \qquad d_i = |\mathcal{N}(i)| .

    A node without incoming edges counts as a node with one edge.

    Args:
        edge_index: User-item edges.
        neighbors: Item graph of every modality, with edges from neighbors to
            items.
        num_users: Number of users.
        num_items: Number of items.
        dtype: Type of the edge weights.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)` and
          :math:`(2, |\mathcal{E}_m|)`
    """
    user, item = edge_index
    keys = torch.cat([target * num_items + source for source, target in neighbors])
    key, times = keys.unique(return_counts=True)
    key = key[times == len(neighbors)]
    target, source = key // num_items, key % num_items
    target, source = target[target != source], source[target != source]

    num_nodes = num_users + num_items
    edges = torch.stack(
        [
            torch.cat([item + num_users, user, source + num_users]),
            torch.cat([user, item + num_users, target + num_users]),
        ]
    )
    scale = degree(edges[1], num_nodes, torch.float64).clamp(min=1).rsqrt()
    weight = (scale[edges[0]] * scale[edges[1]]).to(dtype)
    to_user, user_perm = sorted_edge_index(edge_index.flip(0), num_items, num_users)
    to_user_weight = weight[: user.numel()]
    whole, perm = sorted_edge_index(edges, num_nodes, num_nodes)
    return EnlargedGraph(
        whole,
        weight if perm is None else weight[perm],
        to_user,
        to_user_weight if user_perm is None else to_user_weight[user_perm],
    )


class EnlargedGraphs:
    r"""The :func:`enlarged_graph` of a :obj:`HeteroData`, cached as long as its
    edges stay the same.

    Args:
        modalities: Modalities of the item graphs.
        node_type: Node type of items.
    """

    def __init__(self, modalities: Sequence[str], node_type: str = ITEM):
        self.modalities = list(modalities)
        self.node_type = node_type
        self._graphs = Memo()

    def __call__(
        self,
        data: HeteroData,
        edge_index: Tensor,
        num_users: int,
        num_items: int,
        dtype: torch.dtype,
    ) -> EnlargedGraph:
        neighbors = [data[similar(m, self.node_type)].edge_index for m in self.modalities]
        args = edge_index, neighbors, num_users, num_items, dtype
        return self._graphs(lambda: enlarged_graph(*args), *args)
