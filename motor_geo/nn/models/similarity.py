from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.distinct import Distinct
from motor_geo.nn.models.item_features import ItemFeatures


@torch.no_grad()
def feature_cosine(
    data: HeteroData, features: ItemFeatures, index: Tensor, dtype: torch.dtype
) -> Tensor:
    r"""Cosine similarities of the given features of some items, the mean over
    modalities; never those of trained features.

    Shapes:
        - **input:** item indices :math:`(D)`
        - **output:** similarities :math:`(D, D)`
    """
    out = torch.zeros(index.numel(), index.numel(), dtype=dtype, device=index.device)
    for name in features.names:
        x = F.normalize(features.given(data, name).index_select(0, index).to(dtype), eps=1e-8)
        out.addmm_(x, x.t(), alpha=1 / len(features))
    return out


@full_precision
def similarity_loss(z: Tensor, cosine: Tensor, times: Tensor) -> Tensor:
    r"""The distance between inner products of item vectors and similarities
    that they are to keep, from the `"AlignRec: Aligning and Training in
    Multimodal Recommendations" <https://arxiv.org/abs/2403.12384>`_ paper,

    .. math::
        \frac{1}{B} \sqrt{\sum_{i, j} n_i n_j \left( \mathbf{z}_i^{\top}
        \mathbf{z}_j - c_{ij} \right)^2}, \qquad B = \sum_i n_i .

    Args:
        z: Item vectors.
        cosine: Similarities :math:`c_{ij}`.
        times: How often items count, :math:`n_i`.

    Shapes:
        - **input:** item vectors :math:`(D, d)`, similarities :math:`(D, D)`,
          counts :math:`(D)`
        - **output:** a scalar, with a gradient of zero where it is zero
    """
    root = times.to(z.dtype).sqrt().view(-1, 1)
    difference = (z @ z.t() - cosine) * root * root.t()
    return torch.linalg.vector_norm(difference) / times.sum().clamp(min=1)


def feature_similarity_loss(
    data: HeteroData, features: ItemFeatures, z: Tensor, items: Distinct
) -> Tensor:
    r"""The :func:`similarity_loss` of the items of a batch and the cosine
    similarities of their features.

    Shapes:
        - **input:** vectors :math:`(D, d)` of the distinct items
        - **output:** a scalar
    """
    dtype = torch.promote_types(z.dtype, torch.float)
    return similarity_loss(z, feature_cosine(data, features, items.node, dtype), items.times)


@full_precision
def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""One minus the mean inner product of rows of unit length, zero without
    any.

    Shapes:
        - **input:** unit vectors :math:`(B, d)` and :math:`(B, d)`
        - **output:** a scalar
    """
    cosine = (x * y).sum(dim=-1)
    return 1 - cosine.mean() if cosine.numel() > 0 else cosine.sum()


@full_precision
def moment_distance(x: Tensor) -> Tensor:
    r"""The differences between views in the mean and in the variance of all
    their entries, in size and summed over pairs of views.

    Shapes:
        - **input:** views :math:`(B, n, d)`
        - **output:** a scalar
    """
    moments = torch.stack(torch.var_mean(x, dim=(0, 2)))
    return (moments.unsqueeze(1) - moments.unsqueeze(2)).abs().sum() / 2
