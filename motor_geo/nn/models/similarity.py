from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.distinct import Distinct
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.parallel.user_shard import UserShard


@torch.no_grad()
def feature_cosine(
    data: HeteroData, features: ItemFeatures, index: Tensor, dtype: torch.dtype
) -> Tensor:
    r"""Cosine similarities between some items, averaged over modalities. It uses
    the features of the graph, even if the model trains features.

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
    r"""Distance between inner products of item vectors and target similarities,
    from the `"AlignRec: Aligning and Training in Multimodal Recommendations"
    <https://arxiv.org/abs/2403.12384>`_ paper,

    .. math::
        \frac{1}{B} \sqrt{\sum_{i, j} n_i n_j \left( \mathbf{z}_i^{\top}
        \mathbf{z}_j - c_{ij} \right)^2}, \qquad B = \sum_i n_i .

    Args:
        z: Item vectors.
        cosine: Target similarities :math:`c_{ij}`.
        times: Multiplicity :math:`n_i` of every item.

    Shapes:
        - **input:** item vectors :math:`(D, d)`, similarities :math:`(D, D)`,
          counts :math:`(D)`
        - **output:** a scalar, whose gradient is zero if its value is zero
    """
    root = times.to(z.dtype).sqrt().view(-1, 1)
    difference = (z @ z.t() - cosine) * root * root.t()
    return torch.linalg.vector_norm(difference) / times.sum().clamp(min=1)


def feature_similarity_loss(
    data: HeteroData, features: ItemFeatures, z: Tensor, items: Distinct
) -> Tensor:
    r"""The :func:`similarity_loss` between the items of a batch and the cosine
    similarities of their features.

    Args:
        data: The user-item graph with features.
        features: The features of the model.
        z: Vectors of the distinct items.
        items: Distinct items of the batch.

    Shapes:
        - **input:** vectors :math:`(D, d)` of the distinct items
        - **output:** a scalar
    """
    dtype = torch.promote_types(z.dtype, torch.float)
    return similarity_loss(z, feature_cosine(data, features, items.node, dtype), items.times)


@full_precision
def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""One minus the mean inner product of rows of unit length, or zero without
    rows.

    Shapes:
        - **input:** unit vectors :math:`(B, d)` and :math:`(B, d)`
        - **output:** a scalar
    """
    cosine = (x * y).sum(dim=-1)
    return 1 - cosine.mean() if cosine.numel() > 0 else cosine.sum()


@full_precision
def moment_distance(x: Tensor, shard: UserShard | None = None) -> Tensor:
    r"""Absolute differences between views in the mean and in the variance of all
    entries, summed over pairs of views.

    Args:
        x: The views.
        shard: The users that the first rows of the views are of, if other processes
            have the others. All processes have the rows after them.

    Shapes:
        - **input:** views :math:`(B, n, d)`
        - **output:** a scalar
    """
    moments = torch.stack(torch.var_mean(x, dim=(0, 2)) if shard is None else _moments(x, shard))
    return (moments.unsqueeze(1) - moments.unsqueeze(2)).abs().sum() / 2


def _moments(x: Tensor, shard: UserShard) -> tuple[Tensor, Tensor]:
    r"""Variances and means over the users of all processes."""
    count = (shard.num_users + x.size(0) - len(shard)) * x.size(2)

    def total(x: Tensor) -> Tensor:
        user, item = x.tensor_split([len(shard)])
        return shard.total(user.sum(dim=(0, 2))) + item.sum(dim=(0, 2))

    mean = total(x) / count
    return total((x - mean.view(-1, 1)).square()) / (count - 1), mean
