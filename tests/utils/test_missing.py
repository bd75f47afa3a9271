import torch

from motor_geo.utils.missing import fill_missing

NAN = float('nan')


def test_mean_of_the_others():
    x = torch.tensor([[1.0, 2.0], [NAN, 0.0], [3.0, 6.0], [9.0, 9.0]])
    mask = torch.tensor([True, False, True, False])
    expected = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [9.0, 9.0]])
    assert torch.equal(fill_missing(x, mask), expected)
    assert x[1, 0].isnan()  # The input stays as it was.


def test_nothing_to_fill():
    x = torch.tensor([[1.0], [NAN]])
    assert fill_missing(x, torch.tensor([True, True])) is None
    assert fill_missing(x[:1], torch.tensor([False])) is None


def test_no_item_has_the_modality():
    assert torch.equal(fill_missing(torch.full((2, 3), NAN), torch.zeros(2)), torch.zeros(2, 3))
