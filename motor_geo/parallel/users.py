from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.parallel.world import World
from motor_geo.typing import RATES, Batch, LazyEdges, find_edges, num_nodes, with_edges

#: Number of interactions that processes exchange at a time.
BLOCK = 2**20


class ShardError(ValueError):
    r"""Raised if a computation needs all users on one process."""


class EdgePart(NamedTuple):
    r"""Successive edges of a graph."""

    edge_index: Tensor  # [2, E_p]
    start: int  # Position of the first one among all edges.
    num_edges: int  # Number of all edges.


class UserRange:
    r"""Consecutive users of one process.

    Args:
        world: The processes.
        first: The first user.
        last: The user after the last one.
    """

    def __init__(self, world: World, first: int, last: int):
        self.world = world
        #: The users are :obj:`first, ..., last - 1`.
        self.first = first
        self.last = last

    def __len__(self) -> int:
        return self.last - self.first

    def mine(self, user: Tensor) -> Tensor:
        r"""Which of some users are on this process."""
        return (user >= self.first) & (user < self.last)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.first}, {self.last}, {self.world})'


class UserShard(UserRange):
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
        self.users, self.columns = world.users, world.columns
        self.edge_type = edge_type
        self.num_users = num_nodes(data, edge_type[0])
        size = self.users.size
        if bounds is None:
            bounds = [
                *(_part(0, self.num_users, rank, size)[0] for rank in range(size)),
                self.num_users,
            ]
        ends = bounds[0], bounds[-1], len(bounds)
        if ends != (0, self.num_users, size + 1) or sorted(bounds) != list(bounds):
            raise ValueError(
                f"'bounds' must be {size + 1} ascending numbers from 0 to {self.num_users}, "
                f'got {list(bounds)}'
            )
        #: First user of each part of the users, and the number of users.
        self.bounds = list(bounds)
        #: Number of users of each part.
        self.sizes = [last - first for first, last in zip(self.bounds, self.bounds[1:])]
        super().__init__(world, *self.bounds[self.users.rank : self.users.rank + 2])
        own = _part_of(find_edges(data, edge_type)) if part is None else part
        #: Interactions of the users of this process, **[2, E_p]**, and the number of those
        #: of all processes.
        self.edge_index, start, self.num_edges = own(self.first, self.last)
        #: Positions of the first ones among the second ones.
        self.edges = slice(start, start + self.edge_index.size(1))
        user, item = self.edge_index
        self._own = torch.stack([user - self.first, item])  # One tensor for all graphs.

    @property
    def ranked(self) -> UserRange:
        r"""The users whose items this process ranks, see :meth:`to_rank`."""
        return UserRange(
            self.world, *_part(self.first, self.last, self.columns.rank, self.columns.size)
        )

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

    def cut_model(
        self, model: nn.Module, users: Sequence[str], columns: Sequence[str] = ()
    ) -> None:
        r"""Reduces tables to the users and the columns of this process, in place.

        Args:
            model: The model.
            users: Names of the parameters and buffers with one row per user.
            columns: Names of those with the columns of vectors.
        """
        state = dict(chain(model.named_parameters(), model.named_buffers()))
        for name in dict.fromkeys([*users, *columns]):
            table = state[name]
            part = self.part(table.detach(), name in users, name in columns).clone()
            if isinstance(table, nn.Parameter):
                part = nn.Parameter(part, requires_grad=table.requires_grad)
            module, _, own = name.rpartition('.')
            setattr(model.get_submodule(module), own, part)

    def part(self, table: Tensor, users: bool, columns: bool) -> Tensor:
        r"""The part of a table that this process has.

        Args:
            table: The table.
            users: Whether it has one row per user.
            columns: Whether it has the columns of vectors.
        """
        table = table[self.first : self.last] if users else table
        return self.own_columns(table) if columns else table

    def parts(
        self, tensors: Mapping[str, Tensor], users: Sequence[str], columns: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        r"""Reduces tables among tensors, see :meth:`cut_model`."""
        return {key: self.part(x, key in users, key in columns) for key, x in tensors.items()}

    def own_columns(self, x: Tensor) -> Tensor:
        r"""The columns of this process.

        Shapes:
            - **input:** vectors :math:`(*, d)`
            - **output:** vectors :math:`(*, d / C)`

        Raises:
            ShardError: If the processes cannot share the columns equally.
        """
        if self.columns.size == 1:
            return x
        if x.size(-1) % self.columns.size > 0:
            raise ShardError(
                f'{self.columns.size} processes cannot share {x.size(-1)} columns; expected a '
                f'multiple of {self.columns.size}'
            )
        return x.chunk(self.columns.size, dim=-1)[self.columns.rank].contiguous()

    def over_columns(self, x: Tensor) -> Tensor:
        r"""Sums what comes from the columns of each process over all columns."""
        return self.columns.sum(x, 'columns')

    def all_columns(self, x: Tensor) -> Tensor:
        r"""All columns of vectors, the same on all processes with the same users.

        Shapes:
            - **input:** vectors :math:`(*, d / C)`
            - **output:** vectors :math:`(*, d)`
        """
        size, rank = self.columns.size, self.columns.rank
        if size == 1:
            return x
        width = x.size(-1)
        return self.over_columns(F.pad(x, (rank * width, (size - 1 - rank) * width)))

    def to_rank(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        r"""All columns of the vectors of all items, and of the users that this process
        ranks items for (:attr:`ranked`): processes with the same users share them.

        Shapes:
            - **input:** user vectors :math:`(M_p, d / C)`, item vectors
              :math:`(N, d / C)`
            - **output:** user vectors :math:`(M_p / C, d)`, item vectors :math:`(N, d)`
        """
        if self.columns.size == 1:
            return user, item
        most = -(-len(self) // self.columns.size)
        user = F.pad(user, (0, 0, 0, most * self.columns.size - len(self)))
        user = self.columns.exchange(user.view(self.columns.size, most, -1), 'vectors')
        user = user.transpose(0, 1).flatten(1)[: len(self.ranked)]
        return user, torch.cat(self.columns.gather(item, 'vectors'), dim=1)

    def batch(self, batch: Batch) -> Batch:
        r"""The same batch, whose users find their rows on all processes."""
        return batch._replace(user=UserIndex.of(batch.user, self))

    def degree(self, count: Tensor) -> Tensor:
        r"""Sums the number of edges of every item over all processes."""
        return self.users.all_reduce(count.clone(), 'degrees')

    def at_items(self, x: Tensor) -> Tensor:
        r"""Sums vectors of items over all processes."""
        return self.users.sum(x, 'items')

    def all_users(self, x: Tensor) -> Tensor:
        r"""The vectors of the users of all processes, on each of them.

        Shapes:
            - **input:** vectors :math:`(M_p, *)`
            - **output:** vectors :math:`(M, *)`
        """
        return x if self.users.size == 1 else _AllUsers.apply(x, self)

    def total(self, x: Tensor) -> Tensor:
        r"""Sums scalars over the processes with other users."""
        return self.users.sum(x, 'scalars')

    def log_sum_exp(self, x: Tensor) -> Tensor:
        r"""Combines logarithms of sums over the users of each process into those of the
        sums over all users, entry by entry.
        """
        largest = self.users.all_reduce(x.detach().clone(), 'scalars', 'max')
        return self.total((x - largest).exp()).log() + largest

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

    def collect(self, x: Tensor, users: bool, columns: bool) -> Tensor:
        r"""A whole table on the first process, from the parts of all of them. The others
        get their own part or a larger one back.

        Args:
            x: The part of this process.
            users: Whether the table has one row per user.
            columns: Whether it has the columns of vectors.
        """
        if users and self.users.size > 1:
            parts = self.users.collect(_pad(x.detach(), max(self.sizes)))
            if parts is not None:
                x = torch.cat([part[:size] for part, size in zip(parts, self.sizes)])
        if columns and self.columns.size > 1 and self.users.is_first:
            parts = self.columns.collect(x.detach())
            x = x if parts is None else torch.cat(parts, dim=1)
        return x

    def sum_gradients(
        self, model: nn.Module, users: Sequence[str], columns: Sequence[str] = ()
    ) -> None:
        r"""Sums the gradients of parameters over the processes that hold the same, see
        :meth:`cut_model`.
        """
        groups: dict[World, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if name not in users:
                world = self.users if name in columns else self.world
            elif name not in columns:
                world = self.columns
            else:
                continue
            groups.setdefault(world, []).append(parameter)
        for world, parameters in groups.items():
            world.sum_gradients(parameters)


def _part_of(edge_index: Tensor) -> Callable[[int, int], EdgePart]:
    r"""Returns a function that cuts edges that are sorted by user.

    Raises:
        ValueError: If they are not.
    """
    user = edge_index[0].contiguous()
    if bool((user[1:] < user[:-1]).any()):
        raise ValueError(
            'Processes share interactions that are sorted by user, got others; expected those of '
            "a data set, or 'edge_index[:, edge_index[0].argsort(stable=True)]'"
        )

    def part(first: int, last: int) -> EdgePart:
        start, end = torch.searchsorted(user, user.new_tensor([first, last])).tolist()
        return EdgePart(edge_index[:, start:end], start, user.numel())

    return part


def _pad(x: Tensor, size: int) -> Tensor:
    r"""Appends rows of zeros."""
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, size - x.size(0)))


def _part(first: int, last: int, rank: int, size: int) -> tuple[int, int]:
    r"""The part of a range that one of several processes has."""
    length = -(-(last - first) // size)  # As DTensor's Shard(0) cuts.
    begin = min(first + rank * length, last)
    return begin, min(begin + length, last)


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
        ctx.options = index.own, index.shard.users
        out = x.new_zeros(index.numel(), *x.shape[1:])
        out.index_copy_(0, index.own, x)
        return index.shard.users.all_reduce(out, 'rows')

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        own, world = ctx.options
        grad = world.all_reduce(grad.clone(memory_format=torch.contiguous_format), 'rows')
        return grad.index_select(0, own), None


class _AllUsers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: UserShard) -> Tensor:
        ctx.shard = shard
        parts = shard.users.gather(_pad(x, max(shard.sizes)), 'users')
        return torch.cat([part[:size] for part, size in zip(parts, shard.sizes)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        shard, most = ctx.shard, max(ctx.shard.sizes)
        parts = torch.stack([_pad(part, most) for part in grad.split(shard.sizes)])
        return shard.users.exchange(parts, 'users').sum(dim=0)[: len(shard)], None
