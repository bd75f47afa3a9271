r"""Samples training triples of a user, a positive item and a negative item."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from motor_geo.typing import Batch

#: Number of interactions whose negatives are drawn at a time on a CPU.
BLOCK = 2**17


def has_full_user(edge_index: Tensor, num_users: int, num_items: int) -> bool:
    r"""Returns whether some user interacted with every item that has an
    interaction.

    Args:
        edge_index: Training interactions (user, item), **[2, E]**.
        num_users: Number of users.
        num_items: Number of items.
    """
    key = (edge_index[0].long() * num_items + edge_index[1]).unique()
    most = (key // num_items).bincount(minlength=num_users).max()
    return int(most) == (key % num_items).unique().numel()


class BPRSampler:
    r"""Samples mini-batches of users, items they interacted with, and items
    they did not interact with, as in `"BPR: Bayesian Personalized Ranking from
    Implicit Feedback" <https://arxiv.org/abs/1205.2618>`_.

    One epoch contains every training interaction once, in random order. The
    last batch may be smaller. The negative of a pair :math:`(u, i)` is uniform
    over

    .. math::
        \mathcal{I}_{\mathrm{train}} \setminus \mathcal{I}_u,

    the items that occur in training except those of :math:`u`. Sampling needs
    no rejection: if :math:`p_0 < p_1 < \ldots` are the positions of
    :math:`\mathcal{I}_u` in :math:`\mathcal{I}_{\mathrm{train}}`, the
    :math:`r`-th item of the difference has position
    :math:`r + |\{ j : p_j - j \leq r \}|`. A binary search finds these
    positions for a whole epoch at once.

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
    ):
        if batch_size < 1:
            raise ValueError(f"'batch_size' must be at least 1, got {batch_size}.")
        if seed < 0:
            raise ValueError(f"'seed' must not be negative, got {seed}.")
        if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.size(1) == 0:
            raise ValueError(
                f"'edge_index' must hold at least one training interaction in the shape "
                f'[2, E], got {list(edge_index.shape)}.'
            )
        for name, index, size in zip(('user', 'item'), edge_index, (num_users, num_items)):
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

        # Sorting by user makes successive searches access nearby memory.
        key = edge_index[0].long() * num_items + edge_index[1]
        if bool((key[1:] < key[:-1]).any()):
            key = key.sort().values
        self.user, self.pos = key // num_items, key % num_items
        if negatives:
            self._prepare(key.unique_consecutive())
            self._leave_out(self._free == 0, user_names)

    def _leave_out(
        self, full: Tensor, user_names: Sequence[object] | np.ndarray | None = None
    ) -> None:
        r"""Removes the pairs of users without a negative item."""
        if not bool(full.any()):
            return
        count = f'all {self._items.numel()} items of the training interactions'
        keep = ~full[self.user]
        if not bool(keep.any()):
            raise ValueError(
                f'Every user interacted with {count}, so no negative item exists; expected a '
                'model that needs no negatives, or different data.'
            )
        users = full.nonzero().view(-1).tolist()
        names = [str(user if user_names is None else user_names[user]) for user in users[:5]]
        more = f' and {len(users) - 5} more' if len(users) > 5 else ''
        warnings.warn(
            f'User{"s" if len(users) > 1 else ""} {", ".join(names)}{more} interacted with '
            f'{count}, so no negative item exists; leaving their pairs out of training.',
            stacklevel=1,
        )
        self.user, self.pos = self.user[keep], self.pos[keep]

    def _prepare(self, key: Tensor) -> None:
        user, item = key // self.num_items, key % self.num_items
        seen = item.bincount(minlength=self.num_items) > 0
        self._items = seen.nonzero().view(-1)
        degree = user.bincount(minlength=self.num_users)
        self._free = self._items.numel() - degree
        self._start = degree.cumsum(0) - degree
        rank = torch.arange(key.numel(), device=key.device) - self._start[user]
        # Within a user, p_j - j lies in [0, free] and does not decrease.
        position = seen.cumsum(0) - 1  # Position of each item among those with interactions.
        self._gap = user * self._items.numel() + position[item] - rank

    def _sample(self, generator: torch.Generator) -> Tensor:
        # Blocks keep intermediate results in the cache of a CPU.
        size = BLOCK if self.user.device.type == 'cpu' else self.user.numel()
        neg = torch.empty_like(self.user)
        for user, out in zip(self.user.split(size), neg.split(size)):
            free = self._free.index_select(0, user)
            uniform = torch.rand(
                free.numel(), dtype=torch.float64, device=free.device, generator=generator
            )
            draw = torch.minimum((uniform * free).long(), free - 1)
            query = user * self._items.numel() + draw
            skip = torch.searchsorted(self._gap, query, right=True)
            skip -= self._start.index_select(0, user)
            out.copy_(self._items.index_select(0, draw + skip))
        return neg

    def __len__(self) -> int:
        return -(-self.pos.numel() // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        r"""Yields the batches of an epoch.

        Args:
            epoch: Number of the epoch, from 0.
        """
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator(self.pos.device).manual_seed(int(state[0]))
        neg = self._sample(generator) if self.negatives else None
        count, device = self.pos.numel(), self.pos.device
        dtype = torch.int32 if count < 2**31 else torch.int64  # Halves the random memory access.
        perm = torch.randperm(count, dtype=dtype, device=device, generator=generator)
        user, pos = self.user.index_select(0, perm), self.pos.index_select(0, perm)
        neg = pos[:0] if neg is None else neg.index_select(0, perm)
        for start in range(0, count, self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield Batch(user[batch], pos[batch], neg[batch])

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.pos.numel()} interactions, '
            f'batch_size={self.batch_size}, seed={self.seed})'
        )
