r"""Evaluates models with a full ranking of all items for every user, in blocks of
users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.engine.metrics import (
    GROUP_METRICS,
    LIST_METRICS,
    METRICS,
    Metric,
    cutoffs,
    find_metrics,
    list_metrics,
    name_of,
    ranking_metrics,
)
from motor_geo.nn.models.popularity import popularity_embeddings
from motor_geo.parallel.users import UserShard
from motor_geo.parallel.world import World
from motor_geo.typing import Embeddings, EvalTargets
from motor_geo.utils.ranking import Ranker, check_items

__all__ = [
    'EvalResult',
    'Evaluator',
    'age_groups',
    'item_groups',
    'popularity_embeddings',
    'slice_metrics',
    'warm_and_unseen',
]


def item_groups(count: Tensor, bounds: Sequence[int] | None = None) -> tuple[list[str], Tensor]:
    r"""Groups items by their number of training interactions.

    Without :obj:`bounds`, :obj:`cold` items have no training interaction. Of
    the remaining items, :obj:`tail` items have at most the median number,
    :obj:`head` items have more than the 80th percentile, and :obj:`middle`
    items are in between. Items with equal counts are in the same group.

    Args:
        count: Number of training interactions of every item, **[N]**.
        bounds: Increasing upper bounds, *e.g.*, :obj:`(0, 5, 10, 20, 50)` for
            the groups :obj:`0`, :obj:`1-5`, ..., :obj:`21-50`, :obj:`>50`.
            (default: :obj:`cold`, :obj:`tail`, :obj:`middle` and :obj:`head`)

    Returns:
        The names of the groups, and the group of every item **[N]**.

    Raises:
        ValueError: If :obj:`bounds` are empty, negative or not increasing.
    """
    if bounds is None:
        warm = count[count > 0].sort().values
        half, most = (warm.numel() - 1) // 2, (4 * warm.numel() - 1) // 5
        edges = [0, int(warm[half]), int(warm[most])] if warm.numel() > 0 else [0, 0, 0]
        names = ['cold', 'tail', 'middle', 'head']
    else:
        edges = [int(bound) for bound in bounds]
        if not edges or edges[0] < 0 or any(a >= b for a, b in zip(edges, edges[1:])):
            raise ValueError(
                f"'bounds' must be increasing numbers of interactions, got {list(bounds)}."
            )
        lows = [0, *(edge + 1 for edge in edges[:-1])]
        names = [str(b) if a == b else f'{a}-{b}' for a, b in zip(lows, edges)]
        names.append(f'>{edges[-1]}')
    return names, torch.bucketize(count, torch.tensor(edges, device=count.device))


def age_groups(first: Tensor) -> tuple[list[str], Tensor]:
    r"""Groups items by the time of their first training interaction.

    Of the items with a training interaction, :obj:`newest` are the fifth that
    came last, :obj:`recent` those of the half that came last but for these, and
    :obj:`oldest` all others; :obj:`unseen` items have no training interaction.
    Items of the same time are in the same group, the older one.

    Args:
        first: Time of the first training interaction, NaN without any, **[N]**.

    Returns:
        The names of the groups, and the group of every item **[N]**.
    """
    names = ['unseen', 'newest', 'recent', 'oldest']
    group = torch.zeros_like(first, dtype=torch.long)
    known = ~first.isnan()
    time = first[known].sort().values
    if time.numel() > 0:
        half, most = (time.numel() - 1) // 2, (4 * time.numel() - 1) // 5
        group[known] = 3 - torch.bucketize(first[known], time[[half, most]])
    return names, group


def slice_metrics(
    rank: Tensor,
    targets: EvalTargets,
    count: Tensor,
    ks: Sequence[int] = (20,),
    bounds: Sequence[int] | None = None,
) -> dict[str, dict[str, float]]:
    r"""Computes recall and NDCG for groups of items (see :func:`item_groups`).

    The ranked lists do not change. For each group, only its held-out items
    count, and the metrics are means over the users with such an item. A group
    without held-out items has no metrics.

    Args:
        rank: Rank of each held-out item in its user's list, from 0, or at least
            the largest cut-off if the list does not contain it, **[n]**.
        targets: The held-out interactions, each pair once.
        count: Number of training interactions of every item, **[N]**.
        ks: The cut-offs.
        bounds: Increasing upper bounds of the groups, as in
            :func:`item_groups`.

    Returns:
        For each group, its number of :obj:`items`, of held-out
        :obj:`interactions` and of :obj:`users`, and its metrics.

    Raises:
        ValueError: If :obj:`bounds` are empty, negative or not increasing.
    """
    return _slices(rank, targets, *item_groups(count, bounds), ks)


def _slices(
    rank: Tensor, targets: EvalTargets, names: Sequence[str], group: Tensor, ks: Sequence[int]
) -> dict[str, dict[str, float]]:
    user, item = targets.index
    out = {}
    for i, name in enumerate(names):
        mask = group[item] == i
        held_out = user[mask].bincount(minlength=len(targets))
        hits = _hits(user[mask], rank[mask], len(targets), max(ks))
        some = held_out > 0
        values = ranking_metrics(hits[some], held_out[some], ks, ('recall', 'ndcg'))
        out[name] = {
            'items': int((group == i).sum()),
            'interactions': int(mask.sum()),
            'users': int(some.sum()),
        } | ({key: float(value.mean()) for key, value in values.items()} if some.any() else {})
    return out


def warm_and_unseen(
    rank: Tensor, targets: EvalTargets, count: Tensor, ks: Sequence[int]
) -> dict[str, Tensor]:
    r"""Computes the recall of items with and without training interactions in
    the same ranked lists, each averaged over the users with such a held-out
    item, and their harmonic mean

    .. math::
        \mathrm{harmonic}@K = \frac{2 \, \mathrm{warm} \cdot
        \mathrm{unseen}}{\mathrm{warm} + \mathrm{unseen}} ,

    which is high only if both are high.

    Args:
        rank: Rank of each held-out item in its user's list, from 0, **[n]**.
        targets: The held-out interactions, each pair once.
        count: Number of training interactions of every item, **[N]**.
        ks: The cut-offs.

    Returns:
        The metrics by name. Empty unless items of both kinds are held out.
    """
    user, item = targets.index
    warm = count[item] > 0
    if bool(warm.all()) or not bool(warm.any()):
        return {}
    out = {}
    for name, mask in (('warm_recall', warm), ('unseen_recall', ~warm)):
        held_out = user[mask].bincount(minlength=len(targets)).double()
        for k in ks:
            found = user[mask & (rank < k)].bincount(minlength=len(targets)).double()
            some = held_out > 0
            out[f'{name}@{k}'] = (found[some] / held_out[some]).mean()
    for k in ks:
        one, other = out[f'warm_recall@{k}'], out[f'unseen_recall@{k}']
        total = one + other
        out[f'harmonic@{k}'] = torch.where(total > 0, 2 * one * other / total, total)
    return out


@dataclass(frozen=True)
class EvalResult:
    r"""The metrics of one evaluation.

    Args:
        metrics: Means over users, *e.g.*, :obj:`metrics['recall@20']`, and
            metrics of the lists as a whole.
        per_user: The per-user metrics of each user, **[U]**.
        rank: Rank of each held-out item in its user's list, from 0, or the
            largest cut-off if the list does not contain it, **[n]**.
        targets: The held-out interactions, each pair once.
        count: Number of training interactions of every item, **[N]**.
        ks: The cut-offs.
        pred: The ranked items, if requested, **[U, max K]**. Empty entries are
            :obj:`-1`.
    """

    metrics: dict[str, float]
    per_user: dict[str, Tensor]
    rank: Tensor
    targets: EvalTargets = field(repr=False)
    count: Tensor = field(repr=False)
    ks: tuple[int, ...]
    pred: Tensor | None = None

    @property
    def user(self) -> Tensor:
        r"""The users, **[U]**."""
        return self.targets.user

    def slices(self, bounds: Sequence[int] | None = None) -> dict[str, dict[str, float]]:
        r"""Computes recall and NDCG for groups of items, see
        :func:`slice_metrics`.

        Args:
            bounds: Increasing upper bounds of the groups, as in
                :func:`item_groups`.
        """
        return slice_metrics(self.rank, self.targets, self.count, self.ks, bounds)

    def ages(self, first: Tensor) -> dict[str, dict[str, float]]:
        r"""Recall and NDCG of groups of items by age, from the time of their
        first training interaction **[N]**, see :func:`age_groups`.
        """
        return _slices(self.rank, self.targets, *age_groups(first.to(self.rank.device)), self.ks)


class Evaluator:
    r"""Evaluates embeddings by ranking all items (or the candidates of
    :obj:`targets`) for every user with a held-out item. The ranking excludes a
    user's training items. It includes the held-out items of other splits unless
    :obj:`exclude` contains them.

    Ties between equal scores are broken at random: differently for every user,
    but the same way in every evaluation. A model whose scores are all equal
    therefore has chance-level metrics, regardless of the order of items.

    If items both with and without training interactions are held out,
    :obj:`warm_recall`, :obj:`unseen_recall` and :obj:`harmonic` report how well
    the same lists rank each kind, see :func:`warm_and_unseen`.

    Args:
        targets: The held-out interactions. Duplicate pairs count once.
        train_edge_index: Training interactions (user, item), **[2, E]**.
        num_items: Number of items.
        ks: The cut-offs, or a single one.
        exclude: Additional interactions to exclude from the ranking, *e.g.*,
            validation interactions during testing. (default: none)
        batch_size: Number of users per block. (default: see
            :class:`motor_geo.utils.ranking.Ranker`)
        metrics: Names or functions of per-user metrics, see
            :func:`motor_geo.engine.metrics.ranking_metrics`. A configuration
            gives functions by their import paths.
        seed: Seed for breaking ties, and of the sample of users.
        max_users: If given, evaluates a fixed random sample of so many users.
            In a run, validation is on the sample and test on all users.
        shard: The users of this process, if it is one of several. Each ranks its
            own users, and all return the metrics of all users. Targets and
            interactions are still those of all users, and user vectors those
            of this process.

    Raises:
        ValueError: If there is nothing to evaluate, an index is out of range,
            a held-out item is not among the candidates, or a metric or a
            cut-off is invalid.
    """

    def __init__(
        self,
        targets: EvalTargets,
        train_edge_index: Tensor,
        num_items: int,
        ks: int | Sequence[int] = (5, 10, 20, 50),
        exclude: EvalTargets | None = None,
        batch_size: int | None = None,
        metrics: Sequence[str | Metric] = METRICS,
        seed: int = 0,
        max_users: int | None = None,
        shard: UserShard | None = None,
    ):
        ks = cutoffs(ks)
        if max_users is not None and max_users < 1:
            raise ValueError(f"'max_users' must be at least 1, got {max_users}.")
        functions = find_metrics(metrics)
        one = torch.ones(1, dtype=torch.long)  # Finds errors in functions before training.
        ranking_metrics(torch.zeros(1, max(ks), dtype=torch.bool), one, ks, functions)
        if len(targets) == 0:
            raise ValueError('There is no held-out interaction to evaluate.')
        if int(targets.count.min()) < 1:
            user = int(targets.user[targets.count.argmin()])
            raise ValueError(
                f"User {user} of 'targets' has no held-out item, expected at least one."
            )
        check_items('targets', targets.item, num_items)
        check_items('train_edge_index', train_edge_index[1], num_items)
        if targets.candidates is not None:
            missing = ~torch.isin(targets.item, targets.candidates)
            if bool(missing.any()):
                item = int(targets.item[missing][0])
                raise ValueError(f'The held-out item {item} is not among the candidates.')
        if max_users is not None:
            targets = targets.sample(max_users, seed)
        self.targets = targets.distinct()
        self.train_edge_index = train_edge_index
        self.num_items = num_items
        self.ks = ks
        self.exclude = exclude
        self.batch_size = batch_size
        self.metrics = tuple(map(name_of, functions))
        self._functions = functions
        self.seed = seed
        self.shard = shard
        self._prepare(targets.user.device)

    def _prepare(self, device: torch.device) -> None:
        self.targets = self.targets.to(device)
        self.train_edge_index = self.train_edge_index.to(device)
        pairs = [self.train_edge_index]
        if self.exclude is not None:
            user, item = self.exclude.index
            pairs.append(torch.stack([self.exclude.user[user], item]).to(device))
        mine = torch.ones_like(self.targets.user, dtype=torch.bool)
        if self.shard is not None:
            mine = self.shard.mine(self.targets.user)
        self._ranker = Ranker(
            self.targets.user[mine],
            self.num_items,
            max(self.ks),
            torch.cat(pairs, dim=1),
            self.targets.candidates,
            self.batch_size,
            self.seed,
            0 if self.shard is None else self.shard.first,
        )
        self._count = self.train_edge_index[1].bincount(minlength=self.num_items)
        self._row, self._item = self.targets.index
        # Held-out items of the users of this process, grouped by user.
        self._own = mine[self._row].nonzero().view(-1)
        ptr = F.pad(self.targets.count[mine].cumsum(0), (1, 0))
        self._bound = ptr[:: self._ranker.batch_size].tolist()
        self._bound = [*self._bound[: len(self._ranker)], self._own.numel()]
        self._mine = mine.nonzero().view(-1)

    @property
    def mean_metrics(self) -> tuple[str, ...]:
        r"""The names of all metrics in :obj:`metrics` of :meth:`evaluate`."""
        warm = self._count[self._item] > 0
        both = bool(warm.any()) and not bool(warm.all())
        return (*self.metrics, *LIST_METRICS, *(GROUP_METRICS if both else ()))

    @torch.no_grad()
    def evaluate(
        self, emb: Embeddings | Callable[[Tensor], Tensor], return_pred: bool = False
    ) -> EvalResult:
        r"""Ranks items by their scores and computes all metrics.

        Args:
            emb: User and item vectors, **[M, d]** and **[N, d]**, or a function
                from users **[B]** to their scores of all items **[B, N]**.
            return_pred: If set to :obj:`True`, also returns the ranked lists.

        Raises:
            ValueError: If a score is NaN, or the embeddings have the wrong
                size.
        """
        if not callable(emb) and emb.user.device != self.targets.user.device:
            self._prepare(emb.user.device)
        world = World() if self.shard is None else self.shard.world
        width = max(self.ks)
        place = torch.arange(width, 0, -1, device=self.targets.user.device, dtype=torch.int32)
        place = place[: self._ranker.k]
        row, item = self._row[self._own], self._item[self._own]
        row = torch.searchsorted(self._mine, row)  # Positions among the users of this process.
        ranks, preds = [place[:0]], [item.new_zeros(0, self._ranker.k)]
        for i, (start, _, pred) in enumerate(self._ranker(emb)):
            held_out = slice(self._bound[i], self._bound[i + 1])
            match = pred[row[held_out] - start] == item[held_out].view(-1, 1)
            ranks.append(width - (match * place).amax(1))
            preds.append(pred)
        rank, pred = torch.cat(ranks), torch.cat(preds)
        if world.size > 1:  # The ranks of all users, so that all processes return the same.
            found = rank.new_zeros(self._item.numel()).index_copy_(0, self._own, rank)
            rank = world.all_reduce(found, 'metrics')

        hits = _hits(self._row, rank, len(self.targets), width)
        per_user = ranking_metrics(hits, self.targets.count, self.ks, self._functions)
        means = {key: value.mean() for key, value in per_user.items()}
        means |= list_metrics(pred, self._count, self.ks, self._ranker.num_candidates, world)
        if return_pred and world.size > 1:
            lists = pred.new_zeros(len(self.targets), pred.size(1))
            pred = world.all_reduce(lists.index_copy_(0, self._mine, pred), 'metrics')
        means |= warm_and_unseen(rank, self.targets, self._count, self.ks)
        values = torch.stack(list(means.values())).tolist()
        return EvalResult(
            metrics=dict(zip(means, values)),
            per_user=per_user,
            rank=rank,
            targets=self.targets,
            count=self._count,
            ks=self.ks,
            pred=pred if return_pred else None,
        )

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({len(self.targets)} users, '
            f'{self._ranker.num_candidates} items, ks={list(self.ks)})'
        )


def _hits(row: Tensor, rank: Tensor, num_rows: int, width: int) -> Tensor:
    hits = torch.zeros(num_rows, width + 1, dtype=torch.bool, device=row.device)
    hits[row, rank.long().clamp(max=width)] = True  # The last column takes the misses.
    return hits[:, :width]
