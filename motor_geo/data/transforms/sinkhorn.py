r"""Clusters of about equal size with entropic optimal transport."""

from __future__ import annotations

import torch
from torch import Tensor

from motor_geo.data.transforms.quantizer import nearest

#: Smallest factor of a transport plan. Its inverse is the largest one.
TINY = 1e-150
#: Maximum number of entries of a transport plan. If there are too many rows, it uses evenly
#: spaced ones.
ENTRIES = 2**23


def sinkhorn(
    cost: Tensor, epsilon: float, num_iters: int = 100, tolerance: float = 1e-3
) -> tuple[Tensor, Tensor]:
    r"""Computes the potentials from the `"Sinkhorn Distances: Lightspeed
    Computation of Optimal Transport" <https://arxiv.org/abs/1306.0895>`_ paper.
    They define the transport plan

    .. math::
        P_{ik} = \exp \left( \frac{f_i + g_k - C_{ik}}{\varepsilon} \right)

    that minimizes the entropy-regularized cost with row sums :math:`1 / n` and
    column sums :math:`1 / K`. Column sums are exact, and row sums are exact
    after convergence.

    Args:
        cost: Costs :math:`\mathbf{C}`.
        epsilon: Weight :math:`\varepsilon` of the entropy.
        num_iters: Maximum number of iterations.
        tolerance: Iterations end once the total absolute error of the row sums
            is below this value.

    Shapes:
        - **input:** costs :math:`(n, K)`
        - **output:** potentials :math:`(n)` and :math:`(K)`
    """
    num_rows, num_columns = cost.shape
    row = cost.min(dim=1, keepdim=True).values
    kernel = cost - row
    column = kernel.min(dim=0).values
    # Every row and every column has an entry of one, so no sum is zero.
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
    r"""Computes the offsets to subtract from the squared distances to centroids
    so that rows spread evenly over their nearest centroids. They are the
    potential :math:`\mathbf{g}` of :func:`sinkhorn` and define the cells of a
    power diagram. The offsets become part of the codebook and also apply to
    other rows.

    Args:
        z: The rows.
        centroid: The centroids.
        balance: Weight of the entropy as a share of the mean squared distance.

    Shapes:
        - **input:** rows :math:`(n, c)`, centroids :math:`(K, c)`
        - **output:** offsets :math:`(K)` with mean zero
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
    r"""Runs the last iterations of k-means with assignments of about equal
    size.

    Args:
        z: The rows.
        centroid: Initial centroids. A centroid without assigned rows does not
            move.
        balance: As in :func:`balancing_offset`.
        num_iters: Number of iterations.

    Shapes:
        - **input:** rows :math:`(n, c)`, centroids :math:`(K, c)`
        - **output:** centroids :math:`(K, c)` and their offsets :math:`(K)`,
          computed for the centroids as rounded to single precision
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
    r"""Finds the nearest centroid of every row, block by block.

    Args:
        z: Rows, **[n, c]**.
        centroid: Centroids, **[K, c]**.
        offset: Offsets to subtract from the squared distances, **[K]**.
            (default: none)

    Returns:
        Indices of centroids, **[n]**.
    """
    step = max(1, ENTRIES // centroid.size(0))
    offset = None if offset is None else offset.double()
    parts = [nearest(block.double(), centroid.double(), offset) for block in z.split(step)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def balanced_kmeans(z: Tensor, num_clusters: int, seed: int = 0, num_iters: int = 4) -> Tensor:
    r"""Clusters rows into clusters of about equal size.

    Args:
        z: The rows.
        num_clusters: Maximum number of clusters; there is at most one per row.
        seed: Seed of the draw of rows as initial centroids.
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
