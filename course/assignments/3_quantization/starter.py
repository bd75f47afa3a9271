r"""Assignment 3: product quantization."""

import torch
from torch import Tensor


def split(x: Tensor, num_slots: int) -> Tensor:
    r"""The slots of every vector.

    Shapes:
        - **input:** vectors :math:`(N, d)`
        - **output:** :math:`(N, T, d / T)`
    """
    raise NotImplementedError


def kmeans(x: Tensor, centroids: Tensor, num_steps: int) -> Tensor:
    r"""Centroids after some steps of Lloyd's algorithm.

    Shapes:
        - **input:** vectors :math:`(N, c)`, initial centroids :math:`(K, c)`
        - **output:** centroids :math:`(K, c)`
    """
    raise NotImplementedError


def fit(x: Tensor, num_slots: int, num_centroids: int, num_steps: int) -> tuple[Tensor, Tensor]:
    r"""The mean of all vectors, and the codebook of every slot.

    Shapes:
        - **input:** vectors :math:`(N, d)`
        - **output:** mean :math:`(d)`, centroids :math:`(T, K, d / T)`
    """
    raise NotImplementedError


def encode(x: Tensor, mean: Tensor, centroids: Tensor) -> Tensor:
    r"""The tokens of vectors.

    Shapes:
        - **input:** vectors :math:`(N, d)`, mean :math:`(d)`, centroids :math:`(T, K, d / T)`
        - **output:** tokens :math:`(N, T)`
    """
    raise NotImplementedError


def decode(token_id: Tensor, mean: Tensor, centroids: Tensor) -> Tensor:
    r"""The vectors that tokens stand for.

    Shapes:
        - **input:** tokens :math:`(N, T)`, mean :math:`(d)`, centroids :math:`(T, K, d / T)`
        - **output:** vectors :math:`(N, d)`
    """
    raise NotImplementedError


def error(x: Tensor, decoded: Tensor) -> float:
    r"""The share of the variance of vectors that is lost."""
    raise NotImplementedError


def rotation(x: Tensor, y: Tensor) -> Tensor:
    r"""The orthogonal matrix that turns the rows of :obj:`x` into those of :obj:`y` best.

    Shapes:
        - **input:** centered vectors and their reconstructions :math:`(N, d)`
        - **output:** :math:`(d, d)`
    """
    raise NotImplementedError


if __name__ == '__main__':
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    mean, centroids = fit(x, num_slots=2, num_centroids=16, num_steps=10)
    print(error(x, decode(encode(x, mean, centroids), mean, centroids)))
