r"""A contrastive loss between two views of all nodes, in bounded memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.similarity import BLOCK_ENTRIES, block_rows


def two_view_contrast(
    z: Tensor, y: Tensor, temperature: float, entries: int = BLOCK_ENTRIES
) -> Tensor:
    r"""Contrastive loss of two views from the `"Deep Graph Contrastive
    Representation Learning" <https://arxiv.org/abs/2006.04131>`_ paper, with
    :math:`c` the cosine similarity divided by the temperature and
    :obj:`z` as the anchor,

    .. math::
        -\frac{1}{N} \sum_i \log \frac{\exp c(\mathbf{z}_i, \mathbf{y}_i)}
        {\sum_{k \neq i} \exp c(\mathbf{z}_i, \mathbf{z}_k) +
        \sum_k \exp c(\mathbf{z}_i, \mathbf{y}_k)} .

    Loss and gradient are computed together, a block of rows at a time: the
    cost is quadratic in :math:`N`, the memory is not.

    Args:
        z: Vectors of the anchor view.
        y: Vectors of the other view.
        temperature: Divisor of similarities.
        entries: Similarities that are held at a time.

    Shapes:
        - **input:** vectors :math:`(N, F)` and :math:`(N, F)`
        - **output:** a scalar
    """
    z, y = F.normalize(z, dim=-1), F.normalize(y, dim=-1)
    positive = (z * y).sum(dim=-1).mean() / temperature
    needs_grad = torch.is_grad_enabled() and (z.requires_grad or y.requires_grad)
    return _LogSum.apply(z, y, temperature, entries, needs_grad) - positive


class _LogSum(torch.autograd.Function):
    r"""Mean logarithm of the denominators. Its gradient is computed on the
    way, while the exponentials of a block are at hand.
    """

    @staticmethod
    def forward(ctx, z, y, temperature, entries, needs_grad):  # type: ignore
        num_rows = z.size(0)
        key = torch.cat([z, y])
        key_t = (key / temperature).t().contiguous()
        step = min(block_rows(2 * num_rows, entries), num_rows)
        buffer = z.new_empty(step, 2 * num_rows)
        total = z.new_zeros(())
        grad_z = torch.zeros_like(z) if needs_grad else None
        grad_key = torch.zeros_like(key) if needs_grad else None
        for start in range(0, num_rows, step):
            rows = z[start : start + step]
            block = torch.mm(rows, key_t, out=buffer[: rows.size(0)])
            block[:, start : start + step].fill_diagonal_(-torch.inf)
            largest = block.amax(dim=1, keepdim=True)
            denominator = block.sub_(largest).exp_().sum(dim=1, keepdim=True)
            total += (largest + denominator.log()).sum()
            if grad_z is not None and grad_key is not None:
                torch.mm(block, key, out=grad_z[start : start + step])
                grad_z[start : start + step] /= denominator
                grad_key.addmm_(block.t(), rows / denominator)
        if grad_z is not None and grad_key is not None:
            scale = 1 / (temperature * num_rows)
            grad_z += grad_key[:num_rows]
            ctx.save_for_backward(grad_z.mul_(scale), grad_key[num_rows:] * scale)
        return total / num_rows

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore
        grad_z, grad_y = ctx.saved_tensors
        return grad * grad_z, grad * grad_y, None, None, None
