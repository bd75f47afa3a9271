r"""Public tests of assignment 4: two slots, two tokens, embeddings of size two."""

import torch

from course.grading import check
from course.grading.check import points

TABLE = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [-1.0, 1.0]]])
TOKENS = torch.tensor([[0, 0], [0, 1], [1, 0]])
E = torch.tensor([[[2.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [-1.0, 1.0]], [[0.0, 2.0], [1.0, 1.0]]])
W = torch.tensor([0.5, 3.0])


@points(2)
def test_look_up(student):
    r"""look_up: three items."""
    hint = 'The token of a slot selects a row of the table of this slot.'
    check.close('look_up', student.look_up(TABLE, TOKENS), E, hint)


@points(1)
def test_first_order(student):
    r"""first_order: three items."""
    expected = torch.tensor([[4.0, 3.0], [-2.0, 3.0], [3.0, 4.0]])
    check.close('first_order', student.first_order(E, W), expected, 'Work it out by hand.')


@points(2)
def test_second_order_loop(student):
    r"""second_order_loop: three items."""
    expected = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0]])
    out = student.second_order_loop(E, W)
    check.close('second_order_loop', out, expected, 'Two slots have a single pair.')


@points(2)
def test_second_order(student):
    r"""second_order: three items."""
    expected = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0]])
    hint = 'It must equal the value of the loop.'
    check.close('second_order', student.second_order(E, W), expected, hint)


@points(2)
def test_high_order(student):
    r"""high_order: one number per slot and feature."""
    weight = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -1.0]])
    expected = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    out = student.high_order(E, weight, torch.zeros(2))
    check.close('high_order', out, expected, 'The first two columns belong to slot 1.')


@points(1)
def test_count_parameters(student):
    r"""count_parameters: two slots."""
    expected = 2 * 2 * 3 + 2 + 3 * 6 + 3
    out = student.count_parameters(5, 2, 2, 3)
    check.close('count_parameters', out, expected, 'Tables, weights, affine map with its bias.')
