r"""Assignment 4: the token network."""

import torch
from torch import Tensor


def look_up(table: Tensor, token_id: Tensor) -> Tensor:
    r"""The embeddings of the tokens of all items.

    Shapes:
        - **input:** tables :math:`(T, K, d)`, tokens :math:`(N, T)`
        - **output:** :math:`(N, T, d)`
    """
    raise NotImplementedError


def first_order(e: Tensor, w: Tensor) -> Tensor:
    r"""The weighted sum of embeddings.

    Shapes:
        - **input:** embeddings :math:`(N, T, d)`, weights :math:`(T)`
        - **output:** :math:`(N, d)`
    """
    raise NotImplementedError


def second_order_loop(e: Tensor, w: Tensor) -> Tensor:
    r"""Products of pairs of slots, with two loops."""
    raise NotImplementedError


def second_order(e: Tensor, w: Tensor) -> Tensor:
    r"""Products of pairs of slots, without loops."""
    raise NotImplementedError


def high_order(e: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""An affine map of the concatenation, and a ReLU.

    Shapes:
        - **input:** embeddings :math:`(N, T, d)`, weight :math:`(d, T d)`, bias :math:`(d)`
        - **output:** :math:`(N, d)`
    """
    raise NotImplementedError


def count_parameters(num_items: int, num_tokens: int, codebook_size: int, channels: int) -> int:
    r"""The number of trainable numbers of the item side."""
    raise NotImplementedError


def encode(table: Tensor, token_id: Tensor, w: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""The vectors of all items. You need not change this."""
    e = look_up(table, token_id)
    return first_order(e, w) + second_order(e, w) + high_order(e, weight, bias)


# The grader calls this, because gradients do not leave the process of your program.
def gradients(
    table: Tensor, token_id: Tensor, w: Tensor, weight: Tensor, bias: Tensor
) -> list[Tensor]:
    inputs = [x.clone().requires_grad_() for x in (table, w, weight, bias)]
    out = encode(inputs[0], token_id, *inputs[1:])
    return list(torch.autograd.grad(out.square().sum(), inputs))


if __name__ == '__main__':
    table = torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(0))
    e = look_up(table, torch.tensor([[0, 7, 3, 3], [0, 7, 1, 2]]))
    w = torch.full((4,), 1 / 4)
    print(second_order(e, w) - second_order_loop(e, w))
