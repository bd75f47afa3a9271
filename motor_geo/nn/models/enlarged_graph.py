from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.typing import OptTensor
from torch_geometric.utils import degree

from motor_geo.nn.conv import Propagate
from motor_geo.nn.functional.spmm import Edges
from motor_geo.nn.graph import BipartiteGraph, SortedEdges, sorted_edge_index
from motor_geo.nn.memo import Memo
from motor_geo.parallel.user_shard import UserShard
from motor_geo.typing import ITEM, Embeddings, similar


class EnlargedGraph(NamedTuple):
    r"""A user-item graph with additional edges between similar items. Users come
    first in the node numbering.
    """

    edge_index: EdgeIndex  # [2, E]: all edges, with users and items numbered together.
    weight: Tensor
    to_user: EdgeIndex  # Edges from items to users, numbered separately.
    to_user_weight: Tensor


class SharedEnlargedGraph(NamedTuple):
    r"""The part of an :class:`EnlargedGraph` with the users of one of several processes.
    Edges between items are on all processes.
    """

    to_user: SortedEdges
    to_user_weight: Tensor
    to_item: SortedEdges  # From users alone.
    to_item_weight: Tensor
    near: EdgeIndex  # Between items.
    near_weight: Tensor

    def mean(
        self, conv: Propagate, x: Embeddings, num_layers: int, rows: Embeddings | None = None
    ) -> Embeddings:
        r"""The mean over all hops and the input, for all nodes or for some rows.

        Args:
            conv: The sum over neighbors.
            x: Vectors of users and items.
            num_layers: Number of hops.
            rows: Output users and items.
        """
        own = x = Embeddings(*(table / (num_layers + 1) for table in x))
        for hop in range(1, num_layers + 1):
            index = rows if hop == num_layers else None
            user, item = (None, None) if index is None else index
            own = own if index is None else _select(own, index)
            near = _sums(conv, x.item, self.near, self.near_weight, item)
            x = Embeddings(  # Horner's rule.
                own.user + _sums(conv, x.item, self.to_user, self.to_user_weight, user),
                own.item + _sums(conv, x.user, self.to_item, self.to_item_weight, item) + near,
            )
        return _select(x, rows) if num_layers == 0 and rows is not None else x


def _sums(conv: Propagate, x: Tensor, edges: Edges, weight: Tensor, index: OptTensor) -> Tensor:
    return conv(x, edges, weight) if index is None else conv.rows(x, edges, weight, index)


def _select(x: Embeddings, rows: Embeddings) -> Embeddings:
    return Embeddings(*(table.index_select(0, index) for table, index in zip(x, rows)))


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
    source, target = _near_in_all(neighbors, num_items)
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


def shared_enlarged_graph(
    edge_index: Tensor,
    neighbors: Sequence[Tensor],
    num_users: int,
    num_items: int,
    dtype: torch.dtype,
    shard: UserShard,
) -> SharedEnlargedGraph:
    r"""The :func:`enlarged_graph` of one of several processes, whose users
    :obj:`edge_index` and :obj:`num_users` describe.
    """
    user, item = edge_index
    near = torch.stack(_near_in_all(neighbors, num_items))
    of_user = degree(user, num_users, torch.float64).clamp(min=1).rsqrt()
    of_item = shard.degree(degree(item, num_items, torch.float64))
    of_item = (of_item + degree(near[1], num_items, torch.float64)).clamp(min=1).rsqrt()
    weight = (of_user[user] * of_item[item]).to(dtype)
    graph = BipartiteGraph.from_edges(edge_index, num_users, num_items, weight, shard)
    weight = (of_item[near[0]] * of_item[near[1]]).to(dtype)
    edges, perm = sorted_edge_index(near, num_items, num_items)
    return SharedEnlargedGraph(*graph, edges, weight if perm is None else weight[perm])


def _near_in_all(neighbors: Sequence[Tensor], num_items: int) -> tuple[Tensor, Tensor]:
    r"""The sources and targets of the edges that are in the graphs of all modalities."""
    keys = torch.cat([target * num_items + source for source, target in neighbors])
    key, times = keys.unique(return_counts=True)
    key = key[times == len(neighbors)]
    target, source = key // num_items, key % num_items
    return source[target != source], target[target != source]


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
        shard: UserShard | None = None,
    ) -> EnlargedGraph | SharedEnlargedGraph:
        neighbors = [data[similar(m, self.node_type)].edge_index for m in self.modalities]
        args = edge_index, neighbors, num_users, num_items, dtype
        if shard is not None:
            return self._graphs(lambda: shared_enlarged_graph(*args, shard), *args)
        return self._graphs(lambda: enlarged_graph(*args), *args)
