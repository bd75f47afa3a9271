# Mistake: a slot takes every T-th feature
# Message: every T-th feature
r"""Assignment 3: product quantization."""

import torch
from torch import Tensor


def split(x: Tensor, num_slots: int) -> Tensor:
    r"""The slots of every vector."""
    return x.reshape(x.size(0), -1, num_slots).transpose(1, 2)


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    r"""Index of the nearest centroid of every row."""
    return (x.unsqueeze(1) - centroids).square().sum(dim=-1).argmin(dim=1)


def kmeans(x: Tensor, centroids: Tensor, num_steps: int) -> Tensor:
    r"""Centroids after some steps of Lloyd's algorithm."""
    for _ in range(num_steps):
        index = nearest(x, centroids)
        total = torch.zeros_like(centroids).index_add_(0, index, x)
        count = torch.bincount(index, minlength=centroids.size(0)).view(-1, 1)
        centroids = torch.where(count > 0, total / count.clamp(min=1), centroids)
    return centroids


def fit(x: Tensor, num_slots: int, num_centroids: int, num_steps: int) -> tuple[Tensor, Tensor]:
    r"""The mean of all vectors, and the codebook of every slot."""
    mean = x.mean(dim=0)
    slots = split(x - mean, num_slots).unbind(dim=1)
    books = [kmeans(slot, slot[:num_centroids], num_steps) for slot in slots]
    return mean, torch.stack(books)


def encode(x: Tensor, mean: Tensor, centroids: Tensor) -> Tensor:
    r"""The tokens of vectors."""
    slots = split(x - mean, centroids.size(0)).unbind(dim=1)
    return torch.stack([nearest(slot, book) for slot, book in zip(slots, centroids)], dim=1)


def decode(token_id: Tensor, mean: Tensor, centroids: Tensor) -> Tensor:
    r"""The vectors that tokens stand for."""
    slot = torch.arange(centroids.size(0))
    return mean + centroids[slot, token_id].transpose(1, 2).flatten(1)


def error(x: Tensor, decoded: Tensor) -> float:
    r"""The share of the variance of vectors that is lost."""
    lost = (x - decoded).square().sum()
    return float(lost / (x - x.mean(dim=0)).square().sum())


def rotation(x: Tensor, y: Tensor) -> Tensor:
    r"""The orthogonal matrix that turns the rows of :obj:`x` into those of :obj:`y` best."""
    u, _, vt = torch.linalg.svd(x.t() @ y)
    return u @ vt
