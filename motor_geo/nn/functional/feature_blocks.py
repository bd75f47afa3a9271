r"""Linear maps of the features of several modalities. Each has a plain form and
a kernel that reads wide features only once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.functional.dct import cosine_transform
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.nn.functional.rows import project


@has_kernel
def concat_linear(xs: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    r"""An affine map of concatenated features,
    :math:`\mathbf{W} \, \Vert_m \mathbf{x}_m + \mathbf{b}`.

    Shapes:
        - **input:** features :math:`(N, F_m)` each, weight
          :math:`(d, \sum_m F_m)`, bias :math:`(d)`
        - **output:** vectors :math:`(N, d)`
    """
    return F.linear(torch.cat([x.to(weight.dtype) for x in xs], dim=-1), weight, bias)


@concat_linear.kernel
def _(xs: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    # One product per modality: concatenating all features would copy them.
    out = bias
    for x, part in zip(xs, weight.split([x.size(1) for x in xs], dim=1)):
        out = out + project(x, part)
    return out


@has_kernel
def linear_twice(
    x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    r"""Two consecutive affine maps, :math:`\mathbf{W}_2 (\mathbf{W}_1 \mathbf{x} +
    \mathbf{b}_1) + \mathbf{b}_2`.

    Shapes:
        - **input:** features :math:`(N, F)`, weights :math:`(h, F)` and
          :math:`(d, h)`, biases :math:`(h)` and :math:`(d)`
        - **output:** vectors :math:`(N, d)`
    """
    return F.linear(F.linear(x.to(weight1.dtype), weight1, bias1), weight2, bias2)


@linear_twice.kernel
def _(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    # Merge both maps into one, since its weight is small.
    return project(x, weight2 @ weight1, F.linear(bias1, weight2, bias2))


@has_kernel
def products(x: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    r"""Products :math:`\mathbf{X} \mathbf{M}_k` of the same features with several
    matrices.

    Shapes:
        - **input:** features :math:`(N, F)`, matrices :math:`(F, d_k)`
        - **output:** vectors :math:`(N, d_k)` each
    """
    return [x.to(matrix.dtype) @ matrix for matrix in matrices]


@products.kernel
def _(x: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    out = project(x, torch.cat(list(matrices), dim=1).t())
    return list(out.split([matrix.size(1) for matrix in matrices], dim=1))


@has_kernel
def block_linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    r"""Concatenated affine maps, each applied to its own block of columns,
    :math:`\Vert_k \mathbf{W}_k \mathbf{x}_k + \mathbf{b}_k`.

    Shapes:
        - **input:** blocks :math:`(N, \sum_k F_k)`, weights
          :math:`(d_k, F_k)`, biases :math:`(d_k)`
        - **output:** blocks :math:`(N, \sum_k d_k)`
    """
    blocks = x.split([weight.size(1) for weight in weights], dim=-1)
    return torch.cat([F.linear(*block) for block in zip(blocks, weights, biases)], dim=-1)


@block_linear.kernel
def _(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    # One block-diagonal map.
    return F.linear(x, torch.block_diag(*weights), torch.cat(list(biases)))


@has_kernel
def spectral_blocks(
    xs: Sequence[Tensor], weights: Sequence[Tensor], shared: Tensor, across_rows: bool = False
) -> list[Tensor]:
    r"""A linear map of the features of every modality, and a shared linear map of
    the concatenated cosine transforms,

    .. math::
        \mathbf{W}_m \mathbf{x}_m, \qquad
        \mathbf{W} \, \Vert_m \, \textrm{DCT}(\mathbf{x}_m) .

    Args:
        xs: Features, without a gradient.
        weights: Weight of every modality.
        shared: Weight of the concatenated transforms.
        across_rows: If set to :obj:`True`, the transform is two-dimensional,
            along rows and columns.

    Shapes:
        - **input:** features :math:`(N, F_m)`, weights :math:`(d, F_m)`,
          shared weight :math:`(d, \sum_m F_m)`
        - **output:** vectors :math:`(N, d)` per modality, followed by those of
          the shared map
    """
    spectrum = torch.cat([cosine_transform(x.to(shared.dtype)) for x in xs], dim=1)
    if across_rows:
        spectrum = cosine_transform(spectrum.t()).t()
    own = [F.linear(x.to(weight.dtype), weight) for x, weight in zip(xs, weights)]
    return [*own, F.linear(spectrum, shared)]


@spectral_blocks.kernel
def _(
    xs: Sequence[Tensor], weights: Sequence[Tensor], shared: Tensor, across_rows: bool = False
) -> list[Tensor]:
    # The inverse transform is the transpose, so the kernel transforms the weights instead of the
    # features and reads the features only once.
    own, out = [], []
    parts = shared.split([x.size(1) for x in xs], dim=1)
    for x, weight, part in zip(xs, weights, parts):
        both = project(x, torch.cat([weight, cosine_transform(part, inverse=True)]))
        first, second = both.split([weight.size(0), shared.size(0)], dim=1)
        own.append(first)
        out.append(second)
    total = sum(out[1:], out[0])
    return [*own, cosine_transform(total.t()).t() if across_rows else total]
