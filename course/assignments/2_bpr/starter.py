r"""Assignment 2: negative sampling and ranking metrics."""

import torch
from torch import Tensor


def sample_negatives(edge_index: Tensor, num_items: int, generator: torch.Generator) -> Tensor:
    r"""One negative item for every edge.

    Shapes:
        - **input:** edge index :math:`(2, E)`
        - **output:** items :math:`(E)`
    """
    raise NotImplementedError


def bpr_loss(pos: Tensor, neg: Tensor) -> Tensor:
    r"""The loss of pairs of scores.

    Shapes:
        - **input:** scores of positive and of negative items :math:`(E)`
        - **output:** a scalar
    """
    raise NotImplementedError


def top_k(score: Tensor, train: Tensor, k: int) -> Tensor:
    r"""The best items of every user, without the training items of the user.

    Shapes:
        - **input:** scores :math:`(M, N)`, training edges :math:`(2, E)`
        - **output:** items :math:`(M, k)`
    """
    raise NotImplementedError


def recall(ranked: list[int], held_out: list[int]) -> float:
    r"""Share of the held-out items that the list contains."""
    raise NotImplementedError


def ndcg(ranked: list[int], held_out: list[int]) -> float:
    r"""Discounted gain of the list, divided by the best possible one."""
    raise NotImplementedError


def evaluate(score: Tensor, train: Tensor, held_out: Tensor, k: int) -> dict[str, float]:
    r"""Means of both metrics over users with held-out items.

    Shapes:
        - **input:** scores :math:`(M, N)`, training edges :math:`(2, E)`, held-out edges
          :math:`(2, F)`
    """
    raise NotImplementedError


# The grader calls this, because a generator cannot be sent to the process of your program.
def draw(edge_index: Tensor, num_items: int, seed: int) -> Tensor:
    return sample_negatives(edge_index, num_items, torch.Generator().manual_seed(seed))


if __name__ == '__main__':
    print(recall([4, 2, 7], held_out=[2, 5]), ndcg([4, 2, 7], held_out=[2, 5]))
