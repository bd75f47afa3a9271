r"""Public tests of assignment 1, on a graph that you can draw."""

import torch

from course.grading import check
from course.grading.check import points

# User 0 has the items 0 and 1, user 1 has the item 1. Item 2 has no edge.
EDGES = torch.tensor([[0, 0, 1], [0, 1, 1]])
X_USER = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
X_ITEM = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
WEIGHT = torch.tensor([0.5, 1.0, 2.0])


@points(2)
def test_normalize(student):
    r"""normalize: three edges."""
    expected = torch.tensor([0.5**0.5, 0.5, 0.5**0.5])
    check.close('normalize', student.normalize(EDGES, 2, 3), expected, 'Work it out by hand.')


@points(2)
def test_propagate(student):
    r"""propagate: three edges with given weights."""
    user, item = check.pair('propagate', student.propagate(X_USER, X_ITEM, EDGES, WEIGHT))
    expected = torch.tensor([[3.5, 5.0], [6.0, 8.0]])
    check.close('propagate', user, expected, 'Look at the users.')
    expected = torch.tensor([[0.5, 0.0], [1.0, 2.0], [0.0, 0.0]])
    check.close('propagate', item, expected, 'Look at the items. Item 2 has no edge.')


@points(2)
def test_light_gcn_without_layers(student):
    r"""light_gcn: without layers, the output is the input."""
    user, item = check.pair('light_gcn', student.light_gcn(X_USER, X_ITEM, EDGES, 0))
    hint = 'With zero layers, the average has one term. Which one?'
    check.close('light_gcn', user, X_USER, hint)
    check.close('light_gcn', item, X_ITEM, hint)


@points(2)
def test_score(student):
    r"""score: two users."""
    out = student.score(X_USER, X_ITEM, torch.tensor([1, 0]))
    expected = torch.tensor([[2.0, 4.0, 6.0], [1.0, 3.0, 5.0]])
    check.close('score', out, expected, 'Row 0 belongs to user 1 here.')
