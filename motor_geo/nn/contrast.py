r"""A contrastive loss between two views of all nodes, in bounded memory."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.loss import log_sum_exp
from motor_geo.nn.precision import full_precision


@full_precision
def two_view_contrast(
    z: Tensor, y: Tensor, temperature: float, entries: Optional[int] = None
) -> Tensor:
    r"""Contrastive loss of two views from the `"Deep Graph Contrastive
    Representation Learning" <https://arxiv.org/abs/2006.04131>`_ paper, with
    :math:`c` the cosine similarity divided by the temperature and
    :obj:`z` as the anchor,

    .. math::
        -\frac{1}{N} \sum_i \log \frac{\exp c(\mathbf{z}_i, \mathbf{y}_i)}
        {\sum_{k \neq i} \exp c(\mathbf{z}_i, \mathbf{z}_k) +
        \sum_k \exp c(\mathbf{z}_i, \mathbf{y}_k)} .

    The cost is quadratic in :math:`N`, the memory is not, see
    :func:`~motor_geo.nn.loss.log_sum_exp`.

    Args:
        z: Vectors of the anchor view.
        y: Vectors of the other view.
        temperature: Divisor of similarities.
        entries: Similarities that are held at a time; by default about what a
            cache holds.

    Shapes:
        - **input:** vectors :math:`(N, F)` and :math:`(N, F)`
        - **output:** a scalar
    """
    z, y = F.normalize(z, dim=-1), F.normalize(y, dim=-1)
    anchor, bound = z / temperature, 1 / temperature
    key = torch.cat([z, y])
    total = log_sum_exp(anchor, key, bound=bound, skip_diagonal=True, entries=entries)
    return (total - (anchor * y).sum()) / z.size(0)
