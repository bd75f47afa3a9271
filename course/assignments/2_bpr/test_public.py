r"""Public tests of assignment 2."""

import math

import torch

from course.grading import check
from course.grading.check import points

# User 0 has all items except 2, user 1 has the item 1.
TRAIN = torch.tensor([[0, 0, 0, 1], [0, 1, 3, 1]])
SCORE = torch.tensor([[9.0, 8.0, -1.0, 7.0], [-3.0, -1.0, -4.0, -2.0]])


@points(2)
def test_negatives(student):
    r"""sample_negatives: a user who lacks a single item."""
    out = check.tensor('sample_negatives', student.draw(TRAIN, 4, 0), [4])
    check.that(bool((out[:3] == 2).all()), 'The only negative item of user 0 is the item 2.')
    check.that(int(out[3]) in (0, 2, 3), 'User 1 has interacted with the item 1.')


@points(1)
def test_loss(student):
    r"""bpr_loss: two pairs."""
    loss = student.bpr_loss(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    expected = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    check.close('bpr_loss', loss, expected, 'Write out both terms.')


@points(2)
def test_top_k(student):
    r"""top_k: without training items."""
    out = check.tensor('top_k', student.top_k(SCORE, TRAIN, 1), [2, 1])
    check.that(int(out[0, 0]) == 2, 'User 0 has interacted with all items except 2.')
    check.that(int(out[1, 0]) == 3, 'Item 1 is a training item of user 1; item 3 is next.')


@points(1)
def test_recall(student):
    r"""recall: one of two items found."""
    check.close('recall', student.recall([4, 2, 7], [2, 5]), 0.5, 'One of two items is found.')


@points(2)
def test_ndcg(student):
    r"""ndcg: one of two items found, at rank 2."""
    expected = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    check.close('ndcg', student.ndcg([4, 2, 7], [2, 5]), expected, 'Ranks start at 1.')


@points(1)
def test_evaluate(student):
    r"""evaluate: one user finds the item, one does not."""
    out = student.evaluate(SCORE, TRAIN, torch.tensor([[0, 1], [2, 2]]), 1)
    check.that(isinstance(out, dict) and set(out) == {'recall', 'ndcg'}, 'Return a dictionary.')
    check.close('evaluate', out['recall'], 0.5, 'User 0 has a recall of 1, user 1 of 0.')
