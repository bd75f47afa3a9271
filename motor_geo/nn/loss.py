r"""Loss terms that several backbones share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def frobenius_reg(*tensors: Tensor) -> Tensor:
    r"""Sum of *unsquared* Frobenius norms, divided by the rows of the last
    argument,

    .. math::
        \frac{1}{n} \sum_k {\| \mathbf{X}_k \|}_F .

    Its gradient is about :math:`\sqrt{n}` times weaker than that of a squared
    penalty with the same weight, so weights do not carry over from one to the
    other.

    Shapes:
        - **input:** matrices :math:`(*, F)`
        - **output:** a scalar
    """
    norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors])
    return norms.sum() / tensors[-1].size(0)


def l2_reg(*tensors: Tensor) -> Tensor:
    r"""Half the sum of squared entries.

    Shapes:
        - **input:** tensors of any shape
        - **output:** a scalar
    """
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum() / 2


def info_nce(anchor: Tensor, positive: Tensor, temperature: float) -> Tensor:
    r"""Contrastive loss over the rows of a batch, by cosine similarity,

    .. math::
        -\frac{1}{B} \sum_b \log \frac{\exp(\cos(\mathbf{a}_b, \mathbf{p}_b) / \tau)}
        {\sum_c \exp(\cos(\mathbf{a}_b, \mathbf{p}_c) / \tau)} ,

    row-wise only; equal rows in the batch are not masked.

    Shapes:
        - **input:** anchors :math:`(B, F)`, positives :math:`(B, F)`
        - **output:** a scalar
    """
    anchor, positive = F.normalize(anchor), F.normalize(positive)
    target = torch.arange(anchor.size(0), device=anchor.device)
    return F.cross_entropy(anchor @ positive.t() / temperature, target)
