from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.parallel.edge_part import EdgePart, edge_parts
from motor_geo.parallel.table_shard import TableShard
from motor_geo.parallel.user_index import UserIndex
from motor_geo.parallel.world import World
from motor_geo.typing import RATES, Batch, LazyEdges, find_edges, num_nodes, with_edges

#: Number of interactions that processes exchange at a time.
BLOCK = 2**20


class UserShard(TableShard):
    r"""The users of one process: a part of all users, in the order of the graph.
    Their rows of tables and their interactions are only on this process. All
    processes hold all items.

    If the processes form a :class:`~motor_geo.parallel.Mesh`, those with the same users
    share the columns of all vectors. Each computes its own ones, and what needs all of
    them, such as scores, is summed over these processes.

    Args:
        world: The processes.
        data: The graph with all users, and with all interactions sorted by user.
        edge_type: Edge type of the training interactions, from users to items.
        bounds: First user of each process, and the number of users. (default: the
            same number of users on each process but for the last ones)
        part: A function that returns the interactions of the users
            :obj:`first, ..., last - 1`, given these two numbers. The interactions of the
            graph are then not read. (default: a part of those of the graph)

    Raises:
        ValueError: If the bounds do not cover all users in order, or interactions
            are not sorted by user.
    """

    def __init__(
        self,
        world: World,
        data: HeteroData,
        edge_type: EdgeType = RATES,
        bounds: Sequence[int] | None = None,
        part: Callable[[int, int], EdgePart] | None = None,
    ):
        super().__init__(world, num_nodes(data, edge_type[0]), bounds)
        self.edge_type = edge_type
        own = edge_parts(find_edges(data, edge_type)) if part is None else part
        #: Interactions of the users of this process, **[2, E_p]**, and the number of those
        #: of all processes.
        self.edge_index, start, self.num_edges = own(self.first, self.last)
        #: Positions of the first ones among the second ones.
        self.edges = slice(start, start + self.edge_index.size(1))
        user, item = self.edge_index
        self._own = torch.stack([user - self.first, item])  # One tensor for all graphs.

    def cut(self, data: HeteroData) -> HeteroData:
        r"""A shallow copy of the graph with the users of this process, numbered from
        zero.
        """
        out = with_edges(data, self._own, self.edge_type)
        out[self.edge_type[0]].num_nodes = len(self)
        out[self.edge_type].shard = self
        return out

    def whole(self, data: HeteroData) -> HeteroData:
        r"""A shallow copy of a graph from :meth:`cut` with all interactions. The
        processes exchange them, all at the same time, when they are read.
        """
        return with_edges(data, LazyEdges(self.num_edges, self._blocks), self.edge_type)

    def _blocks(self, side: int) -> Iterator[Tensor]:
        row = self.edge_index[side]
        counts = self.users.gather(row.new_tensor([row.numel()]), 'edges')
        for rank, count in enumerate(torch.cat(counts).tolist()):
            for start in range(0, count, BLOCK):
                block = row.new_empty(min(BLOCK, count - start))
                if rank == self.users.rank:
                    block.copy_(row[start : start + BLOCK])
                yield self.users.broadcast(block, rank, 'edges')

    def batch(self, batch: Batch) -> Batch:
        r"""The same batch, whose users find their rows on all processes."""
        return batch._replace(user=UserIndex.of(batch.user, self))

    def degree(self, count: Tensor) -> Tensor:
        r"""Sums the number of edges of every item over all processes."""
        return self.users.all_reduce(count.clone(), 'degrees')

    def kept(self, score: Tensor, num_kept: int) -> Tensor:
        r"""Positions of the edges of this process that are among the
        :obj:`num_kept` highest scores of the edges of all processes. If the lowest of
        these scores occurs several times, the number may be higher.

        Args:
            score: Positive scores of the edges of this process in float32.
            num_kept: Number of edges to keep over all processes.
        """
        # Positive floats are in the order of their bits, so bisection ends after 32 steps.
        bits = score.view(torch.int32).long()
        low, high = 0, 2**31  # At least `num_kept` are at least `low`, and fewer at least `high`.
        while high - low > 1 and num_kept > 0:
            middle = (low + high) // 2
            count = (bits >= middle).sum().view(1)
            if int(self.users.all_reduce(count, 'scalars')) >= num_kept:
                low = middle
            else:
                high = middle
        return (bits >= (low if num_kept > 0 else high)).nonzero().view(-1)


def shard_in(data: HeteroData, edge_type: EdgeType = RATES) -> UserShard | None:
    r"""The part of all users that a graph has, or :obj:`None` if it has all."""
    return data[edge_type].get('shard') if edge_type in data.edge_types else None


def shard_of_batch(batch: Batch) -> UserShard | None:
    r"""The part of all users that this process has, if the batch is one of
    :meth:`UserShard.batch`, or :obj:`None`.
    """
    shard = batch.user.shard if isinstance(batch.user, UserIndex) else None
    assert shard is None or isinstance(shard, UserShard)
    return shard
