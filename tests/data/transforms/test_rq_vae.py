import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.data import OPQTokenizer
from motor_geo.data.transforms.rq_vae import RQVAEQuantizer, mlp, quantize
from tests.data.token_cases import features

SMALL = {'num_steps': 30, 'hidden': [8], 'latent': 4}


def naive_quantize(z, centroids, offsets, mu):
    r"""One row and one centroid after the other."""
    out, codes, terms = [], [], []
    for row in z.tolist():
        rest, total, own = list(row), [0.0] * len(row), []
        for book, offset in zip(centroids, offsets):
            shift = [0.0] * len(book) if offset is None else offset.tolist()
            distance = [
                sum((a - b) ** 2 for a, b in zip(rest, entry)) - shift[k]
                for k, entry in enumerate(book.tolist())
            ]
            code = distance.index(min(distance))
            chosen = book[code].tolist()
            square = sum((a - b) ** 2 for a, b in zip(rest, chosen))
            terms.append((1 + mu) * square / len(row))
            total = [a + b for a, b in zip(total, chosen)]
            rest = [a - b for a, b in zip(rest, chosen)]
            own.append(code)
        out.append(total)
        codes.append(own)
    return torch.tensor(out), torch.tensor(codes), sum(terms) / len(terms)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 4), st.booleans())
def test_residual_quantization_step_by_step(seed, num_rows, num_levels, shifted):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_rows, 3, generator=generator, dtype=torch.double)
    books = [torch.randn(5, 3, generator=generator, dtype=torch.double) for _ in range(num_levels)]
    offsets = [torch.rand(5, generator=generator) if shifted else None for _ in books]
    out, codes, loss = quantize(z, books, offsets, 0.3)
    expected, other, terms = naive_quantize(z, books, offsets, 0.3)
    torch.testing.assert_close(out, expected.double())
    assert torch.equal(torch.stack(codes, dim=1), other)
    assert float(loss) == pytest.approx(terms)


def test_gradients_go_straight_through():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 3, generator=generator, dtype=torch.double).requires_grad_()
    books = [
        torch.randn(4, 3, generator=generator, dtype=torch.double).requires_grad_()
        for _ in range(2)
    ]
    out, codes, loss = quantize(z, books, [None, None], 0.25)
    weight = torch.randn_like(out)
    total = (out * weight).sum()
    grads = torch.autograd.grad(total, [z, *books], retain_graph=True, allow_unused=True)
    torch.testing.assert_close(grads[0], weight)
    assert all(grad is None or not grad.any() for grad in grads[1:])  # Nor do codebooks get any.
    # The terms: each codebook is drawn to the rests, and z to the centroids.
    rests, rest = [], z.detach()
    for code, book in zip(codes, books):
        rests.append(rest - book.detach()[code])
        rest = rests[-1]
    grads = torch.autograd.grad(loss, [z, *books])
    # Half of the sum over levels of 1/18 |.|^2, whose derivative is 2/36 of what is left.
    torch.testing.assert_close(grads[0], 0.25 * sum(rests) / 18)
    for code, book, left, grad in zip(codes, books, rests, grads[1:]):
        expected = torch.zeros_like(book).index_add_(0, code, -left / 18)
        torch.testing.assert_close(grad, expected)


def test_perceptron():
    x = torch.randn(5, 3)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    torch.testing.assert_close(mlp(x, list(net.parameters())), net(x))
    torch.testing.assert_close(mlp(x, list(net[0].parameters())), net[0](x))


def fit(x, **kwargs):
    return OPQTokenizer(
        3, 16, method='rqvae', cache=False, verbose=False, method_kwargs={**SMALL, **kwargs}
    ).fit(x)


def test_training_restores_features():
    x = features(300, 10)
    short, long = (fit(x, num_steps=steps).quantizers['x'] for steps in (5, 400))
    errors = []
    for quantizer in (short, long):
        codes = quantizer.encode(x)
        restored = mlp(quantizer.decode(codes).float(), quantizer.decoder)
        rows, others = quantizer.compare(x, quantizer.transform(x.double()), codes)
        torch.testing.assert_close(rows, x)
        torch.testing.assert_close(others, restored, atol=1e-4, rtol=1e-4)
        errors.append(float((restored - x).square().sum() / (x - x.mean(0)).square().sum()))
    assert errors[1] < 0.4 < 0.9 < errors[0]
    # Codes are those of the naive quantization of the encoder's output.
    z = mlp(x.double(), [p.double() for p in long.encoder])
    books = list(long.centroids.double())
    assert torch.equal(long.encode(x), naive_quantize(z, books, [None] * 3, 0)[1])


def test_scale_and_shift_of_features_do_not_matter():
    x = features(100, 6)
    first = fit(x).encode(x)
    assert torch.equal(fit(x * 64).encode(x * 64), first)  # Exact in binary.
    assert (fit(x + 5).encode(x + 5) == first).float().mean() > 0.9
    tiny = fit(x * 2.0**-70)
    assert (tiny.encode(x * 2.0**-70) == first).float().mean() > 0.9


def test_codes_are_used_from_the_start():
    x = features(400, 10)
    quantizer = fit(x, num_steps=200).quantizers['x']
    codes = quantizer.encode(x)
    assert all(column.unique().numel() >= 14 for column in codes.unbind(1))


def test_rows_without_variance():
    quantizer = fit(np.ones((40, 3), np.float32)).quantizers['x']
    assert all(value.isfinite().all() for value in quantizer.state_dict().values())
    assert quantizer.encode(np.ones((2, 3), np.float32)).unique(dim=0).size(0) == 1


@pytest.mark.parametrize(
    'kwargs, message',
    [
        ({'lr': 1e6, 'warmup': 0.5}, r"modality 'x': training diverged at step \d+ .* lower lr"),
        ({'lr': 1e6, 'num_steps': 1}, r"modality 'x': training diverged at step 1 .* lower lr"),
        ({'lr': 1e38}, r'lr must lie in 0\.\.1000000, got 1e\+38'),
        ({'latent': 0}, 'latent must be at least 1, got 0'),
        ({'num_steps': 0}, 'num_steps must be at least 1'),
        ({'hidden': [8, 0]}, r'hidden must be positive widths, got \[8, 0\]'),
        ({'warmup': 1.0}, 'warmup must be at least 0 and below 1, got 1.0'),
        ({'lr': float('nan')}, 'lr must lie in 0..1000000, got nan'),
        ({'steps': 3}, "method_kwargs: the method 'rqvae' has no setting 'steps'; .*num_steps"),
        ({'seed': 3}, "the method 'rqvae' has no setting 'seed'"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        fit(features(50, 4), **kwargs)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        ({'num_steps': 2.5}, 'num_steps must be an integer, got 2.5'),
        ({'batch_size': 'a'}, "batch_size must be an integer, got 'a'"),
        ({'lr': '1'}, "lr must be a number, got '1'"),
        ({'hidden': 8}, 'hidden must be a list of integers, got 8'),
        ({'hidden': [8.0]}, 'hidden: every width must be an integer, got 8.0'),
    ],
)
def test_settings_of_another_type(kwargs, message):
    for method in ('rqvae', 'letter'):
        with pytest.raises(ValueError, match=message):
            OPQTokenizer(2, 4, method=method, method_kwargs=kwargs)


def test_progress(capsys):
    x = features(40, 4).numpy()
    RQVAEQuantizer.fit(x, 2, 4, num_steps=2, hidden=(4,), latent=2, name='clip', verbose=True)
    assert "RQ-VAE of 'clip'" in capsys.readouterr().err
    RQVAEQuantizer.fit(x, 2, 4, num_steps=2, hidden=(4,), latent=2)
    assert capsys.readouterr().err == ''


def test_loss_of_a_step_equals_its_formula():
    x = features(20, 4)
    quantizer = fit(x, num_steps=1, warmup=0.0, lr=0.0, weight_decay=0.0).quantizers['x']
    z = mlp(x.double(), [p.double() for p in quantizer.encoder])
    # Without a step, the codebooks are k-means of the first latent vectors and their rests.
    centroid = quantizer.centroids[0].double()
    code = quantizer.encode(x)[:, 0]
    for k in code.unique().tolist():
        torch.testing.assert_close(z[code == k].mean(0), centroid[k], atol=1e-3, rtol=1e-3)
    assert F.mse_loss(quantizer.decode(quantizer.encode(x)), z) < z.var()
