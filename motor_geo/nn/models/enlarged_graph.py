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
    r"""A user-item graph with edges between similar items, users first."""

    edge_index: EdgeIndex  # [2, E]: all edges, among users and items.
    weight: Tensor
    to_user: EdgeIndex  # Those from items to users, numbered apart.
    to_user_weight: Tensor


def enlarged_graph(
    edge_index: Tensor,
    neighbors: Sequence[Tensor],
    num_users: int,
    num_items: int,
    dtype: torch.dtype,
) -> EnlargedGraph:
    r"""A user-item graph in which an item also receives from the items that
    are among its nearest in *every* modality (but not from itself), normalized
    by the numbers of incoming edges of both ends,

    .. math::
        G_{ij} = \frac{1}{\sqrt{d_i d_j}}, \qquad d_i = |\mathcal{N}(i)| .

    A node that receives nothing counts as one with a single edge.

    Args:
        edge_index: User-item edges.
        neighbors: The item graph of every modality, edges from neighbors to
            items.
        num_users: Number of users.
        num_items: Number of items.
        dtype: Type of edge weights.

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
    r"""The :func:`enlarged_graph` of a :obj:`HeteroData`, kept for as long as
    the same edges come in.

    Args:
        modalities: The modalities whose item graphs are read.
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
