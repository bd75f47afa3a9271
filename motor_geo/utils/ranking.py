r"""Ranks all items for blocks of users, with some pairs masked."""

from __future__ import annotations

import copy
import math
import reprlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from motor_geo.typing import Embeddings, Scores
from motor_geo.utils.seen import SeenItems, pairs_of
from motor_geo.utils.topk import topk

#: Bytes of scores per block of users. On a CPU, they stay in its cache between product and
#: selection. On a GPU, they keep it busy.
CPU_BLOCK, GPU_BLOCK = 16 * 2**20, 256 * 2**20
#: Minimum number of users per block for large catalogs. Each block reads all item vectors once,
#: which takes longer than computing the scores of a few users.
MIN_USERS = 64
#: Shifts and factors of SplitMix64.
MIX = ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1))


class Ranker:
    r"""Ranks items repeatedly for a fixed list of users.

    Everything that does not depend on the embeddings (which scores to mask in
    which block of users) is computed only once.

    Args:
        users: Users to rank items for, **[U]**.
        num_items: Number of items.
        k: Maximum length of the lists, which have at most one entry per
            candidate.
        exclude: Pairs (user, item) that are never recommended, **[2, E]**. For a few users
            at a time, prepare them once as :class:`~motor_geo.utils.seen.SeenItems`.
            (default: none)
        candidates: Distinct items to rank, **[C]**. (default: all)
        batch_size: Number of users per block. (default: on a CPU, as many as
            fit into 16 MB of scores, but at least 64 if these fit into 256 MB;
            on a GPU, as many as fit into 256 MB)
        seed: If given, ties between equal scores are broken at random:
            differently for every user, but the same way in every call.
            Otherwise, their order is unspecified.
        first_user: The user of the first user vector.

    Raises:
        ValueError: If :obj:`k` or :obj:`batch_size` is below 1, an index is out
            of range, or :obj:`candidates` are empty or not distinct.
    """

    def __init__(
        self,
        users: Tensor,
        num_items: int,
        k: int,
        exclude: Tensor | SeenItems | None = None,
        candidates: Tensor | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        first_user: int = 0,
    ):
        if k < 1:
            raise ValueError(f"'k' must be at least 1, got {k}.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"'batch_size' must be at least 1, got {batch_size}.")
        if users.numel() > 0 and int(users.min()) < 0:
            raise ValueError(f"'users' holds the negative index {int(users.min())}.")
        if candidates is not None:
            if candidates.numel() == 0:
                raise ValueError("'candidates' is empty, expected at least one item to rank.")
            check_items('candidates', candidates, num_items)
            if candidates.unique().numel() < candidates.numel():
                raise ValueError("'candidates' holds an item twice, expected distinct items.")
        self.users = users
        self.first_user = first_user
        self.num_items = num_items
        self.candidates = candidates
        self.num_candidates = num_items if candidates is None else candidates.numel()
        self.k = min(k, self.num_candidates)
        block = CPU_BLOCK if users.device.type == 'cpu' else GPU_BLOCK
        width = 4 * max(self.num_candidates, 1)
        size = batch_size or max(block // width, min(MIN_USERS, GPU_BLOCK // width))
        self.batch_size = max(1, min(size, users.numel()))
        self._ticket: Tensor | None = None
        if seed is not None:
            item = (
                torch.arange(num_items, device=users.device) if candidates is None else candidates
            )
            self._ticket = _mix(_mix(item.long()) + seed)
        self._max_user = int(users.max()) if users.numel() > 0 else -1
        self._mask(exclude)

    def subset(self, index: Tensor) -> Ranker:
        r"""Returns a ranker of the same items for some of the users.

        Args:
            index: Positions in :obj:`users`, **[n]**.
        """
        out = copy.copy(self)
        out.users = self.users[index]
        out._mask(self._seen)
        return out

    def _mask(self, exclude: Tensor | SeenItems | None) -> None:
        # Flat positions within the score matrix of each block of users.
        device = self.users.device
        self._flat = torch.empty(0, dtype=torch.long, device=device)
        self._seen: SeenItems | None = None
        self._bound = [0] * (-(-self.users.numel() // self.batch_size) + 1)
        if self.users.numel() == 0:
            return
        if isinstance(exclude, Tensor) and exclude.numel() > 0:
            check_items('exclude', exclude[1], self.num_items)
            exclude = SeenItems(pairs_of(exclude.to(device), self.users))
        if not isinstance(exclude, SeenItems) or len(exclude) == 0:
            return
        self._seen = exclude
        row, column = exclude.of(self.users)
        if self.candidates is not None:
            place = column.new_full((self.num_items,), -1)
            place[self.candidates] = torch.arange(self.num_candidates, device=device)
            known = place[column] >= 0
            row, column = row[known], place[column[known]]
        end = row.bincount(minlength=self.users.numel()).cumsum(0)
        self._flat = (row % self.batch_size) * self.num_candidates + column
        last = torch.arange(len(self._bound) - 1, device=device) * self.batch_size
        last = (last + self.batch_size - 1).clamp(max=end.numel() - 1)
        self._bound = [0, *end[last].tolist()]

    def __len__(self) -> int:
        return len(self._bound) - 1

    def check(self, emb: Embeddings) -> None:
        r"""Checks the number of vectors.

        Raises:
            ValueError: If there are too few users, or not one vector per item.
        """
        user, item = emb.user, emb.item
        least = max(self._max_user + 1 - self.first_user, 0)
        if item.size(0) != self.num_items or user.size(0) < least:
            raise ValueError(
                f'The embeddings hold {user.size(0)} users and {item.size(0)} items, expected '
                f'at least {least} users and exactly {self.num_items} items.'
            )

    def _product(self, emb: Embeddings) -> Callable[[Tensor, Tensor], None]:
        r"""Returns a function that writes the scores of users, computed as inner
        products.
        """
        self.check(emb)
        user, item = emb.user.detach().float(), emb.item.detach().float()
        if self.candidates is not None:
            item = item[self.candidates]

        def write(users: Tensor, out: Tensor) -> None:
            rows = users if self.first_user == 0 else users - self.first_user
            torch.matmul(user[rows], item.t(), out=out)

        return write

    def _scorer(self, score: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], None]:
        r"""Returns a function that writes the scores of users, computed by
        :obj:`score`.
        """

        def write(users: Tensor, out: Tensor) -> None:
            values = score(users)
            out.copy_(values if self.candidates is None else values[:, self.candidates])

        return write

    @torch.no_grad()
    def __call__(
        self, emb: Embeddings | Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        r"""Yields, for each block of users, the position of its first user, and
        the scores and items of the lists, **[block, k]** each, best first. If
        fewer than :obj:`k` items can be recommended, the remaining scores are
        :obj:`-inf` and the remaining items are :obj:`-1`.

        Args:
            emb: User and item vectors, or (for models without vectors) a
                function from users **[B]** to their scores of all items
                **[B, N]**.

        Raises:
            ValueError: If a score is NaN (raised after the last block), or the
                embeddings have the wrong size.
        """
        product = self._scorer(emb) if callable(emb) else self._product(emb)
        # One buffer for all blocks, because allocating costs more than masking.
        nan: list[Tensor] = []  # Checked once, so that a GPU need not synchronize in each block.
        size = self.batch_size * self.num_candidates
        buffer = torch.empty(size, dtype=torch.float, device=self.users.device)
        for i, start in enumerate(range(0, self.users.numel(), self.batch_size)):
            users = self.users[start : start + self.batch_size]
            flat = buffer[: users.numel() * self.num_candidates]
            scores = flat.view(users.numel(), self.num_candidates)
            product(users, scores)
            flat.index_fill_(0, self._flat[self._bound[i] : self._bound[i + 1]], -math.inf)
            value, index = self._top(scores, start)
            nan.append(value[:, 0].isnan())  # NaN ranks first.
            if self.candidates is not None:
                index = self.candidates[index]
            yield start, value, index.masked_fill_(value == -math.inf, -1)
        bad = self.users[torch.cat(nan)] if nan else self.users[:0]
        if bad.numel() > 0:
            raise ValueError(f'The scores of user {int(bad[0])} hold NaN; the model has diverged.')

    def _top(self, scores: Tensor, start: int) -> tuple[Tensor, Tensor]:
        r"""Returns the values and columns of the :obj:`k` best scores."""
        if self._ticket is None:
            return topk(scores, self.k)
        # One additional entry shows whether a tie crosses the end of the list.
        value, index = topk(scores, min(self.k + 1, scores.size(1)))
        tie = value[:, 1:] == value[:, :-1]
        last, index = value[:, self.k - 1 : self.k], index[:, : self.k]
        value, tie = value[:, : self.k], tie & (value[:, 1:] > -math.inf)
        rows = tie.any(dim=1).nonzero().view(-1)
        if rows.numel() == 0:
            return value, index

        user = _mix(self.users[start : start + scores.size(0)].long()).view(-1, 1)
        for part in (
            tie[:, self.k - 1 :].any(dim=1).nonzero().view(-1).split(max(1, self.batch_size // 8))
        ):
            ticket = _draw(user[part], self._ticket).masked_fill_(scores[part] != last[part], -1)
            # Items with a better score than the last one are already in the list.
            place = torch.arange(self.k, device=part.device)
            place = place - (value[part] > last[part]).sum(dim=1, keepdim=True)
            drawn = topk(ticket, self.k)[1].gather(1, place.clamp(min=0))
            index[part] = torch.where(place < 0, index[part], drawn)
        order = _draw(user[rows], self._ticket[index[rows]]).argsort(dim=1, descending=True)
        by_score = value[rows].gather(1, order).argsort(dim=1, descending=True, stable=True)
        index[rows] = index[rows].gather(1, order.gather(1, by_score))
        return value, index


def top_k(
    emb: Embeddings | Scores,
    users: Tensor | Sequence[int] | int,
    k: int,
    exclude: Tensor | SeenItems | None = None,
    candidates: Tensor | None = None,
    batch_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Returns the :obj:`k` best items of each user.

    Args:
        emb: User and item vectors, or the scores of a model without vectors.
        users: Users to recommend to: indices **[U]**, a single index, or a
            boolean mask of all users **[M]**.
        k: Maximum length of the lists, which have at most one entry per
            candidate.
        exclude: Pairs (user, item) that are never recommended, **[2, E]**. For a few users
            at a time, prepare them once as :class:`~motor_geo.utils.seen.SeenItems`.
            (default: none)
        candidates: Distinct items to rank, **[C]**. (default: all)
        batch_size: Number of users per block. (default: as in
            :class:`Ranker`)

    Returns:
        Scores and items, **[U, k]** each, best first. A list with fewer items
        ends in scores :obj:`-inf` and items :obj:`-1`.

    Raises:
        ValueError: If an index is out of range, :obj:`users` are neither
            indices nor a mask, or a score is NaN.
    """
    if isinstance(emb, Scores):
        num_users, num_items = emb.num_users, emb.num_items
        device = users.device if isinstance(users, Tensor) else torch.device('cpu')
    else:
        num_users, num_items, device = emb.user.size(0), emb.item.size(0), emb.user.device
    users = _index('users', users, num_users).to(device)
    candidates = None if candidates is None else candidates.to(device)
    ranker = Ranker(users, num_items, k, exclude, candidates, batch_size)
    blocks = list(ranker(emb))
    if not blocks:
        empty = torch.empty(0, ranker.k, device=device)
        return empty, empty.long()
    return torch.cat([score for _, score, _ in blocks]), torch.cat([item for *_, item in blocks])


def _mix(x: Tensor) -> Tensor:
    r"""Applies the finalizer of SplitMix64, a bijection of integers with
    pseudorandom values, from the `"Fast Splittable Pseudorandom Number
    Generators" <https://doi.org/10.1145/2660193.2660195>`_ paper.
    """
    for shift, factor in MIX:
        x = (x ^ (x >> shift & ~(-1 << (64 - shift)))) * factor
    return x


def _draw(user: Tensor, item: Tensor) -> Tensor:
    r"""Returns non-negative numbers that order the items of each user at random."""
    return ((user ^ item) * MIX[0][1] >> 1) & ~(-1 << 63)


def _index(name: str, index: Tensor | Sequence[int] | int, size: int) -> Tensor:
    r"""Converts indices or a mask to a vector of indices."""
    try:
        out = torch.as_tensor(index).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        out = torch.empty(0, dtype=torch.cfloat)
    if out.dtype == torch.bool and out.numel() == size:
        return out.nonzero().view(-1)
    if out.dtype.is_floating_point and out.numel() == 0:  # An empty list.
        return out.long()
    if out.dtype == torch.bool or out.dtype.is_floating_point or out.dtype.is_complex:
        raise ValueError(
            f"'{name}' must be integers or a mask of {size} booleans, got {reprlib.repr(index)}."
        )
    out = out.long()
    if out.numel() > 0 and not (0 <= int(out.min()) and int(out.max()) < size):
        bad = int(out[(out < 0) | (out >= size)][0])
        raise ValueError(f"'{name}' holds {bad}, expected indices from 0 to {size - 1}.")
    return out


def check_items(name: str, item: Tensor, num_items: int) -> None:
    r"""Checks that item indices are in range.

    Args:
        name: Name of the argument, for messages.
        item: Item indices.
        num_items: Number of items.

    Raises:
        ValueError: If an index is out of range.
    """
    if item.numel() == 0:
        return
    low, high = int(item.min()), int(item.max())
    if low < 0 or high >= num_items:
        raise ValueError(
            f"'{name}' holds item {low if low < 0 else high}, expected indices from 0 "
            f'to {num_items - 1}.'
        )
