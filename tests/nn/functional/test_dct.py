import math

import pytest
import torch

from motor_geo.nn.functional.dct import cosine_transform


@pytest.mark.parametrize('size', [1, 2, 5, 12])
def test_cosine_transform(size):
    x = torch.randn(7, size, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for k in range(size):
        scale = math.sqrt((1 if k == 0 else 2) / size)
        for n in range(size):
            expected[:, k] += scale * x[:, n] * math.cos(math.pi * (2 * n + 1) * k / (2 * size))
    torch.testing.assert_close(cosine_transform(x), expected)
    torch.testing.assert_close(cosine_transform(x.float()), expected.float())
    fft = pytest.importorskip('scipy.fft')
    actual = torch.from_numpy(fft.dct(x.numpy(), type=2, norm='ortho', axis=1))
    torch.testing.assert_close(cosine_transform(x), actual)


@pytest.mark.parametrize('size', [1, 2, 5, 12])
def test_inverse_and_gradients(size):
    x = torch.randn(3, size, dtype=torch.float64, requires_grad=True)
    basis = cosine_transform(torch.eye(size).double())  # Row n is the transform of a unit.
    torch.testing.assert_close(basis @ basis.t(), torch.eye(size).double())
    torch.testing.assert_close(cosine_transform(x, inverse=True), x @ basis.t())
    torch.testing.assert_close(cosine_transform(cosine_transform(x), inverse=True), x)
    torch.testing.assert_close(cosine_transform(x.float(), True), (x @ basis.t()).float())
    for inverse in (False, True):
        assert torch.autograd.gradcheck(cosine_transform, (x, inverse))


def test_cosine_transform_in_blocks():
    x = torch.randn(5, 2**20, dtype=torch.float64)  # Four rows at a time.
    out = cosine_transform(x)
    torch.testing.assert_close(out[4:], cosine_transform(x[4:]))
    torch.testing.assert_close(out.norm(dim=1), x.norm(dim=1))
