import pytest
import torch

from course.grading import check
from course.grading.check import Hint

X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_close():
    check.close('f', X + 1e-7, X, 'hint')
    check.close('f', torch.tensor(2.0), 2, 'hint')
    check.close('f', 2.0, torch.tensor(2.0, dtype=torch.float64), 'hint')


@pytest.mark.parametrize(
    'actual, words',
    [
        (None, '`f` returned None; expected a tensor.'),
        ([1, 2], 'a list of length 2; expected a tensor'),
        (X[0], r'of shape \[2\]; expected \[2, 2\]'),
        (X * torch.nan, 'NaN or infinite values. hint'),
        (2 * X, 'Twice as much.'),
        (X + torch.eye(2), r'2 of 4 values differ, the first at \[0, 0\].* hint'),
    ],
)
def test_messages(actual, words):
    with pytest.raises(Hint, match=words):
        check.close('f', actual, X, 'hint', {'Twice as much.': 2 * X, 'Other size.': X[0]})


def test_numbers():
    with pytest.raises(Hint, match='expected a number'):
        check.close('f', 'one', 1.0, 'hint')
    with pytest.raises(Hint, match='You have 3. hint'):
        check.close('f', 3, 1.0, 'hint')
    with pytest.raises(Hint, match='a tuple of two'):
        check.pair('f', X[:1])
