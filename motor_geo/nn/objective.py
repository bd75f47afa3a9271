r"""Ranking losses that can take the place of the published one of a backbone."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.loss import bpr_loss
from motor_geo.nn.memo import Memo
from motor_geo.typing import Batch, Embeddings, Rows


class RankingLoss(nn.Module):
    r"""The base of losses that rank the items of a user by inner products of
    the vectors that a backbone yields.

    A subclass implements :meth:`forward`. Whatever else a backbone adds to its
    loss (contrasts, regularizers of its tables) stays as it is.
    """

    #: Whether negative items are read.
    needs_negatives: ClassVar[bool] = False
    #: Whether the vectors of all users and items are read.
    needs_tables: ClassVar[bool] = False
    #: Whether vectors are ranked by the cosine of their angle.
    cosine: bool = False

    def forward(
        self, rows: Rows, batch: Batch, edge_index: Tensor, tables: Embeddings | None = None
    ) -> dict[str, Tensor]:
        r"""Loss terms of a batch, already weighted.

        Args:
            rows: Vectors of the batch.
            batch: Its users, positive and negative items.
            edge_index: All training interactions.
            tables: Vectors of all users and items, if
                :obj:`needs_tables`.

        Shapes:
            - **input:** vectors :math:`(B, d)`, indices :math:`(B)`,
              interactions :math:`(2, E)`, vectors :math:`(M, d)` and
              :math:`(N, d)` *(optional)*
            - **output:** scalars
        """
        raise NotImplementedError

    def finish(self, emb: Embeddings) -> Embeddings:
        r"""The vectors that are ranked by: of unit length, where the loss
        compares cosines.
        """
        return Embeddings(*map(unit, emb)) if self.cosine else emb


class PublishedLoss(RankingLoss):
    r"""The loss of the backbone as it was published (stands for it in
    configurations).
    """


class BPRLoss(RankingLoss):
    r"""Bayesian personalized ranking from the `"BPR: Bayesian Personalized
    Ranking from Implicit Feedback" <https://arxiv.org/abs/1205.2618>`_ paper,
    with a penalty of the vectors that are ranked,

    .. math::
        \frac{1}{B} \sum_b -\log \sigma \left( s_b^+ - s_b^- \right) + \lambda
        \left( \| \mathbf{u}_b \|^2 + \| \mathbf{i}_b^+ \|^2 +
        \| \mathbf{i}_b^- \|^2 \right) .

    The weight :math:`\lambda` belongs to an interaction: it means the same
    whatever the size of a batch, and frequent users and items are held back
    in proportion to their use.

    Args:
        reg_weight: Weight :math:`\lambda`.
    """

    needs_negatives = True

    def __init__(self, reg_weight: float = 0.0):
        super().__init__()
        self.reg_weight = not_negative('reg_weight', reg_weight)

    def forward(
        self, rows: Rows, batch: Batch, edge_index: Tensor, tables: Embeddings | None = None
    ) -> dict[str, Tensor]:
        out = {'bpr': bpr_loss(*rows.scores())}
        if self.reg_weight > 0:
            out['norms'] = self.reg_weight * mean_square_norm(*rows)
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(reg_weight={self.reg_weight})'


class SoftmaxLoss(RankingLoss):
    r"""Sampled softmax, whose negatives are the items of the batch, from the
    `"Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations" <https://doi.org/10.1145/3298689.3346996>`_ paper,

    .. math::
        -\frac{1}{B} \sum_b \log \frac{\exp s(u_b, i_b)}{\exp s(u_b, i_b) +
        \sum_{j \in \mathcal{J} \setminus \mathcal{N}(u_b)} c_j
        \exp s(u_b, j)}, \qquad
        s(u, j) = \frac{1}{\tau} \cos(\mathbf{u}_u, \mathbf{i}_j) -
        \beta \log q_j ,

    over the distinct items :math:`\mathcal{J}` of the batch, which stand in it
    :math:`c_j` times, and which a batch holds with probability :math:`q_j`.
    Items that a user has in training, :math:`\mathcal{N}(u)`, are no
    negatives.

    Args:
        temperature: Divisor :math:`\tau` of similarities.
        correction: Weight :math:`\beta` of the correction for popularity;
            zero leaves frequent items as frequent negatives.
        shared: If set to :obj:`True`, the negative items of all users in the
            batch are in :math:`\mathcal{J}`, too.
        cosine: If set to :obj:`False`, inner products take the place of
            cosines, in training and in ranking.

    Memory grows as the square of the batch.
    """

    def __init__(
        self,
        temperature: float = 0.2,
        correction: float = 0.0,
        shared: bool = False,
        cosine: bool = True,
    ):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"'temperature' must be positive (got {temperature})")
        self.temperature = temperature
        self.correction = not_negative('correction', correction)
        self.shared = shared
        self.cosine = cosine
        self._seen = Memo()

    @property
    def needs_negatives(self) -> bool:  # type: ignore[override]
        r"""Whether negative items are read."""
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
        row = row.new_zeros(node.numel()).scatter_(0, inverse, row)  # Any of its rows.
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
        r"""Logarithm of the share of an item in what batches are drawn from."""
        (_, item), num_edges = edge_index, edge_index.size(1)
        size = int(torch.maximum(item.max(), node.max())) + 1
        share = torch.bincount(item, minlength=size)[node].to(dtype) / num_edges
        if self.shared:  # Half of the items are drawn uniformly.
            share = (share + 1 / size) / 2
        return share.log()

    def _known(self, edge_index: Tensor, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        r"""Which pairs of a position in users and a position in distinct items
        are training interactions.
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
    r"""Alignment and uniformity on the sphere from the `"Towards Representation
    Alignment and Uniformity in Collaborative Filtering"
    <https://arxiv.org/abs/2206.12811>`_ paper: no negatives,

    .. math::
        \frac{1}{B} \sum_b \| \mathbf{u}_b - \mathbf{i}_b \|^2 +
        \frac{\gamma}{2} \left( U(\mathbf{u}) + U(\mathbf{i}) \right), \qquad
        U(\mathbf{x}) = \log \frac{2}{B (B - 1)} \sum_{b < c}
        \exp \left( -2 \| \mathbf{x}_b - \mathbf{x}_c \|^2 \right) ,

    with vectors of unit length. Memory grows as the square of the batch.

    Args:
        gamma: Weight :math:`\gamma` of uniformity.
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

    The sum over all pairs costs :math:`O((M + N) d^2)`, since

    .. math::
        \sum_{u, i} s_{ui}^2 = \langle \mathbf{U}^{\top} \mathbf{U},
        \mathbf{I}^{\top} \mathbf{I} \rangle .

    Nothing is sampled but the interactions of a batch, and the expectation is
    the same for every size of a batch. Both weights are relative: with
    :math:`c = 1`, all pairs together weigh as much as the interactions, and
    :math:`\lambda` belongs to an interaction, on the vectors that are ranked. Users and
    items without training interactions are left out of all sums: they are
    unknown, not disliked.

    Args:
        unobserved: Weight :math:`c` of all pairs relative to the interactions.
        reg_weight: Weight :math:`\lambda`; by default that of
            :func:`usual_weight`, which goes with :math:`c = 3`.
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
        # An item without interactions is no negative: it may be new.
        there = self._there(lambda: present(edge_index, tables), edge_index, *map(len, tables))
        user, item = (x * mask for x, mask in zip(tables, there))
        num_users, num_items = (mask.sum().clamp(min=1) for mask in there)
        observed = (1 - (rows.user * rows.pos).sum(dim=-1)).square()
        observed = observed.mean() if observed.numel() > 0 else observed.sum()
        share = self.unobserved / (num_users * num_items)
        out = {
            'observed': observed,
            'all': share * ((user.t() @ user) * (item.t() @ item)).sum(),
        }
        weight = self.reg_weight
        if weight is None:
            weight = self._usual(lambda: usual_weight(edge_index), edge_index)
        if weight > 0:
            norm = user.square().sum() / num_users + item.square().sum() / num_items
            norm = mean_square_norm(rows.user, rows.pos) + self.unobserved * norm
            out['norms'] = weight * norm
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.unobserved}, reg_weight={self.reg_weight})'


#: Losses by name.
LOSSES: dict[str, type[RankingLoss]] = {
    'published': PublishedLoss,
    'bpr': BPRLoss,
    'softmax': SoftmaxLoss,
    'directau': DirectAULoss,
    'whole': WholeDataLoss,
}


def unit(x: Tensor) -> Tensor:
    r"""Rows of unit length; zeros stay zero."""
    return F.normalize(x, dim=-1)


@full_precision
def mean_square_norm(*tensors: Tensor) -> Tensor:
    r"""Sum over matrices of their mean squared row norm; zero without rows.

    Shapes:
        - **input:** matrices :math:`(*, F)`
        - **output:** a scalar
    """
    return torch.stack([x.square().sum() / max(x.size(0), 1) for x in tensors]).sum()


def usual_weight(edge_index: Tensor) -> float:
    r"""The weight of the norms in least squares over all pairs, from the mean
    number :math:`\bar{d}` of interactions of the users that have any,

    .. math::
        \lambda = 0.3 \, \bar{d}^{\, -3/4} .

    It was read off the best weights on two data sets, whose users have six and
    twenty-four interactions.

    Args:
        edge_index: Training interactions, **[2, E]**.
    """
    num_users = edge_index[0].unique().numel()
    return 0.3 * (num_users / max(edge_index.size(1), 1)) ** 0.75


def present(edge_index: Tensor, tables: Embeddings) -> tuple[Tensor, Tensor]:
    r"""Which users and which items have an interaction, as ones and zeros.

    Shapes:
        - **output:** :math:`(M, 1)` and :math:`(N, 1)`
    """
    user, item = (
        x.new_zeros(x.size(0), 1).index_fill_(0, index, 1) for x, index in zip(tables, edge_index)
    )
    return user, item


def uniformity(x: Tensor) -> Tensor:
    r"""How evenly rows of unit length lie on the sphere,
    :math:`\log \mathbb{E} \exp(-2 \| \mathbf{x} - \mathbf{y} \|^2)` over
    pairs of rows.

    Shapes:
        - **input:** rows :math:`(B, F)` with :math:`B \geq 2`
        - **output:** a scalar
    """
    similarity = torch.exp(4 * (x @ x.t()) - 4)
    pairs = similarity.sum() - similarity.diagonal().sum()
    return torch.log(pairs / (x.size(0) * (x.size(0) - 1)))


def not_negative(name: str, value: float) -> float:
    r"""Checks the weight of a term."""
    if not 0 <= value < float('inf'):
        raise ValueError(f"'{name}' must be at least 0 and finite (got {value})")
    return value
