r"""Leading singular vectors of large sparse matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BLOCK = 2**18  # Number of rows to multiply at once.
NUM_ITERS = 8


def randomized_svd(
    matrix: csr_array, channels: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    r"""Computes the leading singular values and right singular vectors by
    subspace iteration from a random start, as in `"Finding Structure with
    Randomness" <https://arxiv.org/abs/0909.4061>`_.

    .. math::
        \mathbf{Q} \leftarrow \mathrm{qr} \left( \mathbf{A}^{\top} \mathbf{A}
        \mathbf{Q} \right), \qquad \mathbf{Q}^{\top} \mathbf{A}^{\top}
        \mathbf{A} \mathbf{Q} = \mathbf{W} \mathbf{S}^2 \mathbf{W}^{\top},
        \qquad \mathbf{V} = \mathbf{Q} \mathbf{W}

    The subspace has half as many additional columns. Takes memory for a few
    matrices of the size of :math:`\mathbf{V}`, and reads the rows of the matrix
    in blocks. The last vectors may mix with those that follow, which have
    about the same singular value.

    Args:
        matrix: The matrix :math:`\mathbf{A}`, **[M, N]**, in double precision.
        channels: Number of singular vectors.
        seed: Seed of the start.

    Returns:
        The singular values in descending order, **[C]**, and the right singular
        vectors as rows, **[C, N]**.
    """
    width = min(channels + max(channels // 2, 10), *matrix.shape)

    def gram(q: np.ndarray) -> np.ndarray:
        out = np.zeros_like(q)
        for start in range(0, matrix.shape[0], BLOCK):
            rows = matrix[start : start + BLOCK]
            out += rows.T @ (rows @ q)
        return out

    q = np.random.default_rng(seed).standard_normal((matrix.shape[1], width))
    for _ in range(NUM_ITERS):
        q = np.linalg.qr(gram(q))[0]
    square, vector = np.linalg.eigh(q.T @ gram(q))
    value = np.sqrt(square.clip(min=0))[::-1][:channels]
    return value, (q @ vector[:, ::-1][:, :channels]).T
