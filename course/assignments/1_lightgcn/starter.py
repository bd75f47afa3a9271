r"""Assignment 1: message passing for LightGCN."""

import torch
from torch import Tensor


def normalize(edge_index: Tensor, num_users: int, num_items: int) -> Tensor:
    r"""Weight of every edge, symmetrically normalized.

    Shapes:
        - **input:** edge index :math:`(2, E)`
        - **output:** weights :math:`(E)`
    """
    raise NotImplementedError


def propagate(
    x_user: Tensor, x_item: Tensor, edge_index: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    r"""One layer: new vectors of users and items.

    Shapes:
        - **input:** users :math:`(M, d)`, items :math:`(N, d)`, edge index :math:`(2, E)`,
          weights :math:`(E)`
        - **output:** users :math:`(M, d)`, items :math:`(N, d)`
    """
    raise NotImplementedError


def light_gcn(
    x_user: Tensor, x_item: Tensor, edge_index: Tensor, num_layers: int
) -> tuple[Tensor, Tensor]:
    r"""The average of the input and of all layers."""
    raise NotImplementedError


def score(user: Tensor, item: Tensor, index: Tensor) -> Tensor:
    r"""Inner products of some users with all items.

    Shapes:
        - **input:** users :math:`(M, d)`, items :math:`(N, d)`, indices of users :math:`(B)`
        - **output:** :math:`(B, N)`
    """
    raise NotImplementedError


if __name__ == '__main__':
    edge_index = torch.tensor([[0, 0, 1], [0, 1, 1]])
    print(normalize(edge_index, num_users=2, num_items=2))
