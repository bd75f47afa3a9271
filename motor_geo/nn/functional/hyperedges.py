r"""Memberships of nodes in hyperedges, and the contrastive loss between
hypergraphs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.functional.contrast import log_sum_exp, row_log_sum_exp
from motor_geo.nn.functional.distinct import Distinct
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.parallel.user_index import UserIndex

#: Threshold below which memberships are set to zero.
TINY = 1e-20


@has_kernel
def shares(logits: Tensor) -> Tensor:
    r"""Memberships from logits: a softmax over few columns that sets values below
    :obj:`1e-20` to zero, since products with subnormal numbers are slow.

    Shapes:
        - **input:** logits :math:`(N, K)`
        - **output:** memberships :math:`(N, K)`
    """
    return F.threshold(logits.softmax(dim=-1), TINY, 0.0)


@shares.kernel
def _(logits: Tensor) -> Tensor:
    # A softmax over few columns is slow, a softmax over few rows is fast.
    return F.threshold(logits.t().contiguous().softmax(dim=0).t(), TINY, 0.0)


@has_kernel
def contrast_all(
    anchor: Tensor, share: Tensor, lat: Tensor, nodes: Distinct, temperature: float
) -> Tensor:
    r"""Contrastive loss of the nodes of a batch against all nodes, summed over
    the batch, with cosine similarity,

    .. math::
        - \sum_{b} \log \frac{\exp(\cos(\mathbf{a}_b, \mathbf{p}_b) / \tau)}
        {\sum_{k=1}^{n} \exp(\cos(\mathbf{a}_b, \mathbf{p}_k) / \tau)}, \qquad
        \mathbf{P} = \mathbf{G} \mathbf{L} .

    Args:
        anchor: Anchors, one per distinct node of the batch.
        share: Memberships :math:`\mathbf{G}` of all nodes in hyperedges.
        lat: Vectors :math:`\mathbf{L}` of hyperedges.
        nodes: The nodes of the batch.
        temperature: Temperature :math:`\tau`.

    Shapes:
        - **input:** anchors :math:`(D, d)`, memberships :math:`(n, K_h)`,
          vectors of hyperedges :math:`(K_h, d)`
        - **output:** a scalar
    """
    positive = F.normalize(share @ lat, dim=-1)
    similarity = F.normalize(anchor, dim=-1) @ positive.t() / temperature
    own = similarity.gather(1, nodes.node.view(-1, 1)).view(-1)
    return ((similarity.logsumexp(dim=1) - own) * nodes.times).sum()


@contrast_all.kernel
def _(anchor: Tensor, share: Tensor, lat: Tensor, nodes: Distinct, temperature: float) -> Tensor:
    anchor = F.normalize(anchor, dim=-1) / temperature
    vectors = share @ lat
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(1e-12)
    if lat.size(0) < lat.size(1):  # Fewer hyperedges than channels: a^T (L^T g) = (L a)^T g.
        anchor, vectors = anchor @ lat.t(), share
    vectors = vectors / norm
    if isinstance(nodes.node, UserIndex):  # The vectors are those of the users of this process.
        value = nodes.node.shard.log_sum_exp(row_log_sum_exp(anchor, vectors))
        total = nodes.times.to(value.dtype) @ value
    else:
        total = log_sum_exp(anchor, vectors, nodes.times, bound=1 / temperature)
    own = (anchor * vectors.index_select(0, nodes.node)).sum(dim=-1)
    return total - own @ nodes.times.to(own.dtype)
