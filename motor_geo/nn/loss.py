r"""Loss terms shared by several backbones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.contrast import log_sum_exp
from motor_geo.nn.functional.distinct import Distinct
from motor_geo.nn.functional.rows import frobenius_norm
from motor_geo.parallel.user_shard import UserShard
from motor_geo.typing import Rows


def scores(rows: Rows, shard: UserShard | None = None) -> tuple[Tensor, Tensor]:
    r"""Scores of the positive and the negative items of a batch.

    Args:
        rows: Vectors of the batch.
        shard: The columns of this process, if several share them.

    Shapes:
        - **output:** scores :math:`(B)` and :math:`(B)`
    """
    pos, neg = rows.scores()
    if shard is None or shard.columns.size == 1:
        return pos, neg
    pos, neg = shard.over_columns(torch.stack([pos, neg])).unbind()
    return pos, neg


def _norms(tensors: Sequence[Tensor], shard: UserShard | None) -> Tensor:
    r"""The norm of every matrix, also of those whose columns several processes share."""
    norms = torch.stack([frobenius_norm(tensor) for tensor in tensors])
    if shard is None or shard.columns.size == 1:
        return norms
    square = shard.over_columns(norms.square())
    there = square > 0  # The gradient of the root of zero is not finite.
    return torch.where(there, square, 1).sqrt() * there


@full_precision
def bpr_loss(pos: Tensor, neg: Tensor, form: str = 'log') -> Tensor:
    r"""Bayesian personalized ranking from the `"BPR: Bayesian Personalized
    Ranking from Implicit Feedback" <https://arxiv.org/abs/1205.2618>`_ paper,
    in the five forms found in published implementations.

    .. math::
        \textrm{log}: -\frac{1}{B} \sum_b \log \sigma(s_b^+ - s_b^-) \qquad
        \textrm{eps}: -\frac{1}{B} \sum_b \log(10^{-10} + \sigma(s_b^+ - s_b^-))

    :obj:`"log2"` is :obj:`"log"` with the logarithm to base two. :obj:`"sum"` is
    :obj:`"log"` with a sum instead of the mean. :obj:`"raw"` is :obj:`"eps"`
    without the constant, and infinite for differences below -88.

    Args:
        pos: Scores of observed pairs.
        neg: Scores of sampled pairs.
        form: :obj:`"log"`, :obj:`"log2"`, :obj:`"eps"`, :obj:`"sum"` or :obj:`"raw"`.

    Shapes:
        - **input:** scores :math:`(B)` and :math:`(B)`
        - **output:** a scalar

    Raises:
        ValueError: If :obj:`form` is unknown.
    """
    if form not in ('log', 'log2', 'eps', 'sum', 'raw'):
        raise ValueError(f"'form' must be 'log', 'log2', 'eps', 'sum' or 'raw' (got '{form}')")
    difference = pos - neg
    if form == 'sum' or difference.numel() == 0:  # The loss of an empty batch is zero.
        return -F.logsigmoid(difference).sum()
    if form == 'log':
        return -F.logsigmoid(difference).mean()
    if form == 'log2':
        return -F.logsigmoid(difference).mean() / math.log(2)
    if form == 'eps':
        return -torch.log(1e-10 + torch.sigmoid(difference)).mean()
    return -torch.log(torch.sigmoid(difference)).mean()


@full_precision
def frobenius_reg(*tensors: Tensor, shard: UserShard | None = None) -> Tensor:
    r"""Sum of *unsquared* Frobenius norms, divided by the number of rows :math:`n`
    of the last argument,

    .. math::
        \frac{1}{n} \sum_k {\| \mathbf{X}_k \|}_F .

    With the same weight, its gradient is about :math:`\sqrt{n}` times smaller
    than that of a squared penalty. Weights therefore carry over neither between
    the two penalties nor between batch sizes: four times the rows need twice the
    weight.

    Args:
        *tensors: The matrices.
        shard: The columns of this process, if several share those of the matrices.

    Shapes:
        - **input:** matrices :math:`(*, F)`
        - **output:** a scalar
    """
    return _norms(tensors, shard).sum() / max(tensors[-1].size(0), 1)


@full_precision
def square_reg(*tensors: Tensor, users: UserShard | None = None) -> Tensor:
    r"""Mean of the squared entries of all matrices, or zero if they have no rows.

    Args:
        *tensors: The matrices.
        users: The users of this process, if it has the rows of a matrix of all users.

    Shapes:
        - **input:** matrices :math:`(*, F)`
        - **output:** a scalar
    """
    x = (tensors[0] if len(tensors) == 1 else torch.cat(tensors)).square()
    if users is not None:
        return users.total(x.sum()) / (users.num_users * x.size(1))
    return x.mean() if x.numel() > 0 else x.sum()


@full_precision
def l2_reg(*tensors: Tensor, shard: UserShard | None = None) -> Tensor:
    r"""Half the sum of the squared entries of all tensors.

    Args:
        *tensors: The tensors.
        shard: The columns of this process, if several share those of the tensors.

    Shapes:
        - **input:** tensors of any shape
        - **output:** a scalar
    """
    half = torch.stack([tensor.square().sum() for tensor in tensors]).sum() / 2
    return half if shard is None else shard.over_columns(half)


@full_precision
def info_nce(
    anchor: Tensor,
    positive: Tensor,
    temperature: float,
    pairs: tuple[Distinct, Distinct] | None = None,
) -> Tensor:
    r"""InfoNCE loss over the rows of a batch with cosine similarity,

    .. math::
        -\frac{1}{B} \sum_b \log \frac{\exp(\cos(\mathbf{a}_b, \mathbf{p}_b) / \tau)}
        {\sum_c \exp(\cos(\mathbf{a}_b, \mathbf{p}_c) / \tau)} ,

    in one direction only, from anchors to positives. Repeated rows in the batch
    are not masked.

    Args:
        anchor: Anchors.
        positive: Positives.
        temperature: Temperature :math:`\tau`.
        pairs: The rows of the batch if :obj:`anchor` and :obj:`positive` hold
            distinct nodes only, see :func:`batch_contrast`.

    Shapes:
        - **input:** anchors :math:`(B, F)`, positives :math:`(B, F)`
        - **output:** a scalar
    """
    anchor, positive = F.normalize(anchor) / temperature, F.normalize(positive)
    return batch_contrast(anchor, positive, 1 / temperature, pairs)


@full_precision
def batch_contrast(
    anchor: Tensor,
    positive: Tensor,
    bound: float = math.inf,
    pairs: tuple[Distinct, Distinct] | None = None,
) -> Tensor:
    r"""InfoNCE loss over the rows of a batch with inner products,

    .. math::
        -\frac{1}{B} \sum_b \log \frac{\exp(\mathbf{a}_b^{\top} \mathbf{p}_b)}
        {\sum_c \exp(\mathbf{a}_b^{\top} \mathbf{p}_c)} .

    Args:
        anchor: Anchors.
        positive: Positives.
        bound: Upper bound on the absolute value of the inner products, if
            known.
        pairs: If given, :obj:`anchor` and :obj:`positive` hold distinct nodes
            only, and :obj:`pairs` are the results of
            :func:`~motor_geo.nn.functional.distinct.distinct` for both sides.
            The loss is the same as with repeated rows, at a lower cost.

    Shapes:
        - **input:** anchors :math:`(B, F)`, positives :math:`(B, F)`, or
          :math:`(D_a, F)` and :math:`(D_p, F)` with :obj:`pairs`
        - **output:** a scalar
    """
    if pairs is None:
        total = log_sum_exp(anchor, positive, bound=bound)
        return (total - (anchor * positive).sum()) / max(anchor.size(0), 1)
    a, p = pairs
    total = log_sum_exp(anchor, positive, a.times, p.times, bound)
    anchor, positive = anchor.index_select(0, a.inverse), positive.index_select(0, p.inverse)
    return (total - (anchor * positive).sum()) / max(a.inverse.numel(), 1)
