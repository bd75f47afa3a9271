r"""The token-item graph. Items are nodes that receive sums over their tokens, of
quantities computed once per row of the token tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from motor_geo.nn.functional.autocast import Function, full_precision
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.nn.functional.spmm import csr_matmul


class Incidence(NamedTuple):
    r"""Incidence of items and tokens in CSR and CSC format."""

    ptr: Tensor  # [N + 1]: start of the tokens of every item
    token: Tensor  # [N * T]
    token_ptr: Tensor  # [T * K + 1]: start of the items of every token
    item: Tensor  # [N * T]

    @classmethod
    def from_tokens(cls, token_id: Tensor, codebook_size: int) -> Incidence:
        r"""Builds the incidence from token ids **[N, T]**."""
        (num_items, num_tokens), device = token_id.shape, token_id.device
        offset = torch.arange(num_tokens, device=device) * codebook_size
        value, item = token_id.t().sort(dim=1, stable=True)
        value = (value.long() + offset.view(-1, 1)).flatten()
        bound = torch.arange(num_tokens * codebook_size + 1, device=device)
        return cls(
            torch.arange(num_items + 1, dtype=torch.int, device=device) * num_tokens,
            (token_id.int() + offset.int()).flatten(),
            torch.searchsorted(value, bound, out_int32=True),
            item.flatten().int(),
        )

    def slots(self, start: int, end: int) -> Incidence:
        r"""The incidence of the token slots from :obj:`start` to :obj:`end`."""
        num_items, total = self.ptr.numel() - 1, self.num_slots
        if (start, end) == (0, total):
            return self
        codebook_size = (self.token_ptr.numel() - 1) // total
        token = self.token.view(num_items, total)[:, start:end] - start * codebook_size
        token_ptr = self.token_ptr[start * codebook_size : end * codebook_size + 1]
        return Incidence(
            self.ptr // total * (end - start),
            token.flatten(),
            token_ptr - start * num_items,
            self.item[start * num_items : end * num_items],
        )

    @property
    def num_slots(self) -> int:
        r"""Number of tokens per item."""
        return self.token.numel() // max(self.ptr.numel() - 1, 1)

    def gather(self, table: Tensor) -> Tensor:
        r"""Sums rows of a table **[T * K, d]** or **[T, K, d]** over the tokens of
        every item, **[N, d]**.
        """
        return csr_matmul(self.ptr, self.token, None, table.view(-1, table.size(-1)))

    def scatter(self, x: Tensor) -> Tensor:
        r"""Sums rows of :obj:`x` **[N, d]** over the items of every token,
        **[T * K, d]**.
        """
        return csr_matmul(self.token_ptr, self.item, None, x)


class TokenGraph(NamedTuple):
    r"""The incidence of all tokens and of each group of slots."""

    all: Incidence
    groups: list[Incidence]

    @classmethod
    def from_tokens(
        cls, token_id: Tensor, codebook_size: int, groups: Sequence[tuple[int, int]]
    ) -> TokenGraph:
        r"""Builds the graph from token ids **[N, T]** and the ranges of slots."""
        incidence = Incidence.from_tokens(token_id, codebook_size)
        return cls(incidence, [incidence.slots(*group) for group in groups])


@has_kernel
@full_precision
def token_sum(table: Tensor, incidence: Incidence) -> Tensor:
    r"""Sums rows of a table over the tokens of every item,
    :math:`\sum_x \mathbf{e}_x`.

    Shapes:
        - **input:** table :math:`(T K, d)` or :math:`(T, K, d)`
        - **output:** :math:`(N, d)`
    """
    return _embed(table, incidence).sum(dim=1)


def _embed(table: Tensor, incidence: Incidence) -> Tensor:
    r"""The embedding of every token of every item, **[N, T, d]**."""
    rows = table.reshape(-1, table.size(-1)).index_select(0, incidence.token)
    return rows.view(incidence.ptr.numel() - 1, -1, table.size(-1))


@token_sum.kernel
def _(table: Tensor, incidence: Incidence) -> Tensor:
    return _TokenSum.apply(table, incidence)


class _TokenSum(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, incidence: Incidence) -> Tensor:
        ctx.incidence, ctx.shape = incidence, table.shape
        return incidence.gather(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.incidence.scatter(grad.contiguous()).view(ctx.shape), None


def project_slots(slots: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Contribution of every token to an affine map of the concatenated tokens
    of an item. The bias is split equally between slots.

    Shapes:
        - **input:** token tables :math:`(T, K, d)`, weight :math:`(d, T d)`,
          bias :math:`(d)`
        - **output:** :math:`(T, K, d)`
    """
    share = (bias / slots.size(0)).expand(slots.size(0), 1, -1)
    return torch.baddbmm(share, slots, _by_slot(weight, slots))


def _by_slot(weight: Tensor, slots: Tensor) -> Tensor:
    r"""The weight of every slot, **[T, d_in, d_out]**."""
    return weight.view(-1, slots.size(0), slots.size(2)).permute(1, 2, 0)


@has_kernel
@full_precision
def token_cross(table: Tensor, weight: Tensor, graph: TokenGraph, *lins: Tensor) -> Tensor:
    r"""All orders of the token cross network, over groups :math:`g` of slots,

    .. math::
        \sum_g \mathbf{f}_g + \frac{1}{2} \left( \mathbf{f}_g^2 - \sum_{x \in g}
        (w_x \mathbf{e}_x)^2 \right) + \textrm{ReLU} \left( \mathbf{b}_g +
        \sum_{x \in g} \mathbf{W}_x \mathbf{e}_x \right), \qquad
        \mathbf{f}_g = \sum_{x \in g} w_x \mathbf{e}_x .

    Without :math:`\mathbf{W}` and :math:`\mathbf{b}`, the high order is omitted.

    The kernel stores no tensor with one row per item for the backward pass. It
    recomputes the sums, since this is cheaper than reading them from memory.

    Args:
        table: Token embeddings.
        weight: Token weights.
        graph: The tokens of all items.
        lins: Weight and bias of the high order, for each group.

    Shapes:
        - **input:** table :math:`(T K, d)`, token weights :math:`(T)`;
          :math:`(d, T_g d)` and :math:`(d)` for each group *(optional)*
        - **output:** item vectors :math:`(N, d)`
    """
    e = _embed(table, graph.all)
    sizes = [group.num_slots for group in graph.groups]
    out = torch.zeros_like(e[:, 0])
    for part, w in zip(e.split(sizes, dim=1), weight.split(sizes)):
        first = part * w.view(-1, 1)
        total = first.sum(dim=1)
        out = out + total + (total.square() - first.square().sum(dim=1)) / 2
    for part, lin, bias in zip(e.split(sizes, dim=1), lins[::2], lins[1::2]):
        out = out + torch.relu(F.linear(part.flatten(1), lin, bias))
    return out


@token_cross.kernel
def _(table: Tensor, weight: Tensor, graph: TokenGraph, *lins: Tensor) -> Tensor:
    return _TokenCross.apply(table, weight, graph, *lins)


class _TokenCross(Function):
    @staticmethod
    def forward(
        ctx: Any, table: Tensor, weight: Tensor, graph: TokenGraph, *lins: Tensor
    ) -> Tensor:
        slots = table.view(weight.numel(), -1, table.size(1))
        sizes = [group.num_slots for group in graph.groups]
        first = slots * weight.view(-1, 1, 1)
        high: list[Tensor] = []
        if lins:
            high = list(map(project_slots, slots.split(sizes), lins[::2], lins[1::2]))

        out = graph.all.gather(torch.addcmul(first, first, first, value=-0.5))
        for group, rows in zip(graph.groups, first.split(sizes)):
            part = group.gather(rows)
            out.addcmul_(part, part, value=0.5)
            del part  # Holds only one at a time.
        for group, rows in zip(graph.groups, high):
            out.add_(group.gather(rows).relu_())
        ctx.graph, ctx.sizes, ctx.num_high = graph, sizes, len(high)
        ctx.save_for_backward(slots, weight, first, *high, *lins[::2])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slots, weight, first, *rest = ctx.saved_tensors
        high, lins = rest[: ctx.num_high], rest[ctx.num_high :]
        groups, sizes, grad = ctx.graph.groups, ctx.sizes, grad.contiguous()

        base = ctx.graph.all.scatter(grad).view_as(slots)
        parts = [
            group.scatter(group.gather(rows).mul_(grad))
            for group, rows in zip(groups, first.split(sizes))
        ]
        grad_first = torch.cat(parts).view_as(slots).add_(base).addcmul_(base, first, value=-1)
        grad_weight = (slots * grad_first).sum(dim=(1, 2))
        grad_slots = grad_first.mul_(weight.view(-1, 1, 1))

        grad_lins: list[Tensor] = []
        tables = zip(groups, high, lins, slots.split(sizes), grad_slots.split(sizes))
        for group, rows, lin, source, target in tables:
            part = group.gather(rows)
            torch.ops.aten.threshold_backward.grad_input(grad, part, 0, grad_input=part)
            upstream = group.scatter(part).view_as(source)
            del part  # Frees it before the next one is computed.
            target.baddbmm_(upstream, _by_slot(lin, source).transpose(1, 2))
            grad_lin = torch.bmm(upstream.transpose(1, 2), source)  # [T, d_out, d_in]
            # An item has one token per slot, so the first slot already has the whole sum.
            grad_lins += [grad_lin.transpose(0, 1).reshape(lin.shape), upstream[0].sum(dim=0)]
        return grad_slots.flatten(0, 1), grad_weight, None, *grad_lins
