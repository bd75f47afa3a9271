r"""Ranking metrics per user and of whole lists, computed in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from motor_geo.parallel.world import World
from motor_geo.utils.errors import one_line
from motor_geo.utils.plugin import import_function

METRICS = ('recall', 'ndcg', 'precision', 'map', 'mrr', 'hit')
LIST_METRICS = ('coverage', 'popularity')
#: Metrics of items with and without training interactions, if both are held out.
GROUP_METRICS = ('warm_recall', 'unseen_recall', 'harmonic')
#: A user-defined metric. A function from hits **[U, K]** (in double precision), the number of
#: held-out items **[U]** and the cut-off K to a value for every user **[U]**.
Metric = Callable[[Tensor, Tensor, int], Tensor]


def ranking_metrics(
    hits: Tensor,
    count: Tensor,
    ks: Sequence[int],
    metrics: Sequence[str | Metric] = METRICS,
) -> dict[str, Tensor]:
    r"""Computes per-user metrics at several cut-offs. The values equal those of
    :class:`torch_geometric.metrics.LinkPredMetricCollection`, but are computed
    in double precision and in a single pass.

    With :math:`h_{u,k} \in \{ 0, 1 \}` the hit at rank :math:`k` and
    :math:`T_u` the held-out items of :math:`u`,

    .. math::
        \mathrm{recall}_u@K &= \frac{1}{|T_u|} \sum_{k=1}^K h_{u,k}

        \mathrm{precision}_u@K &= \frac{1}{K} \sum_{k=1}^K h_{u,k}

        \mathrm{ndcg}_u@K &= \sum_{k=1}^K \frac{h_{u,k}}{\log_2(k+1)} \Big/
        \sum_{k=1}^{\min(K, |T_u|)} \frac{1}{\log_2(k+1)}

        \mathrm{map}_u@K &= \frac{1}{\min(K, |T_u|)} \sum_{k=1}^K h_{u,k}
        \cdot \mathrm{precision}_u@k

        \mathrm{mrr}_u@K &= \max_{k \leq K} \frac{h_{u,k}}{k}

        \mathrm{hit}_u@K &= \max_{k \leq K} h_{u,k}

    The denominator of recall is not truncated at :math:`K`.

    Args:
        hits: Whether the :math:`k`-th ranked item is held out.
        count: Number of held-out items per user. Users without held-out items
            get zeros.
        ks: The cut-offs. Ranks beyond the width of :obj:`hits` are misses.
        metrics: Names from :obj:`METRICS`, or functions. A function is called
            as :obj:`metric(hits[:, :k], count, k)` for each cut-off, and its
            name is the name of the metric.

    Shapes:
        - **input:** hits :math:`(U, K_{\max})`, count :math:`(U)`
        - **output:** one vector :math:`(U)` per name and cut-off, *e.g.*,
          :obj:`'recall@20'`

    Raises:
        ValueError: If a metric is unknown, does not return a value for every
            user, or a cut-off is below 1.
    """
    own = {name_of(metric): metric for metric in metrics if not isinstance(metric, str)}
    check_names(ks, [metric for metric in metrics if isinstance(metric, str)], METRICS)
    width, device = hits.size(1), hits.device
    rank = torch.arange(1, max(width, *ks) + 1, dtype=torch.float64, device=device)
    discount = 1.0 / (rank + 1.0).log2()
    ideal = discount.cumsum(0)
    cutoff = torch.tensor(list(ks), device=device)
    truncated = torch.minimum(count.clamp(min=1).view(-1, 1), cutoff)

    # A product with a step matrix sums over the first K ranks for all K at once.
    step = (rank[:width].view(-1, 1) <= cutoff).double()
    hits = hits.double()
    rank = rank[:width]

    found = hits @ step
    values = {}
    if 'recall' in metrics:
        values['recall'] = found / count.clamp(min=1).view(-1, 1)
    if 'ndcg' in metrics:
        values['ndcg'] = hits @ (step * discount[:width].view(-1, 1)) / ideal[truncated - 1]
    if 'precision' in metrics:
        values['precision'] = found / cutoff
    if 'map' in metrics:
        values['map'] = (hits * hits.cumsum(1) / rank) @ step / truncated
    if 'mrr' in metrics:
        best = (hits / rank).amax(1) if width > 0 else hits.sum(1)
        values['mrr'] = best.view(-1, 1) * (found > 0)
    if 'hit' in metrics:
        values['hit'] = (found > 0).double()
    for name, metric in own.items():
        columns = [_own_metric(metric, name, hits[:, :k], count, k) for k in ks]
        values[name] = torch.stack(columns, dim=1)
    # Copies columns, so that a vector does not keep the whole table alive.
    names = map(name_of, metrics)
    return {f'{name}@{k}': values[name][:, i].clone() for name in names for i, k in enumerate(ks)}


def _own_metric(metric: Metric, name: str, hits: Tensor, count: Tensor, k: int) -> Tensor:
    try:
        value = metric(hits, count, k)
    except Exception as error:
        reason = f'{type(error).__name__}: {one_line(error)}'
        raise ValueError(f"The metric '{name}' cannot be computed: {reason}") from error
    if not isinstance(value, Tensor) or value.shape != count.shape:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"The metric '{name}' must return a value for every user, {list(count.shape)}, "
            f'got {got}.'
        )
    return value.to(hits)


def name_of(metric: str | Metric) -> str:
    r"""Returns the name of a metric in results."""
    return metric if isinstance(metric, str) else getattr(metric, '__name__', repr(metric))


def find_metrics(metrics: str | Metric | Sequence[str | Metric]) -> tuple[str | Metric, ...]:
    r"""Replaces import paths, such as :obj:`'my_package.my_metric'`, by the
    functions that they name.

    Args:
        metrics: Names, import paths or functions, or a single one.

    Raises:
        ValueError: If a function cannot be imported, or a name occurs twice.
    """
    given = (metrics,) if isinstance(metrics, str) or callable(metrics) else tuple(metrics)
    found: list[str | Metric] = []
    for metric in given:
        if isinstance(metric, str) and '.' in metric:
            try:
                metric = import_function(metric)
            except ValueError as error:
                raise ValueError(f"The metric '{metric}' {error}") from error
        found.append(metric)
    taken = [*METRICS, *LIST_METRICS, *GROUP_METRICS]
    taken += [name_of(metric) for metric in found if not isinstance(metric, str)]
    for metric in found:
        if not isinstance(metric, str) and taken.count(name_of(metric)) > 1:
            raise ValueError(f"There are two metrics with the name '{name_of(metric)}'.")
    return tuple(found)


def list_metrics(
    pred: Tensor,
    popularity: Tensor,
    ks: Sequence[int],
    num_items: int | None = None,
    world: World | None = None,
) -> dict[str, Tensor]:
    r"""Computes metrics of the lists as a whole.

    :obj:`coverage@K` is the share of items that appear in the first :math:`K`
    ranks of at least one list. :obj:`popularity@K` is the popularity of the
    first :math:`K` items, averaged over each list and then over all lists.

    Args:
        pred: Ranked items. Negative entries are empty and ignored.
        popularity: Popularity of every item, *e.g.*, its number of training
            interactions.
        ks: The cut-offs.
        num_items: Number of items that could be recommended. (default: all)
        world: The processes, each of which has a part of the lists.

    Shapes:
        - **input:** pred :math:`(U, K_{\max})`, popularity :math:`(N)`
        - **output:** one scalar per metric and cut-off

    Raises:
        ValueError: If a cut-off is below 1.
    """
    metrics = ListMetrics(popularity, ks, num_items)
    metrics.add(pred)
    return metrics.compute(world)


class ListMetrics:
    r"""Computes the metrics of :func:`list_metrics` from blocks of lists.

    Args:
        popularity: Popularity of every item, **[N]**.
        ks: The cut-offs.
        num_items: Number of items that could be recommended. (default: all)

    Raises:
        ValueError: If a cut-off is below 1.
    """

    def __init__(self, popularity: Tensor, ks: Sequence[int], num_items: int | None = None):
        check_names(ks, (), ())
        self.popularity = popularity.double()
        self.ks = ks
        self.num_items = popularity.numel() if num_items is None else num_items
        # The best rank of each item in any list:
        self.first = torch.full_like(popularity, max(ks), dtype=torch.long)
        self.total = {k: self.popularity.new_zeros(()) for k in ks}
        self.num_lists = {k: 0 for k in ks}

    def add(self, pred: Tensor) -> None:
        r"""Adds the lists of some users.

        Args:
            pred: Ranked items, **[U, K_max]**. Negative entries are empty.
        """
        filled = pred >= 0
        item = pred.clamp(min=0)
        rank = torch.arange(pred.size(1), device=pred.device).expand_as(pred)
        rank = rank.masked_fill(~filled, max(self.ks))
        self.first.scatter_reduce_(0, item.flatten(), rank.flatten(), 'amin')
        value = self.popularity[item].masked_fill_(~filled, 0.0)
        for k in self.ks:
            length = filled[:, :k].sum(1)
            mean = value[:, :k].sum(1)[length > 0] / length[length > 0]
            self.total[k] = self.total[k] + mean.sum()
            self.num_lists[k] += mean.numel()

    def compute(self, world: World | None = None) -> dict[str, Tensor]:
        r"""Returns one scalar per metric and cut-off.

        Args:
            world: The processes that hold lists of other users. (default: none)
        """
        world = World() if world is None else world
        first = world.all_reduce(self.first, 'metrics', 'min')
        out = {}
        for k in self.ks:
            sums = torch.stack([self.total[k], self.total[k].new_tensor(self.num_lists[k])])
            total, count = world.all_reduce(sums, 'metrics')
            out[f'coverage@{k}'] = (first < k).sum().double() / self.num_items
            out[f'popularity@{k}'] = total / count.clamp(min=1)
        return out


def cutoffs(ks: int | Sequence[int]) -> tuple[int, ...]:
    r"""Converts one or several cut-offs to a tuple of integers.

    Args:
        ks: The cut-offs, or a single one.

    Raises:
        ValueError: If there are none, or one is not a positive integer.
    """
    given = np.atleast_1d(np.asarray(ks))
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in 'iu' or given.min() < 1:
        raise ValueError(f'Cut-offs must be positive integers, got {ks}.')
    return tuple(given.tolist())


def check_names(ks: Sequence[int], metrics: Sequence[str], known: Sequence[str]) -> None:
    r"""Checks names of metrics and cut-offs.

    Args:
        ks: The cut-offs.
        metrics: Names of metrics.
        known: All valid names.

    Raises:
        ValueError: If a metric is unknown or a cut-off is not a positive
            integer.
    """
    cutoffs(ks)
    for name in metrics:
        if name not in known:
            raise ValueError(f"Unknown metric '{name}'; expected one of {', '.join(known)}.")
