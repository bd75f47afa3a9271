from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from motor_geo.parallel.table_shard import ShardError, TableShard


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

    shard: TableShard
    own: Tensor  # Positions of the users of this process.
    local: Tensor  # Their rows.

    @classmethod
    def of(cls, user: Tensor, shard: TableShard) -> UserIndex:
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
