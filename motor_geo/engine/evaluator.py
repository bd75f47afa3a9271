r"""Evaluates models with a full ranking of all items for every user, in blocks of
users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from motor_geo.engine.metrics import (
    GROUP_METRICS,
    LIST_METRICS,
    METRICS,
    ListMetrics,
    Metric,
    cutoffs,
    find_metrics,
    name_of,
    ranking_metrics,
)
from motor_geo.engine.screen import Screen
from motor_geo.nn.models.popularity import popularity_embeddings
from motor_geo.parallel.user_range import UserRange
from motor_geo.parallel.world import World
from motor_geo.typing import Embeddings, EvalTargets
from motor_geo.utils.ranking import Ranker, check_items
from motor_geo.utils.seen import SeenItems, pairs_of

__all__ = [
    'EvalResult',
    'Evaluator',
    'age_groups',
    'item_groups',
    'popularity_embeddings',
    'slice_metrics',
    'warm_and_unseen',
]

CHUNK = 2**17  # Number of users whose metrics are computed at once.


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
        some = held_out > 0
        row = (some.cumsum(0) - 1)[user[mask]]
        values = _means(row, rank[mask], held_out[some], ks, ('recall', 'ndcg'))
        out[name] = {
            'items': int((group == i).sum()),
            'interactions': int(mask.sum()),
            'users': int(some.sum()),
        } | {key: float(value) for key, value in values.items()}
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
        rank: Rank of each held-out item in its user's list, from 0, or the
            largest cut-off if the list does not contain it, **[n]**.
        targets: The held-out interactions, each pair once.
        count: Number of training interactions of every item, **[N]**.
        ks: The cut-offs.
        pred: The ranked items, if requested, **[U, max K]**. Empty entries are
            :obj:`-1`.
        functions: Names or functions of per-user metrics.
    """

    metrics: dict[str, float]
    rank: Tensor
    targets: EvalTargets = field(repr=False)
    count: Tensor = field(repr=False)
    ks: tuple[int, ...]
    pred: Tensor | None = None
    functions: Sequence[str | Metric] = field(default=METRICS, repr=False)

    @cached_property
    def per_user(self) -> dict[str, Tensor]:
        r"""The per-user metrics of each user, **[U]**, computed from
        :obj:`rank` on the first access.
        """
        out: dict[str, Tensor] = {}
        row, count = self.targets.index[0], self.targets.count
        for users, values in _by_user(row, self.rank, count, self.ks, self.functions):
            for key, value in values.items():
                out.setdefault(key, value.new_empty(len(count)))[users] = value
        return out

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
        shard: The users of this process, if it is one of several
            (:attr:`TableShard.ranked <motor_geo.parallel.TableShard.ranked>`). Each ranks
            its own users, and all return the metrics of all users. Targets are
            still those of all users, training interactions those of
            :attr:`UserShard.edge_index <motor_geo.parallel.UserShard.edge_index>`, and
            user vectors those of this process.

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
        shard: UserRange | None = None,
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
        if exclude is not None:
            check_items('exclude', exclude.item, num_items)
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
        pairs = [pairs_of(self.train_edge_index, self.targets.user)]
        if self.exclude is not None:
            user, item = self.exclude.index
            pairs.append(torch.stack([self.exclude.user[user], item]).to(device))
        seen = SeenItems(torch.cat(pairs, dim=1) if len(pairs) > 1 else pairs[0])
        seen.item = seen.item.clone()  # Frees the users of the pairs.
        self._seen = seen
        #: Positions of the users of this process, and their held-out items.
        self._mine = torch.arange(len(self.targets), device=device)
        if self.shard is not None:
            self._mine = self.shard.mine(self.targets.user).nonzero().view(-1)
        self._own = self.targets if self.shard is None else self.targets[self._mine]
        self._ranker = Ranker(
            self._own.user,
            self.num_items,
            max(self.ks),
            self._seen,
            self.targets.candidates,
            self.batch_size,
            self.seed,
            0 if self.shard is None else self.shard.first,
        )
        count = self.train_edge_index[1].bincount(minlength=self.num_items)
        self._count = self._world.users.all_reduce(count, 'metrics')
        self._screen: Screen | None = None

    @property
    def mean_metrics(self) -> tuple[str, ...]:
        r"""The names of all metrics in :obj:`metrics` of :meth:`evaluate`."""
        warm = self._count[self.targets.item] > 0
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
        world = self._world
        lists = ListMetrics(self._count, self.ks, self._ranker.num_candidates)
        ranks, preds, kept = [], [], []
        for i, (rank, pred) in enumerate(self._rank(emb, self._ranker, self._own)):
            ranks.append(rank)
            preds.append(pred)
            if len(preds) * self._ranker.batch_size >= CHUNK or i == len(self._ranker) - 1:
                kept.append(torch.cat(preds))
                lists.add(kept[-1])
                kept, preds = kept if return_pred else [], []
        rank = self._of_all(torch.cat([self._own.item[:0], *ranks]))

        means = self._means(rank) | lists.compute(world)
        means |= warm_and_unseen(rank, self.targets, self._count, self.ks)
        values = torch.stack(list(means.values())).tolist()
        return EvalResult(
            metrics=dict(zip(means, values)),
            rank=rank,
            targets=self.targets,
            count=self._count,
            ks=self.ks,
            pred=self._lists(kept) if return_pred else None,
            functions=self._functions,
        )

    @torch.no_grad()
    def validate(self, emb: Embeddings | Callable[[Tensor], Tensor]) -> dict[str, float]:
        r"""Computes the metrics of :meth:`evaluate` except coverage and popularity.
        Most users need no list for these: a few items show that none of their held-out
        items can be in it, see :class:`~motor_geo.engine.screen.Screen`.

        Args:
            emb: As in :meth:`evaluate`.

        Raises:
            ValueError: As in :meth:`evaluate`.
        """
        if type(self).evaluate is not Evaluator.evaluate:  # A subclass with its own metrics.
            return self.evaluate(emb).metrics
        if not callable(emb) and emb.user.device != self.targets.user.device:
            self._prepare(emb.user.device)
        first = 0 if self.shard is None else self.shard.first
        if self._screen is None:
            options = self._count, max(self.ks), self._seen, first
            self._screen = Screen(self._own, *options)
        if callable(emb) or not self._screen.pays:
            blocks = self._rank(emb, self._ranker, self._own)
            rank = torch.cat([self._own.item[:0], *(found for found, _ in blocks)])
        else:
            self._ranker.check(emb)
            index = self._screen(emb)
            listed = torch.zeros(len(self._own), dtype=torch.bool, device=index.device)
            listed[index] = True
            rank = self._own.item.new_full(self._own.item.shape, max(self.ks))
            blocks = self._rank(emb, self._ranker.subset(index), self._own[index])
            found = torch.cat([rank[:0], *(found for found, _ in blocks)])
            rank[listed[self._own.index[0]]] = found
        rank = self._of_all(rank)
        means = self._means(rank) | warm_and_unseen(rank, self.targets, self._count, self.ks)
        return dict(zip(means, torch.stack(list(means.values())).tolist()))

    def _rank(
        self,
        emb: Embeddings | Callable[[Tensor], Tensor],
        ranker: Ranker,
        targets: EvalTargets,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        r"""Yields, for each block of users, the ranks of their held-out items and
        their lists.
        """
        width, device = max(self.ks), targets.user.device
        place = torch.arange(width, 0, -1, device=device, dtype=torch.int32)[: ranker.k]
        row, item = targets.index
        bound = targets.ptr[:: ranker.batch_size].tolist()
        bound = [*bound[: len(ranker)], item.numel()]
        for i, (start, _, pred) in enumerate(ranker(emb)):
            held_out = slice(bound[i], bound[i + 1])
            match = pred[row[held_out] - start] == item[held_out].view(-1, 1)
            yield width - (match * place).amax(1), pred

    @property
    def _world(self) -> World:
        return World() if self.shard is None else self.shard.world

    def _of_all(self, rank: Tensor) -> Tensor:
        r"""The ranks of the held-out items of all users, from those of the users of this
        process. All processes return the same.
        """
        if self._world.size == 1:
            return rank
        mine = torch.zeros(len(self.targets), dtype=torch.bool, device=rank.device)
        mine[self._mine] = True
        out = rank.new_zeros(self.targets.item.numel())
        out[mine[self.targets.index[0]]] = rank
        return self._world.all_reduce(out, 'metrics')

    def _lists(self, blocks: list[Tensor]) -> Tensor:
        r"""The lists of all users, from those of the users of this process."""
        pred = torch.cat([self._own.item.new_empty(0, self._ranker.k), *blocks])
        if self._world.size == 1:
            return pred
        out = pred.new_zeros(len(self.targets), pred.size(1))
        return self._world.all_reduce(out.index_copy_(0, self._mine, pred), 'metrics')

    def _means(self, rank: Tensor) -> dict[str, Tensor]:
        row, count = self.targets.index[0], self.targets.count
        return _means(row, rank, count, self.ks, self._functions)

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({len(self.targets)} users, '
            f'{self._ranker.num_candidates} items, ks={list(self.ks)})'
        )


def _by_user(
    row: Tensor, rank: Tensor, count: Tensor, ks: Sequence[int], metrics: Sequence[str | Metric]
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    r"""Yields slices of users and their metrics, from the position of the user
    (in ascending order) and the rank of each held-out item, and the number of
    held-out items of each user.
    """
    for start in range(0, count.numel(), CHUNK):
        users = slice(start, min(start + CHUNK, count.numel()))
        first, last = torch.searchsorted(row, row.new_tensor([start, users.stop])).tolist()
        size = users.stop - start
        hits = _hits(row[first:last] - start, rank[first:last], size, max(ks))
        yield users, ranking_metrics(hits, count[users], ks, metrics)


def _means(
    row: Tensor, rank: Tensor, count: Tensor, ks: Sequence[int], metrics: Sequence[str | Metric]
) -> dict[str, Tensor]:
    r"""Averages the metrics of :func:`_by_user`, without keeping them."""
    out: dict[str, Tensor] = {}
    for users, values in _by_user(row, rank, count, ks, metrics):
        share = (users.stop - users.start) / count.numel()
        for key, value in values.items():
            out[key] = out.get(key, 0) + value.mean() * share
    return out


def _hits(row: Tensor, rank: Tensor, num_rows: int, width: int) -> Tensor:
    hits = torch.zeros(num_rows, width + 1, dtype=torch.bool, device=row.device)
    hits[row, rank.long().clamp(max=width)] = True  # The last column takes the misses.
    return hits[:, :width]
