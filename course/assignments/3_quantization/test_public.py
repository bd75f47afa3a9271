r"""Public tests of assignment 3."""

import torch

from course.grading import check
from course.grading.check import points

MEAN = torch.tensor([10.0, 20.0])
CENTROIDS = torch.tensor([[[-1.0], [1.0]], [[-2.0], [5.0]]])  # Two slots of size one.


@points(1)
def test_split(student):
    r"""split: two vectors of four features."""
    x = torch.arange(8.0).view(2, 4)
    expected = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]])
    check.close('split', student.split(x, 2), expected, 'Slot 0 has the first features.')


@points(2)
def test_kmeans(student):
    r"""kmeans: two clear groups."""
    x = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    start = torch.tensor([[0.0], [1.0]])
    expected = torch.tensor([[0.0], [23 / 3]])
    check.close('kmeans', student.kmeans(x, start, 1), expected, 'This is a single step.')
    expected = torch.tensor([[0.5], [11.0]])
    check.close('kmeans', student.kmeans(x, start, 5), expected, 'These are five steps.')


@points(2)
def test_fit(student):
    r"""fit: shapes and mean."""
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)) + 3
    mean, centroids = check.pair('fit', student.fit(x, 3, 4, 2))
    check.close('fit', mean, x.mean(dim=0), 'Look at the mean.')
    check.tensor('fit', centroids, [3, 4, 2])


@points(2)
def test_encode(student):
    r"""encode: two slots of size one."""
    x = torch.tensor([[9.5, 26.0], [10.5, 19.0]])
    out = student.encode(x, MEAN, CENTROIDS)
    expected = torch.tensor([[0, 1], [1, 0]])
    check.close('encode', out, expected, 'Subtract the mean. Which centroid is nearest?')


@points(1)
def test_decode(student):
    r"""decode: two slots of size one."""
    out = student.decode(torch.tensor([[0, 1], [1, 0]]), MEAN, CENTROIDS)
    expected = torch.tensor([[9.0, 25.0], [11.0, 18.0]])
    check.close('decode', out, expected, 'Add the mean to the centroids of both slots.')


@points(1)
def test_error(student):
    r"""error: a perfect reconstruction, and the mean."""
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    check.close('error', student.error(x, x), 0.0, 'Nothing is lost here.')
    mean = x.mean(dim=0).expand(2, 2)
    check.close('error', student.error(x, mean), 1.0, 'The mean loses all of the variance.')


@points(2)
def test_rotation(student):
    r"""rotation: 90 degrees."""
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, -2.0]])
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    hint = 'Rows are rotated as `x @ R`.'
    check.close('rotation', student.rotation(x, x @ turn), turn, hint)
