r"""Loss terms that several backbones share."""

from __future__ import annotations

import math
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.nodes import Distinct
from motor_geo.nn.precision import Function, full_precision


@full_precision
def bpr_loss(pos: Tensor, neg: Tensor, form: str = 'log') -> Tensor:
    r"""Bayesian personalised ranking from the `"BPR: Bayesian Personalized
    Ranking from Implicit Feedback" <https://arxiv.org/abs/1205.2618>`_ paper,
    in the four forms found in published implementations.

    .. math::
        \textrm{log}: -\frac{1}{B} \sum_b \log \sigma(s_b^+ - s_b^-) \qquad
        \textrm{eps}: -\frac{1}{B} \sum_b \log(10^{-10} + \sigma(s_b^+ - s_b^-))

    :obj:`"sum"` is :obj:`"log"` without the mean, and :obj:`"raw"` is
    :obj:`"eps"` without the guard (infinite for differences below -88).

    Args:
        pos: Scores of observed pairs.
        neg: Scores of sampled pairs.
        form: :obj:`"log"`, :obj:`"eps"`, :obj:`"sum"` or :obj:`"raw"`.

    Shapes:
        - **input:** scores :math:`(B)` and :math:`(B)`
        - **output:** a scalar
    """
    difference = pos - neg
    if form == 'log':
        return -F.logsigmoid(difference).mean()
    if form == 'sum':
        return -F.logsigmoid(difference).sum()
    if form == 'eps':
        return -torch.log(1e-10 + torch.sigmoid(difference)).mean()
    if form == 'raw':
        return -torch.log(torch.sigmoid(difference)).mean()
    raise ValueError(f"'form' must be 'log', 'eps', 'sum' or 'raw' (got '{form}')")


@full_precision
def frobenius_reg(*tensors: Tensor) -> Tensor:
    r"""Sum of *unsquared* Frobenius norms, divided by the rows of the last
    argument,

    .. math::
        \frac{1}{n} \sum_k {\| \mathbf{X}_k \|}_F .

    Its gradient is about :math:`\sqrt{n}` times weaker than that of a squared
    penalty with the same weight, so weights do not carry over from one to the
    other, nor between sizes of a batch: four times the rows ask for twice the
    weight.

    Shapes:
        - **input:** matrices :math:`(*, F)`
        - **output:** a scalar
    """
    norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors])
    return norms.sum() / tensors[-1].size(0)


@full_precision
def l2_reg(*tensors: Tensor) -> Tensor:
    r"""Half the sum of squared entries.

    Shapes:
        - **input:** tensors of any shape
        - **output:** a scalar
    """
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum() / 2


@full_precision
def info_nce(
    anchor: Tensor,
    positive: Tensor,
    temperature: float,
    pairs: Optional[Tuple[Distinct, Distinct]] = None,
) -> Tensor:
    r"""Contrastive loss over the rows of a batch, by cosine similarity,

    .. math::
        -\frac{1}{B} \sum_b \log \frac{\exp(\cos(\mathbf{a}_b, \mathbf{p}_b) / \tau)}
        {\sum_c \exp(\cos(\mathbf{a}_b, \mathbf{p}_c) / \tau)} ,

    row-wise only; equal rows in the batch are not masked.

    Args:
        anchor: Anchors.
        positive: Positives.
        temperature: Divisor of similarities.
        pairs: Which anchors and positives make up the batch, if every one of
            them is given once only; see :func:`batch_contrast`.

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
    pairs: Optional[Tuple[Distinct, Distinct]] = None,
) -> Tensor:
    r"""Contrastive loss over the rows of a batch, by inner products,

    .. math::
        -\frac{1}{B} \sum_b \log \frac{\exp(\mathbf{a}_b^{\top} \mathbf{p}_b)}
        {\sum_c \exp(\mathbf{a}_b^{\top} \mathbf{p}_c)} .

    Args:
        anchor: Anchors.
        positive: Positives.
        bound: What no inner product exceeds in size, if that is known.
        pairs: If given, rows of the batch are those that
            :func:`~motor_geo.nn.nodes.distinct`
            found on both sides, while anchors and positives are given once
            only: the same loss, for a part of the work.

    Shapes:
        - **input:** anchors :math:`(B, F)`, positives :math:`(B, F)`
        - **output:** a scalar
    """
    if pairs is None:
        total = log_sum_exp(anchor, positive, bound=bound)
        return (total - (anchor * positive).sum()) / anchor.size(0)
    a, p = pairs
    total = log_sum_exp(anchor, positive, a.times, p.times, bound)
    anchor, positive = anchor.index_select(0, a.inverse), positive.index_select(0, p.inverse)
    return (total - (anchor * positive).sum()) / a.inverse.numel()


def log_sum_exp(
    a: Tensor,
    p: Tensor,
    row_count: Optional[Tensor] = None,
    count: Optional[Tensor] = None,
    bound: float = math.inf,
    skip_diagonal: bool = False,
    entries: Optional[int] = None,
) -> Tensor:
    r"""The logarithms of the denominators of a contrastive loss, summed,

    .. math::
        \sum_b n_b \log \sum_k m_k \exp(\mathbf{a}_b^{\top} \mathbf{p}_k) .

    Value and gradient are computed together, a block of rows at a time: the
    cost is quadratic, the memory is not.

    Args:
        a: Anchors.
        p: Vectors they are compared with.
        row_count: How often anchors count, by default once.
        count: How often the others count, by default once.
        bound: What no inner product exceeds in size, if that is known: the
            maximum of a row need not be found if exponentials are finite
            without.
        skip_diagonal: If set to :obj:`True`, :math:`b = k` is left out.
        entries: Inner products that are held at a time; by default about what
            a cache holds.

    Shapes:
        - **input:** anchors :math:`(B, F)`, vectors :math:`(N, F)`, counts
          :math:`(B)` and :math:`(N)`
        - **output:** a scalar
    """
    needs_grad = torch.is_grad_enabled() and (a.requires_grad or p.requires_grad)
    if entries is None:
        # Few rows at a time would make products slow.
        entries = max(2**18, p.numel()) if a.device.type == 'cpu' else 2**26
    shift = bound > 60  # exp(60) and exp(-60) are far from the limits of float32.
    options = shift, skip_diagonal, max(1, entries // max(p.size(0), 1)), needs_grad
    return _LogSumExp.apply(a, p, row_count, count, options)


class _LogSumExp(Function):
    r"""The gradient is computed on the way, while the exponentials of a block
    are at hand.
    """

    @staticmethod
    def forward(  # type: ignore
        ctx, a: Tensor, p: Tensor, row_count: Optional[Tensor], count: Optional[Tensor], options
    ) -> Tensor:
        shift, skip_diagonal, step, needs_grad = options
        row_count = a.new_ones(a.size(0)) if row_count is None else row_count.to(a.dtype)
        count = None if count is None else count.to(p.dtype)
        p_t, weighted = p.t().contiguous(), p if count is None else p * count.view(-1, 1)
        buffer = a.new_empty(min(step, a.size(0)), p.size(0))
        value = a.new_zeros(())
        if needs_grad:
            grad_a, grad_p = torch.empty_like(a), torch.zeros_like(p_t)
        for start in range(0, a.size(0), step):
            rows, n = a[start : start + step], row_count[start : start + step]
            block = torch.mm(rows, p_t, out=buffer[: rows.size(0)])
            if skip_diagonal:
                block[:, start : start + step].fill_diagonal_(-torch.inf)
            if shift:
                largest = block.amax(dim=1, keepdim=True)
                # What exp(-60) stands for does not count, but subnormal numbers
                # are slow.
                block.sub_(largest).clamp_(min=-60)
                value += n @ largest.view(-1)
            block.exp_()
            # A product with ones adds up one by one: too inexact for many columns.
            total = block.sum(dim=1) if count is None else block @ count
            value += n @ total.log()
            if needs_grad:
                scale = (n / total).view(-1, 1)
                torch.mm(block, weighted, out=grad_a[start : start + step]).mul_(scale)
                grad_p.addmm_((rows * scale).t(), block)  # type: ignore
        if needs_grad:
            grad_p = grad_p if count is None else grad_p * count
            ctx.save_for_backward(grad_a, grad_p.t().contiguous())
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore
        grad_a, grad_p = ctx.saved_tensors
        return grad * grad_a, grad * grad_p, None, None, None
