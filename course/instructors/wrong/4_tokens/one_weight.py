# Mistake: a pair has the weight of one slot only
# Message: Both slots of a pair bring their weight
r"""Assignment 4: the token network."""

import torch
from torch import Tensor


def look_up(table: Tensor, token_id: Tensor) -> Tensor:
    r"""The embeddings of the tokens of all items."""
    return table[torch.arange(table.size(0)), token_id]


def first_order(e: Tensor, w: Tensor) -> Tensor:
    r"""The weighted sum of embeddings."""
    return torch.einsum('ntd,t->nd', e, w)


def second_order_loop(e: Tensor, w: Tensor) -> Tensor:
    r"""Products of pairs of slots, with two loops."""
    out = torch.zeros_like(e[:, 0])
    for s in range(e.size(1)):
        for t in range(s + 1, e.size(1)):
            out = out + w[s] * e[:, s] * e[:, t]
    return out


def second_order(e: Tensor, w: Tensor) -> Tensor:
    r"""Products of pairs of slots, without loops."""
    x = w.view(-1, 1) * e
    return (x.sum(dim=1).square() - x.square().sum(dim=1)) / 2


def high_order(e: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""An affine map of the concatenation, and a ReLU."""
    return torch.relu(e.flatten(1) @ weight.t() + bias)


def count_parameters(num_items: int, num_tokens: int, codebook_size: int, channels: int) -> int:
    r"""The number of trainable numbers of the item side."""
    tables = num_tokens * codebook_size * channels
    affine = channels * num_tokens * channels + channels
    return tables + num_tokens + affine


def encode(table: Tensor, token_id: Tensor, w: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""The vectors of all items."""
    e = look_up(table, token_id)
    return first_order(e, w) + second_order(e, w) + high_order(e, weight, bias)


def gradients(
    table: Tensor, token_id: Tensor, w: Tensor, weight: Tensor, bias: Tensor
) -> list[Tensor]:
    r"""What the grader calls."""
    inputs = [x.clone().requires_grad_() for x in (table, w, weight, bias)]
    out = encode(inputs[0], token_id, *inputs[1:])
    return list(torch.autograd.grad(out.square().sum(), inputs))
