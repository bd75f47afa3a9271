from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.parallel.world import World
from motor_geo.typing import RATES, Batch, find_edges, num_nodes, with_edges


class ShardError(ValueError):
    r"""Raised if a computation needs all users on one process."""


class UserShard:
    r"""The users of one process: a part of all users, in the order of the graph.
    Their rows of tables and their interactions are only on this process. All
    processes hold all items.

    Args:
        world: The processes.
        data: The graph with all users.
        edge_type: Edge type of the training interactions, from users to items.
        bounds: First user of each process, and the number of users. (default: the
            same number of users on each process but for the last ones)

    Raises:
        ValueError: If the bounds do not cover all users in order.
    """

    def __init__(
        self,
        world: World,
        data: HeteroData,
        edge_type: EdgeType = RATES,
        bounds: Sequence[int] | None = None,
    ):
        self.world = world
        self.edge_type = edge_type
        self.num_users = num_nodes(data, edge_type[0])
        if bounds is None:
            size = -(-self.num_users // world.size)  # As DTensor's Shard(0) cuts.
            bounds = [min(rank * size, self.num_users) for rank in range(world.size + 1)]
        ends = bounds[0], bounds[-1], len(bounds)
        if ends != (0, self.num_users, world.size + 1) or sorted(bounds) != list(bounds):
            raise ValueError(
                f"'bounds' must be {world.size + 1} ascending numbers from 0 to {self.num_users}, "
                f'got {list(bounds)}'
            )
        #: First user of each process, and the number of users.
        self.bounds = list(bounds)
        #: The users are :obj:`first, ..., last - 1`.
        self.first, self.last = self.bounds[world.rank : world.rank + 2]
        #: All training interactions, **[2, E]**.
        self.edge_index = find_edges(data, edge_type)
        #: Positions of those of the users of this process.
        self.edges = self.mine(self.edge_index[0]).nonzero().view(-1)
        user, item = self.edge_index[:, self.edges]
        self._own = torch.stack([user - self.first, item])  # One tensor for all graphs.

    def __len__(self) -> int:
        return self.last - self.first

    def mine(self, user: Tensor) -> Tensor:
        r"""Which of some users are on this process."""
        return (user >= self.first) & (user < self.last)

    def cut(self, data: HeteroData) -> HeteroData:
        r"""A shallow copy of the graph with the users of this process, numbered from
        zero.
        """
        out = with_edges(data, self._own, self.edge_type)
        out[self.edge_type[0]].num_nodes = len(self)
        out[self.edge_type].shard = self
        return out

    def whole(self, data: HeteroData) -> HeteroData:
        r"""A shallow copy of a graph from :meth:`cut` with all interactions."""
        return with_edges(data, self.edge_index, self.edge_type)

    def cut_model(self, model: nn.Module, names: Sequence[str]) -> None:
        r"""Reduces tables with one row per user to the users of this process, in
        place.

        Args:
            model: The model.
            names: Names of the tables among its parameters and buffers.
        """
        for name in names:
            module, _, own = name.rpartition('.')
            parent = model.get_submodule(module)
            table = getattr(parent, own)
            part = table.detach()[self.first : self.last].clone()
            if isinstance(table, nn.Parameter):
                part = nn.Parameter(part, requires_grad=table.requires_grad)
            setattr(parent, own, part)

    def rows(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        r"""Reduces tables of all users among tensors to the users of this process."""
        part = slice(self.first, self.last)
        return {key: x[part] if key in names else x for key, x in tensors.items()}

    def batch(self, batch: Batch) -> Batch:
        r"""The same batch, whose users find their rows on all processes."""
        return batch._replace(user=UserIndex.of(batch.user, self))

    def degree(self, count: Tensor) -> Tensor:
        r"""Sums the number of edges of every item over all processes."""
        return self.world.all_reduce(count.clone(), 'degrees')

    def at_items(self, x: Tensor) -> Tensor:
        r"""Sums vectors of items over all processes."""
        return self.world.sum(x, 'items')

    def total(self, x: Tensor) -> Tensor:
        r"""Sums a scalar over all processes."""
        return self.world.sum(x, 'scalars')

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
            if int(self.world.all_reduce(count, 'scalars')) >= num_kept:
                low = middle
            else:
                high = middle
        return (bits >= (low if num_kept > 0 else high)).nonzero().view(-1)

    def collect(self, x: Tensor) -> Tensor:
        r"""All rows of a table of users on the first process. The others get their own
        rows back.
        """
        if self.world.size == 1:
            return x
        sizes = [last - first for first, last in zip(self.bounds, self.bounds[1:])]
        rest = max(sizes) - len(self)
        part = F.pad(x.detach().contiguous(), (0, 0) * (x.dim() - 1) + (0, rest))
        parts = [torch.empty_like(part) for _ in sizes]
        dist.gather(part, parts if self.world.is_first else None)
        if not self.world.is_first:
            return x
        return torch.cat([part[:size] for part, size in zip(parts, sizes)])

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.first}, {self.last}, {self.world})'


def shard_in(data: HeteroData, edge_type: EdgeType = RATES) -> UserShard | None:
    r"""The part of all users that a graph has, or :obj:`None` if it has all."""
    return data[edge_type].get('shard') if edge_type in data.edge_types else None


class UserIndex(Tensor):
    r"""Users of a batch, the same on all processes. Selecting their rows from a table
    of the users of this process fetches the rows of all others,

    .. code-block:: python

        index = UserIndex.of(batch.user, shard)
        x = table.index_select(0, index)  # [B, d], the same on all processes

    whose gradients go back to their process. Besides, it only has a size and
    distinct values (:func:`torch.unique` with counts or positions). Everything
    else raises an error, since it would take the users of other processes for
    those of this one.
    """

    shard: UserShard
    own: Tensor  # Positions of the users of this process.
    local: Tensor  # Their rows.

    @classmethod
    def of(cls, user: Tensor, shard: UserShard) -> UserIndex:
        r"""The index of some users.

        Shapes:
            - **input:** users :math:`(B)`
        """
        out = user.as_subclass(cls)
        out.shard = shard
        out.own = shard.mine(user).nonzero().view(-1)
        out.local = user.index_select(0, out.own) - shard.first
        return out

    def spread(self, x: Tensor) -> Tensor:
        r"""Vectors of all users of the index, from those of the users of this process.

        Shapes:
            - **input:** vectors :math:`(B^{\prime}, *)` in the order of :obj:`own`
            - **output:** vectors :math:`(B, *)`
        """
        return _Spread.apply(x, self)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, '__name__', str(func))
        with torch._C.DisableTorchFunctionSubclass():
            if name == 'index_select' and len(args) == 3 and args[1] == 0 and not kwargs:
                table, _, index = args
                if isinstance(index, cls) and not isinstance(table, cls):
                    return _select(table, index)
            out = func(*args, **(kwargs or {}))
        if name == 'unique' and isinstance(out, tuple) and isinstance(args[0], cls):
            return (cls.of(out[0], args[0].shard), *out[1:])
        if any(isinstance(x, Tensor) for x in (out if isinstance(out, tuple) else (out,))):
            raise ShardError(
                f"'{name}' of the users of a batch needs all users on one process; expected "
                "'table.index_select(0, batch.user)'"
            )
        return out


def _select(table: Tensor, index: UserIndex) -> Tensor:
    if table.size(0) != len(index.shard) or not table.is_floating_point():
        raise ShardError(
            f'A table of {table.size(0)} rows in {table.dtype} was read at users of a batch; '
            f'expected vectors of the {len(index.shard)} users of this process'
        )
    return index.spread(table.index_select(0, index.local))


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: UserIndex) -> Tensor:
        ctx.options = index.own, index.shard.world
        out = x.new_zeros(index.numel(), *x.shape[1:])
        out.index_copy_(0, index.own, x)
        return index.shard.world.all_reduce(out, 'rows')

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        own, world = ctx.options
        grad = world.all_reduce(grad.clone(memory_format=torch.contiguous_format), 'rows')
        return grad.index_select(0, own), None
