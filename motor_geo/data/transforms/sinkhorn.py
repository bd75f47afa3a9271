r"""Clusters of about equal size, by entropic optimal transport."""

from __future__ import annotations

import torch
from torch import Tensor

from motor_geo.data.transforms.quantizer import nearest

#: Factors of a transport plan lie between this and its inverse.
TINY = 1e-150
#: Entries of a transport plan; of more rows, evenly spaced ones are taken.
ENTRIES = 2**23


def sinkhorn(
    cost: Tensor, epsilon: float, num_iters: int = 100, tolerance: float = 1e-3
) -> tuple[Tensor, Tensor]:
    r"""The potentials of `"Sinkhorn Distances: Lightspeed Computation of
    Optimal Transport" <https://arxiv.org/abs/1306.0895>`_: the transport plan

    .. math::
        P_{ik} = \exp \left( \frac{f_i + g_k - C_{ik}}{\varepsilon} \right)

    of least cost, up to entropy, that has row sums :math:`1 / n` and column
    sums :math:`1 / K`. The columns are exact, the rows after convergence.

    Args:
        cost: Costs :math:`\mathbf{C}`.
        epsilon: Weight :math:`\varepsilon` of the entropy.
        num_iters: Iterations at most.
        tolerance: Sum of the errors of the rows at which iterations end.

    Shapes:
        - **input:** costs :math:`(n, K)`
        - **output:** potentials :math:`(n)` and :math:`(K)`
    """
    num_rows, num_columns = cost.shape
    row = cost.min(dim=1, keepdim=True).values
    kernel = cost - row
    column = kernel.min(dim=0).values
    # Every row and every column has an entry of one, so that no sum is zero.
    kernel = ((column - kernel) / epsilon).exp_()
    left, right = kernel.new_ones(num_rows), kernel.new_ones(num_columns)
    total = kernel @ right
    for _ in range(num_iters):
        left = 1 / (num_rows * total).clamp(TINY, 1 / TINY)
        right = 1 / (num_columns * (left @ kernel)).clamp(TINY, 1 / TINY)
        total = kernel @ right
        if float((left * total - 1 / num_rows).abs().sum()) < tolerance:
            break
    return epsilon * left.log() + row.view(-1), epsilon * right.log() + column


def balancing_offset(z: Tensor, centroid: Tensor, balance: float) -> Tensor:
    r"""What has to be taken off the squared distance of each centroid such that
    the rows :obj:`z` are spread evenly over the nearest ones: the potential
    :math:`\mathbf{g}` of :func:`sinkhorn`, whose cells are those of a power
    diagram. It is a property of the codebook: other rows are assigned by it,
    too.

    Args:
        z: The rows.
        centroid: The centroids.
        balance: Weight of the entropy, as a share of the mean squared distance.

    Shapes:
        - **input:** rows :math:`(n, c)`, centroids :math:`(K, c)`
        - **output:** :math:`(K)`, of mean zero
    """
    limit = max(1, ENTRIES // centroid.size(0))
    if z.size(0) > limit:
        z = z[torch.linspace(0, z.size(0) - 1, limit, dtype=torch.double).long()]
    z, centroid = z.double(), centroid.double()
    cost = z.square().sum(dim=1, keepdim=True) + centroid.square().sum(dim=1)
    cost = cost.addmm_(z, centroid.t(), alpha=-2).clamp_(min=0)
    scale = float(cost.mean())
    if scale == 0:
        return cost.new_zeros(centroid.size(0))
    offset = sinkhorn(cost, balance * scale)[1]
    return offset - offset.mean()


def balanced_codebook(
    z: Tensor, centroid: Tensor, balance: float, num_iters: int = 5
) -> tuple[Tensor, Tensor]:
    r"""The last iterations of k-means with assignments of about equal size.

    Args:
        z: The rows.
        centroid: Centroids to start from; those that no row is assigned to
            stay where they are.
        balance: As in :func:`balancing_offset`.
        num_iters: Number of iterations.

    Shapes:
        - **input:** rows :math:`(n, c)`, centroids :math:`(K, c)`
        - **output:** centroids :math:`(K, c)` and their offsets :math:`(K)`,
          which fit each other in single precision
    """
    z, centroid = z.double(), centroid.double()
    for _ in range(num_iters):
        code = assign_rows(z, centroid, balancing_offset(z, centroid, balance))
        count = code.bincount(minlength=centroid.size(0)).view(-1, 1)
        total = torch.zeros_like(centroid).index_add_(0, code, z)
        centroid = torch.where(count > 0, total / count.clamp(min=1), centroid)
    centroid = centroid.float()
    return centroid, balancing_offset(z, centroid, balance).float()


def assign_rows(z: Tensor, centroid: Tensor, offset: Tensor | None = None) -> Tensor:
    r"""The nearest centroid of every row, block by block, **[n]**."""
    step = max(1, ENTRIES // centroid.size(0))
    offset = None if offset is None else offset.double()
    parts = [nearest(block.double(), centroid.double(), offset) for block in z.split(step)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def balanced_kmeans(z: Tensor, num_clusters: int, seed: int = 0, num_iters: int = 4) -> Tensor:
    r"""Clusters of about equal size.

    Args:
        z: The rows.
        num_clusters: Number of clusters, at most one per row.
        seed: Seed of the rows that are the first centroids.
        num_iters: Number of iterations.

    Shapes:
        - **input:** rows :math:`(n, c)`
        - **output:** the cluster of every row :math:`(n)`
    """
    generator = torch.Generator().manual_seed(seed)
    num_clusters = min(num_clusters, z.size(0))
    start = torch.randperm(z.size(0), generator=generator)[:num_clusters]
    centroid, offset = balanced_codebook(z, z[start], 0.05, num_iters)
    return assign_rows(z, centroid, offset)
