import math

import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn.functional import distinct as nodes
from motor_geo.nn.functional.contrast import log_sum_exp
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.loss import batch_contrast, bpr_loss, frobenius_reg, info_nce, l2_reg, square_reg


def test_bpr_loss_by_hand():
    pos, neg = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    terms = [-math.log(1 / (1 + math.exp(-d))) for d in (1.0, -2.0)]
    for form in ('log', 'eps', 'raw'):
        assert float(bpr_loss(pos, neg, form)) == pytest.approx(sum(terms) / 2, rel=1e-6)
    assert float(bpr_loss(pos, neg, 'sum')) == pytest.approx(sum(terms), rel=1e-6)
    base_two = sum(terms) / len(terms) / math.log(2)
    assert float(bpr_loss(pos, neg, 'log2')) == pytest.approx(base_two, rel=1e-6)
    far = torch.tensor([-200.0])
    assert float(bpr_loss(far, -far, 'log')) == pytest.approx(400.0)
    assert float(bpr_loss(far, -far, 'eps')) == pytest.approx(-math.log(1e-10), rel=1e-5)
    assert math.isinf(float(bpr_loss(far, -far, 'raw')))
    with pytest.raises(ValueError, match="'form' must be"):
        bpr_loss(pos, neg, 'hinge')


def test_square_reg():
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    assert float(square_reg(x)) == pytest.approx(2.5)
    assert float(square_reg(x, y)) == pytest.approx((1 + 4 + 9 + 16 + 25 + 36) / 6)
    assert float(square_reg(x[:0], y[:0])) == 0


def test_frobenius_reg_is_unsquared_and_its_gradient_bounded():
    x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    y = torch.tensor([[6.0, 8.0], [0.0, 0.0]])
    out = frobenius_reg(x, y)
    assert float(out.detach()) == pytest.approx((5 + 10) / 2)
    out.backward()
    torch.testing.assert_close(x.grad, x.detach() / (5 * 2))


def test_frobenius_reg_asks_for_twice_the_weight_with_four_times_the_rows():
    pull = []
    for times in (1, 4):
        x = torch.tensor([[3.0, 4.0], [1.0, 2.0]], requires_grad=True)
        frobenius_reg(x.repeat(times, 1)).backward()
        pull.append(x.grad)
    torch.testing.assert_close(pull[0], 2 * pull[1])


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


def random(*size, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=dtype)


def plain_log_sum_exp(a, p, row_count=None, count=None, skip_diagonal=False):
    logits = a @ p.t()
    if count is not None:
        logits = logits + count.log()
    if skip_diagonal:
        logits = logits.masked_fill(torch.eye(*logits.shape, dtype=torch.bool), -torch.inf)
    out = logits.logsumexp(dim=1)
    return (out if row_count is None else out * row_count).sum()


@pytest.mark.parametrize('entries', [1, 7 * 41, 10**9, None])
@pytest.mark.parametrize('bound', [50.0, math.inf])
@pytest.mark.parametrize('counts', [True, False])
@pytest.mark.parametrize('skip_diagonal', [True, False])
def test_log_sum_exp_equals_the_plain_form(entries, bound, counts, skip_diagonal):
    a, p = random(30, 5).requires_grad_(), random(41, 5, seed=1).requires_grad_()
    kwargs = {'skip_diagonal': skip_diagonal}
    if counts:
        generator = torch.Generator().manual_seed(0)
        kwargs['row_count'] = torch.randint(1, 5, (30,), generator=generator)
        kwargs['count'] = torch.randint(1, 5, (41,), generator=generator)
    actual = log_sum_exp(a, p, bound=bound, entries=entries, **kwargs)
    expected = plain_log_sum_exp(a, p, **kwargs)
    torch.testing.assert_close(actual, expected)
    # Scaled, as the gradient is computed before the scale is known.
    for x, y in zip(
        torch.autograd.grad(3 * actual, (a, p)), torch.autograd.grad(3 * expected, (a, p))
    ):
        torch.testing.assert_close(x, y)
    with torch.no_grad():
        value = log_sum_exp(a, p, bound=bound, entries=entries, **kwargs)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize('bound', [50.0, math.inf])
def test_log_sum_exp_gradient_of_one_side(bound):
    a, p, count = random(6, 4), random(9, 4, seed=1), torch.arange(1, 7)

    def value(a, p):
        return log_sum_exp(a, p, count, bound=bound, entries=20)

    assert torch.autograd.gradcheck(lambda a: value(a, p), a.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda p: value(a, p), p.clone().requires_grad_())


def test_log_sum_exp_far_from_zero():
    # Nothing is finite in float32 without the maximum of a row, and what is
    # far below it is no subnormal number.
    a, p = 40 * random(30, 5, dtype=torch.float32), random(41, 5, seed=1, dtype=torch.float32)
    a, p = a.requires_grad_(), p.requires_grad_()
    actual, expected = log_sum_exp(a, p), plain_log_sum_exp(a.double(), p.double())
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=0)
    for x, y in zip(torch.autograd.grad(actual, (a, p)), torch.autograd.grad(expected, (a, p))):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_log_sum_exp_at_the_bound():
    # The largest bound without a maximum, on both ends, for many vectors.
    for sign in (1.0, -1.0):
        a, p = torch.zeros(2, 64), torch.zeros(100_000, 64)
        a[:, 0], p[:, 0] = 60 * sign, 1
        a.requires_grad_(), p.requires_grad_()
        actual = log_sum_exp(a, p, bound=60)
        assert float(actual.detach()) == pytest.approx(2 * (60 * sign + math.log(100_000)))
        grad_a, grad_p = torch.autograd.grad(actual, (a, p))
        # Some matrix products add up equal numbers one by one, which rounds.
        torch.testing.assert_close(grad_a, p[:2].detach(), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(grad_p, 2 * sign / 100_000 * 60 * p.detach())


@pytest.mark.parametrize('devices', [('cpu',), ()])
@pytest.mark.parametrize('temperature', [0.2, 0.01])
def test_info_nce_of_distinct_rows(temperature, devices, monkeypatch):
    monkeypatch.setattr(nodes, 'SYNCHRONOUS', devices)
    user, item = torch.tensor([4, 0, 4, 4, 1]), torch.tensor([2, 2, 6, 2, 3])
    a, p = random(5, 4).requires_grad_(), random(7, 4, seed=1).requires_grad_()
    users, items = distinct(user), distinct(item)
    losses = [
        info_nce(a[user], p[item], temperature),
        info_nce(a[users.node], p[items.node], temperature, (users, items)),
        F.cross_entropy(
            F.normalize(a[user]) @ F.normalize(p[item]).t() / temperature, torch.arange(5)
        ),
    ]
    gradients = [torch.autograd.grad(value, (a, p)) for value in losses]
    for value, gradient in zip(losses[:2], gradients[:2]):
        torch.testing.assert_close(value, losses[2])
        for x, y in zip(gradient, gradients[2]):
            torch.testing.assert_close(x, y)


def test_batch_contrast():
    a, p = random(6, 4), random(6, 4, seed=1)
    expected = F.cross_entropy(a @ p.t(), torch.arange(6))
    torch.testing.assert_close(batch_contrast(a, p), expected)
