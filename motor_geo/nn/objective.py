r"""Ranking losses that can replace the published loss of a backbone."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.rows import second_moments
from motor_geo.nn.loss import bpr_loss, scores
from motor_geo.nn.memo import Memo
from motor_geo.parallel.user_shard import UserShard, shard_of_batch
from motor_geo.typing import Batch, Embeddings, Rows
from motor_geo.utils.numbers import not_negative, positive


class RankingLoss(nn.Module):
    r"""Base class of losses that rank the items of a user by inner products of the
    vectors of a backbone.

    A subclass implements :meth:`forward`. It does not replace the other terms that
    a backbone adds to its loss, such as contrastive losses and regularizers of its
    tables.
    """

    #: Whether the loss reads negative items.
    needs_negatives: ClassVar[bool] = False
    #: Whether the loss reads the vectors of all users and items.
    needs_tables: ClassVar[bool] = False
    #: Whether scores are cosine similarities.
    cosine: bool = False
    #: Whether processes can share the columns of the vectors.
    columns: ClassVar[bool] = False

    def forward(
        self, rows: Rows, batch: Batch, edge_index: Tensor, tables: Embeddings | None = None
    ) -> dict[str, Tensor]:
        r"""Weighted loss terms of a batch, by name.

        Args:
            rows: Vectors of the batch.
            batch: Users, positive items and negative items of the batch.
            edge_index: All training interactions.
            tables: Vectors of all users and items. Required if
                :obj:`needs_tables` is set.

        Shapes:
            - **input:** vectors :math:`(B, d)`, indices :math:`(B)`,
              interactions :math:`(2, E)`, vectors :math:`(M, d)` and
              :math:`(N, d)` *(optional)*
            - **output:** scalars
        """
        raise NotImplementedError

    def finish(self, emb: Embeddings) -> Embeddings:
        r"""The vectors used for ranking, scaled to unit length if :obj:`cosine` is
        set.
        """
        return Embeddings(*map(unit, emb)) if self.cosine else emb


class PublishedLoss(RankingLoss):
    r"""The published loss of a backbone, as a placeholder in configurations."""

    columns = True


class BPRLoss(RankingLoss):
    r"""Bayesian personalized ranking from the `"BPR: Bayesian Personalized
    Ranking from Implicit Feedback" <https://arxiv.org/abs/1205.2618>`_ paper,
    with an L2 penalty on the vectors of the batch,

    .. math::
        \frac{1}{B} \sum_b -\log \sigma \left( s_b^+ - s_b^- \right) + \lambda
        \left( \| \mathbf{u}_b \|^2 + \| \mathbf{i}_b^+ \|^2 +
        \| \mathbf{i}_b^- \|^2 \right) .

    The weight :math:`\lambda` applies per interaction. It does not depend on the
    batch size, and it regularizes frequent users and items in proportion to
    their frequency.

    Args:
        reg_weight: Weight :math:`\lambda` of the penalty.

    Raises:
        ValueError: If :obj:`reg_weight` is negative or infinite.
    """

    needs_negatives = True
    columns = True

    def __init__(self, reg_weight: float = 0.0):
        super().__init__()
        self.reg_weight = not_negative('reg_weight', reg_weight)

    def forward(
        self, rows: Rows, batch: Batch, edge_index: Tensor, tables: Embeddings | None = None
    ) -> dict[str, Tensor]:
        shard = shard_of_batch(batch)
        out = {'bpr': bpr_loss(*scores(rows, shard))}
        if self.reg_weight > 0:
            norm = mean_square_norm(*rows)
            norm = norm if shard is None else shard.over_columns(norm)
            out['norms'] = self.reg_weight * norm
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(reg_weight={self.reg_weight})'


class SoftmaxLoss(RankingLoss):
    r"""Sampled softmax with in-batch negatives from the
    `"Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations" <https://doi.org/10.1145/3298689.3346996>`_ paper,

    .. math::
        -\frac{1}{B} \sum_b \log \frac{\exp s(u_b, i_b)}{\exp s(u_b, i_b) +
        \sum_{j \in \mathcal{J} \setminus \mathcal{N}(u_b)} c_j
        \exp s(u_b, j)}, \qquad
        s(u, j) = \frac{1}{\tau} \cos(\mathbf{u}_u, \mathbf{i}_j) -
        \beta \log q_j ,

    where :math:`\mathcal{J}` are the distinct items of the batch, :math:`c_j`
    counts how often item :math:`j` occurs in it, and :math:`q_j` is the
    probability that a draw yields item :math:`j`. Training items of a user,
    :math:`\mathcal{N}(u)`, are not negatives. Memory is quadratic in the batch
    size.

    Args:
        temperature: Temperature :math:`\tau`.
        correction: Weight :math:`\beta` of the popularity correction. Without
            it (zero), frequent items are frequent negatives.
        shared: If set to :obj:`True`, adds the negative items of all users in
            the batch to :math:`\mathcal{J}`.
        cosine: If set to :obj:`False`, uses inner products instead of cosines,
            in training and in ranking.

    Raises:
        ValueError: If :obj:`temperature` is not positive, or :obj:`correction`
            is negative or infinite.
    """

    def __init__(
        self,
        temperature: float = 0.2,
        correction: float = 0.0,
        shared: bool = False,
        cosine: bool = True,
    ):
        super().__init__()
        self.temperature = positive('temperature', temperature)
        self.correction = not_negative('correction', correction)
        self.shared = shared
        self.cosine = cosine
        self._seen = Memo()

    @property
    def needs_negatives(self) -> bool:  # type: ignore[override]
        r"""Whether the loss reads negative items."""
        return self.shared

    @full_precision
    def forward(
        self, rows: Rows, batch: Batch, edge_index: Tensor, tables: Embeddings | None = None
    ) -> dict[str, Tensor]:
        if batch.user.numel() == 0:
            return {'softmax': rows.user.sum()}
        rows = Rows(*map(unit, rows)) if self.cosine else rows
        index = torch.cat([batch.pos, batch.neg]) if self.shared else batch.pos
        item = torch.cat([rows.pos, rows.neg]) if self.shared else rows.pos
        node, inverse, times = torch.unique(index, return_inverse=True, return_counts=True)
        row = torch.arange(index.numel(), device=index.device)
        row = row.new_zeros(node.numel()).scatter_(0, inverse, row)  # Any occurrence.
        logits = (rows.user / self.temperature) @ item.index_select(0, row).t()
        if self.correction > 0:
            share = self._log_share(edge_index, node, logits.dtype)
            logits = logits - self.correction * share
        own = inverse[: batch.pos.numel()].view(-1, 1)
        positive = logits.gather(1, own)
        logits = logits + torch.log(times.to(logits.dtype))
        row, column = self._known(edge_index, batch.user, node)
        mask = torch.zeros_like(logits, dtype=torch.bool)
        mask[row, column] = True
        logits = logits.masked_fill(mask.scatter_(1, own, True), -torch.inf)
        total = torch.logaddexp(positive.squeeze(1), logits.logsumexp(dim=1))
        return {'softmax': (total - positive.squeeze(1)).mean()}

    def _log_share(self, edge_index: Tensor, node: Tensor, dtype: torch.dtype) -> Tensor:
        r"""Log-probability that a draw for the batch yields an item."""
        (_, item), num_edges = edge_index, edge_index.size(1)
        size = int(torch.maximum(item.max(), node.max())) + 1
        share = torch.bincount(item, minlength=size)[node].to(dtype) / num_edges
        if self.shared:  # Half of the items are drawn uniformly.
            share = (share + 1 / size) / 2
        return share.log()

    def _known(self, edge_index: Tensor, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        r"""Row and column indices of the training interactions between the users of
        the batch and the distinct items.
        """

        def by_user() -> tuple[Tensor, Tensor]:
            order = torch.argsort(edge_index[0], stable=True)
            count = torch.bincount(edge_index[0])
            return F.pad(count.cumsum(0), (1, 0)), edge_index[1][order]

        ptr, known = self._seen(by_user, edge_index)
        user = user.clamp(max=ptr.numel() - 2)
        start, count = ptr[user], ptr[user + 1] - ptr[user]
        row = torch.arange(user.numel(), device=user.device).repeat_interleave(count)
        offset = torch.arange(row.numel(), device=user.device) - (count.cumsum(0) - count)[row]
        target = known[start[row] + offset]
        size = int(torch.maximum(known.max(), item.max())) + 1
        place = item.new_full((size,), -1)
        place[item] = torch.arange(item.numel(), device=item.device)
        column = place[target]
        found = column >= 0
        return row[found], column[found]

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.temperature}, correction={self.correction}, '
            f'shared={self.shared}, cosine={self.cosine})'
        )


class DirectAULoss(RankingLoss):
    r"""Alignment and uniformity on the unit sphere from the `"Towards
    Representation Alignment and Uniformity in Collaborative Filtering"
    <https://arxiv.org/abs/2206.12811>`_ paper, without negatives,

    .. math::
        \frac{1}{B} \sum_b \| \mathbf{u}_b - \mathbf{i}_b \|^2 +
        \frac{\gamma}{2} \left( U(\mathbf{u}) + U(\mathbf{i}) \right), \qquad
        U(\mathbf{x}) = \log \frac{2}{B (B - 1)} \sum_{b < c}
        \exp \left( -2 \| \mathbf{x}_b - \mathbf{x}_c \|^2 \right) ,

    for vectors of unit length. Memory is quadratic in the batch size.

    Args:
        gamma: Weight :math:`\gamma` of uniformity.

    Raises:
        ValueError: If :obj:`gamma` is negative or infinite.
    """

    cosine = True

    def __init__(self, gamma: float = 1.0):
        super().__init__()
        self.gamma = not_negative('gamma', gamma)

    @full_precision
    def forward(
        self, rows: Rows, batch: Batch, edge_index: Tensor, tables: Embeddings | None = None
    ) -> dict[str, Tensor]:
        user, item = unit(rows.user), unit(rows.pos)
        if user.size(0) == 0:
            return {'alignment': user.sum()}
        out = {'alignment': (user - item).square().sum(dim=-1).mean()}
        if self.gamma > 0 and user.size(0) > 1:
            out['uniformity'] = self.gamma / 2 * (uniformity(user) + uniformity(item))
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.gamma})'


class WholeDataLoss(RankingLoss):
    r"""Least squares over *all* pairs of users and items, the objective of the
    `"Collaborative Filtering for Implicit Feedback Datasets"
    <https://doi.org/10.1109/ICDM.2008.22>`_ paper in the form of the
    `"Revisiting the Performance of iALS on Item Recommendation Benchmarks"
    <https://arxiv.org/abs/2110.14037>`_ paper,

    .. math::
        \frac{1}{E} \left[ \sum_{(u, i) \in \mathcal{E}} (1 - s_{ui})^2 +
        \alpha \sum_{u, i} s_{ui}^2 + \lambda \left( \sum_u (d_u + \alpha N)
        \| \mathbf{u}_u \|^2 + \sum_i (d_i + \alpha M) \| \mathbf{i}_i \|^2
        \right) \right], \qquad \alpha = c \, \frac{E}{M N} .

    The sum over all pairs costs only :math:`O((M + N) d^2)`, since

    .. math::
        \sum_{u, i} s_{ui}^2 = \langle \mathbf{U}^{\top} \mathbf{U},
        \mathbf{I}^{\top} \mathbf{I} \rangle .

    The loss samples only the interactions of a batch, and its expectation does
    not depend on the batch size. Both weights are relative. With
    :math:`c = 1`, all pairs together weigh as much as the interactions. The
    weight :math:`\lambda` applies per interaction, to the vectors that are
    ranked. All sums skip users and items without training interactions: they
    are unknown, not disliked.

    Args:
        unobserved: Weight :math:`c` of all pairs relative to the interactions.
        reg_weight: Weight :math:`\lambda` of the squared norms. :obj:`None`
            uses :func:`usual_weight`, which was chosen for :math:`c = 3`.

    Raises:
        ValueError: If a weight is negative or infinite, or :obj:`forward` gets
            no :obj:`tables`.
    """

    needs_tables = True

    def __init__(self, unobserved: float = 3.0, reg_weight: float | None = None):
        super().__init__()
        self.unobserved = not_negative('unobserved', unobserved)
        self._there = Memo()
        self._usual = Memo()
        self.reg_weight = None if reg_weight is None else not_negative('reg_weight', reg_weight)

    @full_precision
    def forward(
        self, rows: Rows, batch: Batch, edge_index: Tensor, tables: Embeddings | None = None
    ) -> dict[str, Tensor]:
        if tables is None:
            raise ValueError("'WholeDataLoss' needs the vectors of all users and items")
        # An item without interactions is not a negative: it may be new.
        shard = shard_of_batch(batch)
        args = edge_index, *map(len, tables)
        there = self._there(lambda: present(edge_index, tables, shard), *args)
        user, item = (x * mask for x, mask in zip(tables, there))
        sums = [there[0].sum(), *second_moments(user)]
        item_gram, item_trace = second_moments(item)
        if shard is not None:  # Over the users of all processes.
            sums = [shard.total(x) for x in sums]
        num_users, num_items = sums[0].clamp(min=1), there[1].sum().clamp(min=1)
        observed = (1 - (rows.user * rows.pos).sum(dim=-1)).square()
        observed = observed.mean() if observed.numel() > 0 else observed.sum()
        share = self.unobserved / (num_users * num_items)
        out = {
            'observed': observed,
            'all': share * (sums[1] * item_gram).sum(),
        }
        weight = self.reg_weight
        if weight is None:
            weight = self._usual(lambda: usual_weight(edge_index, shard), edge_index)
        if weight > 0:
            norm = sums[2] / num_users + item_trace / num_items
            norm = mean_square_norm(rows.user, rows.pos) + self.unobserved * norm
            out['norms'] = weight * norm
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.unobserved}, reg_weight={self.reg_weight})'


#: Ranking losses by name.
LOSSES: dict[str, type[RankingLoss]] = {
    'published': PublishedLoss,
    'bpr': BPRLoss,
    'softmax': SoftmaxLoss,
    'directau': DirectAULoss,
    'whole': WholeDataLoss,
}


def unit(x: Tensor) -> Tensor:
    r"""Scales rows to unit length. Rows of zeros stay zero."""
    return F.normalize(x, dim=-1)


@full_precision
def mean_square_norm(*tensors: Tensor) -> Tensor:
    r"""Mean squared row norm, summed over matrices. A matrix without rows adds
    zero.

    Shapes:
        - **input:** matrices :math:`(*, F)`
        - **output:** a scalar
    """
    return torch.stack([x.square().sum() / max(x.size(0), 1) for x in tensors]).sum()


def usual_weight(edge_index: Tensor, shard: UserShard | None = None) -> float:
    r"""Default weight of the norms in least squares over all pairs, computed
    from the mean number of interactions :math:`\bar{d}` of users with at least
    one interaction,

    .. math::
        \lambda = 0.3 \, \bar{d}^{\, -3/4} .

    The formula was fitted to the best weights on two datasets, with six and
    twenty-four interactions per user.

    Args:
        edge_index: Training interactions.
        shard: The part of all users that the interactions are of, if they are a part.

    Shapes:
        - **input:** interactions :math:`(2, E)`
    """
    count = edge_index.new_tensor([edge_index[0].unique().numel(), edge_index.size(1)])
    num_users, num_edges = (count if shard is None else shard.degree(count)).tolist()
    return 0.3 * (num_users / max(num_edges, 1)) ** 0.75


def present(
    edge_index: Tensor, tables: Embeddings, shard: UserShard | None = None
) -> tuple[Tensor, Tensor]:
    r"""Ones for users and items with at least one interaction, and zeros for the
    others. If the users are a part of all users, items may have the interactions
    of all.

    Shapes:
        - **output:** :math:`(M, 1)` and :math:`(N, 1)`
    """
    user, item = (i.bincount(minlength=x.size(0)) for i, x in zip(edge_index, tables))
    item = item if shard is None else shard.degree(item)
    user, item = ((x > 0).to(table).view(-1, 1) for x, table in zip((user, item), tables))
    return user, item


def uniformity(x: Tensor) -> Tensor:
    r"""Uniformity of unit vectors on the sphere,
    :math:`\log \mathbb{E} \exp(-2 \| \mathbf{x} - \mathbf{y} \|^2)` over
    pairs of rows. Lower values mean a more even distribution.

    Shapes:
        - **input:** rows :math:`(B, F)` with :math:`B \geq 2`
        - **output:** a scalar
    """
    similarity = torch.exp(4 * (x @ x.t()) - 4)
    pairs = similarity.sum() - similarity.diagonal().sum()
    return torch.log(pairs / (x.size(0) * (x.size(0) - 1)))
