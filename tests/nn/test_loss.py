import math

import pytest
import torch

from motor_geo.nn.loss import bpr_loss, frobenius_reg, info_nce, l2_reg


def test_bpr_loss_by_hand():
    pos, neg = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    terms = [-math.log(1 / (1 + math.exp(-d))) for d in (1.0, -2.0)]
    for form in ('log', 'eps', 'raw'):
        assert float(bpr_loss(pos, neg, form)) == pytest.approx(sum(terms) / 2, rel=1e-6)
    assert float(bpr_loss(pos, neg, 'sum')) == pytest.approx(sum(terms), rel=1e-6)
    far = torch.tensor([-200.0])
    assert float(bpr_loss(far, -far, 'log')) == pytest.approx(400.0)
    assert float(bpr_loss(far, -far, 'eps')) == pytest.approx(-math.log(1e-10), rel=1e-5)
    assert math.isinf(float(bpr_loss(far, -far, 'raw')))
    with pytest.raises(ValueError, match="'form' must be"):
        bpr_loss(pos, neg, 'hinge')


def test_frobenius_reg_is_unsquared_and_its_gradient_bounded():
    x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    y = torch.tensor([[6.0, 8.0], [0.0, 0.0]])
    out = frobenius_reg(x, y)
    assert float(out) == pytest.approx((5 + 10) / 2)
    out.backward()
    torch.testing.assert_close(x.grad, x.detach() / (5 * 2))


def test_l2_reg():
    assert float(l2_reg(torch.tensor([1.0, 2.0]), torch.tensor([[3.0]]))) == 7.0


def test_info_nce_by_hand():
    anchor = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    positive = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    cos = [[1.0, 1 / math.sqrt(2)], [0.0, 1 / math.sqrt(2)]]
    expected = 0.0
    for b in range(2):
        weights = [math.exp(c / 0.2) for c in cos[b]]
        expected -= math.log(weights[b] / sum(weights)) / 2
    assert float(info_nce(anchor, positive, 0.2)) == pytest.approx(expected, rel=1e-5)
