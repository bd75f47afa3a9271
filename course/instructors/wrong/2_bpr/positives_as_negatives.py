# Mistake: rejects only the positive item of the edge itself
# Message: other positive items of the same user
r"""Assignment 2: negative sampling and ranking metrics."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_negatives(edge_index: Tensor, num_items: int, generator: torch.Generator) -> Tensor:
    r"""One negative item for every edge."""
    user, item = edge_index
    out = torch.randint(num_items, user.shape, generator=generator)
    bad = out == item
    while bad.any():
        out[bad] = torch.randint(num_items, (int(bad.sum()),), generator=generator)
        bad = out == item
    return out


def bpr_loss(pos: Tensor, neg: Tensor) -> Tensor:
    r"""The loss of pairs of scores."""
    return -F.logsigmoid(pos - neg).mean()


def top_k(score: Tensor, train: Tensor, k: int) -> Tensor:
    r"""The best items of every user, without the training items of the user."""
    score = score.clone()
    score[train[0], train[1]] = -math.inf
    return score.topk(k, dim=1).indices


def recall(ranked: list[int], held_out: list[int]) -> float:
    r"""Share of the held-out items that the list contains."""
    found = len(set(ranked) & set(held_out))
    return found / len(held_out)


def ndcg(ranked: list[int], held_out: list[int]) -> float:
    r"""Discounted gain of the list, divided by the best possible one."""
    gain = [1 / math.log2(rank + 1) for rank in range(1, len(ranked) + 1)]
    found = sum(g for g, item in zip(gain, ranked) if item in held_out)
    best = sum(gain[: min(len(ranked), len(held_out))])
    return found / best


def evaluate(score: Tensor, train: Tensor, held_out: Tensor, k: int) -> dict[str, float]:
    r"""Means of both metrics over users with held-out items."""
    ranked = top_k(score, train, k).tolist()
    items: dict[int, list[int]] = {}
    for user, item in held_out.t().tolist():
        items.setdefault(user, []).append(item)
    users = sorted(items)
    return {
        'recall': sum(recall(ranked[user], items[user]) for user in users) / len(users),
        'ndcg': sum(ndcg(ranked[user], items[user]) for user in users) / len(users),
    }


def draw(edge_index: Tensor, num_items: int, seed: int) -> Tensor:
    r"""What the grader calls."""
    return sample_negatives(edge_index, num_items, torch.Generator().manual_seed(seed))
