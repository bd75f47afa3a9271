from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motor_geo.parallel.user_range import UserRange
from motor_geo.parallel.world import World


class ShardError(ValueError):
    r"""Raised if a computation needs all users on one process."""


class TableShard(UserRange):
    r"""The rows of users and the columns of vectors that one process has of all tables,
    and sums over the processes that have the others.

    Args:
        world: The processes.
        num_users: Number of users of all processes.
        bounds: First user of each process, and the number of users. (default: the
            same number of users on each process but for the last ones)

    Raises:
        ValueError: If the bounds do not cover all users in order.
    """

    def __init__(self, world: World, num_users: int, bounds: Sequence[int] | None = None):
        self.users, self.columns = world.users, world.columns
        self.num_users = num_users
        size = self.users.size
        if bounds is None:
            bounds = [*(_part(0, num_users, rank, size)[0] for rank in range(size)), num_users]
        ends = bounds[0], bounds[-1], len(bounds)
        if ends != (0, num_users, size + 1) or sorted(bounds) != list(bounds):
            raise ValueError(
                f"'bounds' must be {size + 1} ascending numbers from 0 to {num_users}, "
                f'got {list(bounds)}'
            )
        #: First user of each part of the users, and the number of users.
        self.bounds = list(bounds)
        #: Number of users of each part.
        self.sizes = [last - first for first, last in zip(self.bounds, self.bounds[1:])]
        super().__init__(world, *self.bounds[self.users.rank : self.users.rank + 2])

    @property
    def ranked(self) -> UserRange:
        r"""The users whose items this process ranks, see :meth:`to_rank`."""
        return UserRange(
            self.world, *_part(self.first, self.last, self.columns.rank, self.columns.size)
        )

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


def _pad(x: Tensor, size: int) -> Tensor:
    r"""Appends rows of zeros."""
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, size - x.size(0)))


def _part(first: int, last: int, rank: int, size: int) -> tuple[int, int]:
    r"""The part of a range that one of several processes has."""
    length = -(-(last - first) // size)  # As DTensor's Shard(0) cuts.
    begin = min(first + rank * length, last)
    return begin, min(begin + length, last)


class _AllUsers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: TableShard) -> Tensor:
        ctx.shard = shard
        parts = shard.users.gather(_pad(x, max(shard.sizes)), 'users')
        return torch.cat([part[:size] for part, size in zip(parts, shard.sizes)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        shard, most = ctx.shard, max(ctx.shard.sizes)
        parts = torch.stack([_pad(part, most) for part in grad.split(shard.sizes)])
        return shard.users.exchange(parts, 'users').sum(dim=0)[: len(shard)], None
