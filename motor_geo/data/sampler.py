r"""Samples training triples of a user, a positive item and a negative item."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.parallel.user_shard import UserShard
from motor_geo.parallel.world import World
from motor_geo.typing import MANY_INTERACTIONS, Batch

#: Number of interactions whose negatives are drawn at a time on a CPU.
BLOCK = 2**17
#: Number of interactions that are gathered at a time.
GATHER = 2**14


def has_full_user(
    edge_index: Tensor, num_users: int, num_items: int, shard: UserShard | None = None
) -> bool:
    r"""Returns whether some user interacted with every item that has an
    interaction.

    Args:
        edge_index: Training interactions (user, item), **[2, E]**.
        num_users: Number of users.
        num_items: Number of items.
        shard: The part of all users that the interactions are of, if they are a part.
    """
    users = World() if shard is None else shard.users
    key = (edge_index[0].long() * num_items + edge_index[1]).unique()
    most = (key // num_items).bincount(minlength=max(num_users, 1)).amax(0, keepdim=True)
    seen = users.all_reduce((key % num_items).bincount(minlength=num_items), 'batches') > 0
    return int(users.all_reduce(most, 'batches', 'max')) == int(seen.sum())


class BPRSampler:
    r"""Samples mini-batches of users, items they interacted with, and items
    they did not interact with, as in `"BPR: Bayesian Personalized Ranking from
    Implicit Feedback" <https://arxiv.org/abs/1205.2618>`_.

    One epoch contains every training interaction once, in random order. The
    last batch may be smaller. If there are at least a million interactions, those
    of a batch are in the order of their users. The negative of a pair :math:`(u, i)` is uniform
    over

    .. math::
        \mathcal{I}_{\mathrm{train}} \setminus \mathcal{I}_u,

    the items that occur in training except those of :math:`u`. Sampling needs
    no rejection: if :math:`p_0 < p_1 < \ldots` are the positions of
    :math:`\mathcal{I}_u` in :math:`\mathcal{I}_{\mathrm{train}}`, the
    :math:`r`-th item of the difference has position
    :math:`r + |\{ j : p_j - j \leq r \}|`. A binary search finds these
    positions.

    The sampler reads interactions that are sorted by user and item in place,
    as those of a data set are, and otherwise keeps a sorted copy. During an
    epoch, it holds a permutation and a negative per interaction, 8 bytes
    together.

    Several processes yield the same batches as one. Each has the interactions and
    the negatives of its own users, and a permutation of those of all users, 4 bytes per
    interaction. All draw the same numbers, for all interactions, and exchange the
    batches.

    Args:
        edge_index: Training interactions (user, item). Batches are on the same
            device.
        num_users: Number of users.
        num_items: Number of items.
        batch_size: Number of interactions per batch.
        seed: Random seed. Epoch :obj:`e` depends only on :obj:`(seed, e)` (but
            CPU and GPU draw different numbers).
        negatives: If set to :obj:`False`, :obj:`neg` is an empty tensor.
        user_names: Names of the users, for warnings. (default: their indices)
        shard: The users of this process, if it is one of several. They are numbered
            from zero in :obj:`edge_index`, and :obj:`num_users` is their number, as
            in :meth:`UserShard.cut <motor_geo.parallel.UserShard.cut>`. Batches
            have the users of all processes.

    Shapes:
        - **input:** edge index :math:`(2, E)`
        - **output:** user :math:`(B)`, positive :math:`(B)`, negative
          :math:`(B)`

    Raises:
        ValueError: If :obj:`batch_size` or :obj:`seed` is out of range, there
            is no interaction, an index is out of range, or no negative exists
            because every user interacted with every item.

    .. note::
        A user who interacted with every item has no negative. Training leaves
        out the pairs of such users, and a warning names these users.
    """

    @torch.inference_mode(False)  # Batches take part in backward passes.
    def __init__(
        self,
        edge_index: Tensor,
        num_users: int,
        num_items: int,
        batch_size: int = 2048,
        seed: int = 0,
        negatives: bool = True,
        user_names: Sequence[object] | np.ndarray | None = None,
        shard: UserShard | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"'batch_size' must be at least 1, got {batch_size}.")
        if seed < 0:
            raise ValueError(f"'seed' must not be negative, got {seed}.")
        size = edge_index.size(-1) if shard is None else shard.num_edges
        if edge_index.dim() != 2 or edge_index.size(0) != 2 or size == 0:
            raise ValueError(
                f"'edge_index' must hold at least one training interaction in the shape "
                f'[2, E], got {list(edge_index.shape)}.'
            )
        for name, index, size in zip(('user', 'item'), edge_index, (num_users, num_items)):
            if index.numel() == 0:
                continue
            low, high = int(index.min()), int(index.max())
            if low < 0 or high >= size:
                raise ValueError(
                    f"'edge_index' holds {name} {low if low < 0 else high}, expected "
                    f'indices from 0 to {size - 1}.'
                )
        self.num_users = num_users
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = seed
        self.negatives = negatives
        #: The processes with other users, and the first user of this one.
        self._users, self._first = (World(), 0) if shard is None else (shard.users, shard.first)
        #: Type of exchanged users and items.
        self._index_dtype = _dtype(max(num_users if shard is None else shard.num_users, num_items))

        # Sorting by user makes successive searches access nearby memory.
        self.user, self.pos = edge_index
        key = self.user.long() * num_items + self.pos
        if bool((key[1:] < key[:-1]).any()):
            key = key.sort().values
            self.user = (key // num_items).to(_dtype(num_users))
            self.pos = (key % num_items).to(_dtype(num_items))
        if negatives:
            self._prepare(key)
            self._leave_out(self._ptr.diff() == self._items.numel(), user_names)
        count = torch.tensor([self.pos.numel()], device=self.pos.device)
        counts = [int(x) for x in self._users.gather(count, 'batches')]
        #: Number of interactions of all processes, and position of the first one of this one.
        self._total, self._start = sum(counts), sum(counts[: self._users.rank])

    def _leave_out(
        self, full: Tensor, user_names: Sequence[object] | np.ndarray | None = None
    ) -> None:
        r"""Removes the pairs of users without a negative item."""
        keep = ~full.index_select(0, self.user)
        count = self._users.all_reduce(torch.stack([full.sum(), keep.sum()]), 'batches')
        num_full, num_kept = count.tolist()
        if num_full == 0:
            return
        items = f'all {self._items.numel()} items of the training interactions'
        if num_kept == 0:
            raise ValueError(
                f'Every user interacted with {items}, so no negative item exists; expected a '
                'model that needs no negatives, or different data.'
            )
        users = full.nonzero().view(-1)[:5] + self._first
        users = torch.cat(
            self._users.gather(F.pad(users, (0, 5 - users.numel()), value=-1), 'batches')
        )
        found = users[users >= 0][:5].tolist()
        names = [str(user if user_names is None else user_names[user]) for user in found]
        more = f' and {num_full - 5} more' if num_full > 5 else ''
        warnings.warn(
            f'User{"s" if num_full > 1 else ""} {", ".join(names)}{more} interacted with '
            f'{items}, so no negative item exists; leaving their pairs out of training.',
            stacklevel=1,
        )
        self.user, self.pos = self.user[keep], self.pos[keep]

    def _prepare(self, key: Tensor) -> None:
        new = torch.ones_like(key, dtype=torch.bool)
        new[1:] = key[1:] != key[:-1]
        distinct = bool(new.all())
        #: Distinct items of every user, and where those of a user begin.
        self._item = self.pos if distinct else self.pos[new]
        user = self.user if distinct else self.user[new]
        degree = user.bincount(minlength=self.num_users)
        self._ptr = F.pad(degree.cumsum(0), (1, 0)).to(_dtype(key.numel() + 1))
        count = self._item.bincount(minlength=self.num_items)
        seen = self._users.all_reduce(count, 'batches') > 0
        self._items = seen.nonzero().view(-1)
        self._position = seen.cumsum(0) - 1  # Position of each item among those with interactions.

    def _sample(self, generator: torch.Generator) -> Tensor:
        # Blocks keep intermediate results in the cache of a CPU.
        size = BLOCK if self.user.device.type == 'cpu' else self._total
        neg = torch.empty_like(self.user, dtype=_dtype(self.num_items))
        for start in range(0, self._total, size):
            # All processes draw for the pairs of all of them.
            uniform = torch.rand(
                min(size, self._total - start),
                dtype=torch.float64,
                device=neg.device,
                generator=generator,
            )
            skip = max(self._start - start, 0)
            own = slice(max(start - self._start, 0), max(start + size - self._start, 0))
            user = self.user[own].long()
            if user.numel() > 0:
                neg[own] = self._negatives(user, uniform[skip : skip + user.numel()])
        return neg

    def _negatives(self, user: Tensor, uniform: Tensor) -> Tensor:
        r"""Items that consecutive pairs do not have, from uniform numbers in [0, 1)."""
        first, gap = self._gaps(int(user[0]), int(user[-1]))
        start = self._ptr.index_select(0, user)
        free = self._items.numel() - (self._ptr.index_select(0, user + 1) - start)
        draw = torch.minimum((uniform * free).long(), free - 1)
        query = user * self._items.numel() + draw
        skip = torch.searchsorted(gap, query, right=True)
        skip += first - start
        return self._items.index_select(0, draw + skip)

    def _gaps(self, low: int, high: int) -> tuple[int, Tensor]:
        r"""The numbers :math:`p_j - j` of consecutive users in one ascending list,
        and where the first of these users begins.
        """
        ptr = self._ptr[low : high + 2].long()
        first, last = int(ptr[0]), int(ptr[-1])
        user = torch.arange(low, high + 1, device=ptr.device)
        # Within a user, p_j - j lies in [0, free] and does not decrease.
        offset = (user * self._items.numel() + ptr[:-1]).repeat_interleave(
            ptr.diff(), output_size=last - first
        )
        offset -= torch.arange(first, last, device=ptr.device)
        return first, offset.add_(self._position.index_select(0, self._item[first:last]))

    def _gather(self, rows: Tensor, columns: Sequence[Tensor]) -> list[Tensor]:
        r"""Entries of columns of the pairs of all processes, in 64 bits."""
        if self._users.size == 1:
            return [x.index_select(0, rows).long() for x in columns]
        own = (rows >= self._start) & (rows < self._start + self.pos.numel())
        place = own.nonzero().view(-1)
        rows = rows.index_select(0, place) - self._start
        out = torch.zeros(len(columns), own.numel(), dtype=self._index_dtype, device=rows.device)
        for x, column, first in zip(out, columns, (self._first, 0, 0)):
            x[place] = column.index_select(0, rows).to(x.dtype) + first
        return list(self._users.all_reduce(out, 'batches').long())

    def __len__(self) -> int:
        return -(-self._total // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        r"""Yields the batches of an epoch.

        Args:
            epoch: Number of the epoch, from 0.
        """
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator(self.pos.device).manual_seed(int(state[0]))
        columns = [self.user, self.pos]
        columns += [self._sample(generator)] if self.negatives else []
        count, device = self._total, self.pos.device
        perm = torch.randperm(count, dtype=_dtype(count), device=device, generator=generator)
        for rows in perm.split(max(GATHER // self.batch_size, 1) * self.batch_size):
            if count >= MANY_INTERACTIONS:  # Rows of large tables are then read in order.
                rows = torch.cat([batch.sort().values for batch in rows.split(self.batch_size)])
            user, pos, *neg = self._gather(rows, columns)
            no = neg[0] if neg else pos[:0]
            for start in range(0, rows.numel(), self.batch_size):
                batch = slice(start, start + self.batch_size)
                yield Batch(user[batch], pos[batch], no[batch])

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self._total} interactions, '
            f'batch_size={self.batch_size}, seed={self.seed})'
        )


def _dtype(size: int) -> torch.dtype:
    r"""The smaller type that holds indices below :obj:`size`."""
    return torch.int32 if size <= 2**31 else torch.int64
