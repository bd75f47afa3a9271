import pytest
import torch

from motor_geo.nn.functional import pairs
from motor_geo.nn.functional.pairs import scores_and_norms


def gradients(function, user, item):
    user, item = user.clone().requires_grad_(), item.clone().requires_grad_()
    pos, neg, norms = function(user, item)
    scale = torch.arange(1.0, 4.0, dtype=user.dtype)
    (torch.sigmoid(pos - neg).log().sum() + (scale * norms).sum()).backward()
    return pos, neg, norms, user.grad, item.grad


def test_values():
    user, item = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 2.0], [-1.0, 0.0]])
    pos, neg, norms = scores_and_norms(user, item)
    torch.testing.assert_close(torch.cat([pos, neg]), torch.tensor([11.0, -3.0]))
    torch.testing.assert_close(norms, torch.tensor([5.0, 5.0**0.5, 1.0]))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('size', [0, 1, 7, 64, 200])
def test_blocks_have_the_bits_of_the_reference(monkeypatch, dtype, size):
    monkeypatch.setattr(pairs, 'BLOCK', 16 * 32)
    generator = torch.Generator().manual_seed(size)
    user = torch.randn(size, 16, generator=generator, dtype=dtype)
    item = torch.randn(2 * size, 16, generator=generator, dtype=dtype)
    actual = gradients(scores_and_norms, user, item)
    for a, b in zip(actual, gradients(scores_and_norms.reference, user, item)):
        assert torch.equal(a, b)


def test_half_precision_is_widened():
    user, item = torch.randn(3, 4), torch.randn(6, 4)
    with torch.autocast('cpu', torch.bfloat16):
        out = scores_and_norms(user.bfloat16(), item)
    expected = scores_and_norms(user.bfloat16().float(), item)
    for a, b in zip(out, expected):
        assert a.dtype == torch.float and torch.equal(a, b)
