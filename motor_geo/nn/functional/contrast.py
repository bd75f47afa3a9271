r"""Contrastive losses over all pairs of rows, in bounded memory."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from motor_geo.nn.functional.autocast import Function, full_precision
from motor_geo.nn.functional.kernel import has_kernel


@full_precision
def two_view_contrast(
    z: Tensor, y: Tensor, temperature: float, entries: int | None = None
) -> Tensor:
    r"""Contrastive loss between two views from the `"Deep Graph Contrastive
    Representation Learning" <https://arxiv.org/abs/2006.04131>`_ paper, where
    :math:`c` is the cosine similarity divided by the temperature and :obj:`z`
    holds the anchors,

    .. math::
        -\frac{1}{N} \sum_i \log \frac{\exp c(\mathbf{z}_i, \mathbf{y}_i)}
        {\sum_{k \neq i} \exp c(\mathbf{z}_i, \mathbf{z}_k) +
        \sum_k \exp c(\mathbf{z}_i, \mathbf{y}_k)} .

    The runtime is quadratic in :math:`N`, but the memory is bounded, see
    :func:`~motor_geo.nn.functional.contrast.log_sum_exp`.

    Args:
        z: Vectors of the anchor view.
        y: Vectors of the other view.
        temperature: Temperature that divides similarities.
        entries: Number of similarities held at a time. :obj:`None` chooses a
            block that suits the device.

    Shapes:
        - **input:** vectors :math:`(N, F)` and :math:`(N, F)`
        - **output:** a scalar
    """
    z, y = F.normalize(z, dim=-1), F.normalize(y, dim=-1)
    anchor, bound = z / temperature, 1 / temperature
    key = torch.cat([z, y])
    total = log_sum_exp(anchor, key, bound=bound, skip_diagonal=True, entries=entries)
    return (total - (anchor * y).sum()) / z.size(0)


@has_kernel
@full_precision
def log_sum_exp(
    a: Tensor,
    p: Tensor,
    row_count: Tensor | None = None,
    count: Tensor | None = None,
    bound: float = math.inf,
    skip_diagonal: bool = False,
    entries: int | None = None,
) -> Tensor:
    r"""Sum of the log-denominators of a contrastive loss,

    .. math::
        \sum_b n_b \log \sum_k m_k \exp(\mathbf{a}_b^{\top} \mathbf{p}_k) .

    The kernel computes the value and the gradient together, one block of rows
    at a time. Its runtime is quadratic, but its memory is bounded.

    Args:
        a: Anchors.
        p: Vectors that anchors are compared with.
        row_count: Multiplicity :math:`n_b` of every anchor. :obj:`None` means
            one.
        count: Multiplicity :math:`m_k` of every other vector. :obj:`None` means
            one.
        bound: Upper bound on the absolute value of the inner products, if
            known. With a small bound, exponentials cannot overflow and the
            kernel does not need the maximum of each row.
        skip_diagonal: If set to :obj:`True`, skips the terms with
            :math:`b = k`.
        entries: Number of inner products held at a time. :obj:`None` chooses a
            block that suits the device.

    Shapes:
        - **input:** anchors :math:`(B, F)`, vectors :math:`(N, F)`, counts
          :math:`(B)` and :math:`(N)`
        - **output:** a scalar
    """
    logit = a @ p.t()
    if skip_diagonal:
        diagonal = torch.eye(*logit.shape, dtype=torch.bool, device=logit.device)
        logit = logit.masked_fill(diagonal, -torch.inf)
    if count is not None:
        logit = logit + count.to(logit.dtype).log()
    value = logit.logsumexp(dim=1)
    return value.sum() if row_count is None else (row_count * value).sum()


@log_sum_exp.kernel
def _(
    a: Tensor,
    p: Tensor,
    row_count: Tensor | None = None,
    count: Tensor | None = None,
    bound: float = math.inf,
    skip_diagonal: bool = False,
    entries: int | None = None,
) -> Tensor:
    needs_grad = torch.is_grad_enabled() and (a.requires_grad or p.requires_grad)
    entries = _entries(p, entries)
    shift = bound > 60  # exp(60) and exp(-60) are far from the limits of float32.
    options = shift, skip_diagonal, max(1, entries // max(p.size(0), 1)), needs_grad
    return _LogSumExp.apply(a, p, row_count, count, options)


@full_precision
def row_log_sum_exp(a: Tensor, p: Tensor, entries: int | None = None) -> Tensor:
    r"""The log-denominator of every anchor,
    :math:`\log \sum_k \exp(\mathbf{a}_b^{\top} \mathbf{p}_k)`, in bounded memory. It
    is :math:`-\infty` without vectors.

    Args:
        a: Anchors.
        p: Vectors that anchors are compared with.
        entries: Number of inner products held at a time, see :func:`log_sum_exp`.

    Shapes:
        - **input:** anchors :math:`(B, F)`, vectors :math:`(N, F)`
        - **output:** :math:`(B)`
    """
    step = max(1, _entries(p, entries) // max(p.size(0), 1))

    def block(rows: Tensor, p: Tensor) -> Tensor:
        return (rows @ p.t()).logsumexp(dim=1)

    outs = [
        checkpoint(block, rows, p, use_reentrant=False, preserve_rng_state=False)
        for rows in a.split(step)
    ]
    return torch.cat(outs)


def _entries(p: Tensor, entries: int | None) -> int:
    if entries is not None:
        return entries
    # Matrix products with few rows are slow.
    return max(2**18, p.numel()) if p.device.type == 'cpu' else 2**26


class _LogSumExp(Function):
    r"""Computes the gradient in the forward pass, while the exponentials of a block
    are available.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        p: Tensor,
        row_count: Tensor | None,
        count: Tensor | None,
        options: tuple[bool, bool, int, bool],
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
                # Terms below exp(-60) are negligible, but subnormal numbers are slow.
                block.sub_(largest).clamp_(min=-60)
                value += n @ largest.view(-1)
            block.exp_()
            # A product with ones sums sequentially, which is inaccurate for many columns.
            total = block.sum(dim=1) if count is None else block @ count
            value += n @ total.log()
            if needs_grad:
                scale = (n / total).view(-1, 1)
                torch.mm(block, weighted, out=grad_a[start : start + step]).mul_(scale)
                grad_p.addmm_((rows * scale).t(), block)
        if needs_grad:
            grad_p = grad_p if count is None else grad_p * count
            ctx.save_for_backward(grad_a, grad_p.t().contiguous())
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_a, grad_p = ctx.saved_tensors
        return grad * grad_a, grad * grad_p, None, None, None
