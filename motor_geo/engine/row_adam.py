r"""Adam for tables of which a step reads only the rows of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

#: Filling a row on its own takes as long as filling this number of consecutive rows, or longer.
SCATTERED = 8


class RowAdam(torch.optim.Adam):
    r"""Adam that also takes the sparse gradients of
    :func:`~motor_geo.nn.functional.rows.row_gradients`.

    By default, it computes what :class:`torch.optim.Adam` computes from dense
    gradients, but fills and clears only the rows of a batch in a gradient that it
    keeps.

    Args:
        params: Parameters to optimize.
        lr: Learning rate.
        weight_decay: Coupled weight decay.
        lazy: If set to :obj:`True`, updates only rows with a gradient and their
            moments, as in :class:`torch.optim.SparseAdam`. Weight decay applies
            to these rows. Parameters with a dense gradient are updated as
            before.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        lazy: bool = False,
    ):
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=True)
        self.lazy = lazy
        #: Gradients of tables, with the rows that are not zero.
        self._grads: dict[Tensor, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        r"""Performs one step."""
        for group in self.param_groups:
            for table in group['params']:
                if table.grad is None or not table.grad.is_sparse:
                    continue
                index, grad = table.grad._indices()[0], table.grad._values()
                if self.lazy:
                    self._update(group, table, index, grad)
                    table.grad = None
                else:
                    table.grad = self._dense(table, index, grad)
        super().step()

    def _dense(self, table: Tensor, index: Tensor, grad: Tensor) -> Tensor:
        out, last = self._grads.get(table, (None, index))
        if out is None:
            out = torch.zeros_like(table)
        elif SCATTERED * last.numel() < table.size(0):
            out.index_fill_(0, last, 0)
        else:
            out.zero_()
        self._grads[table] = out, index
        return out.index_add_(0, index, grad)

    def _update(self, group: dict[str, Any], table: Tensor, index: Tensor, grad: Tensor) -> None:
        index, inverse = index.unique(return_inverse=True)
        grad = grad.new_zeros(index.numel(), grad.size(1)).index_add_(0, inverse, grad)
        if group['weight_decay'] != 0:
            grad.add_(table.index_select(0, index), alpha=group['weight_decay'])
        state = self.state[table]
        if not state:
            state['step'] = torch.zeros((), device=table.device)
            state['exp_avg'], state['exp_avg_sq'] = torch.zeros_like(table), torch.zeros_like(table)
        state['step'] += 1
        (beta1, beta2), step = group['betas'], float(state['step'])
        mean = state['exp_avg'].index_select(0, index).lerp_(grad, 1 - beta1)
        square = state['exp_avg_sq'].index_select(0, index).mul_(beta2)
        square.addcmul_(grad, grad, value=1 - beta2)
        state['exp_avg'].index_copy_(0, index, mean)
        state['exp_avg_sq'].index_copy_(0, index, square)
        scale = group['lr'] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        table.index_add_(0, index, mean.div_(square.sqrt_().add_(group['eps'])), alpha=-scale)
