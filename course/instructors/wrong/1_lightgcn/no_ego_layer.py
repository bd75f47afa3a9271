# Mistake: the average starts at layer 1
# Message: lacks layer 0
r"""Assignment 1: message passing for LightGCN."""

import torch
from torch import Tensor


def normalize(edge_index: Tensor, num_users: int, num_items: int) -> Tensor:
    r"""Weight of every edge, symmetrically normalized."""
    user, item = edge_index
    d_user = torch.bincount(user, minlength=num_users)
    d_item = torch.bincount(item, minlength=num_items)
    # In double precision: the type of the vectors is not known here.
    return (d_user[user] * d_item[item]).double().rsqrt()


def propagate(
    x_user: Tensor, x_item: Tensor, edge_index: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    r"""One layer: new vectors of users and items."""
    user, item = edge_index
    weight = weight.to(x_user.dtype).view(-1, 1)
    new_user = torch.zeros_like(x_user).index_add_(0, user, weight * x_item[item])
    new_item = torch.zeros_like(x_item).index_add_(0, item, weight * x_user[user])
    return new_user, new_item


def light_gcn(
    x_user: Tensor, x_item: Tensor, edge_index: Tensor, num_layers: int
) -> tuple[Tensor, Tensor]:
    r"""The average of the input and of all layers."""
    weight = normalize(edge_index, x_user.size(0), x_item.size(0))
    sum_user, sum_item = torch.zeros_like(x_user), torch.zeros_like(x_item)
    for _ in range(num_layers):
        x_user, x_item = propagate(x_user, x_item, edge_index, weight)
        sum_user, sum_item = sum_user + x_user, sum_item + x_item
    return sum_user / max(num_layers, 1), sum_item / max(num_layers, 1)


def score(user: Tensor, item: Tensor, index: Tensor) -> Tensor:
    r"""Inner products of some users with all items."""
    return user[index] @ item.t()
