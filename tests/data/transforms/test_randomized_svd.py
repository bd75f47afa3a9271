import numpy as np
import pytest

from motor_geo.data.transforms import randomized_svd as module
from motor_geo.data.transforms.randomized_svd import randomized_svd

sparse = pytest.importorskip('scipy.sparse')


@pytest.mark.parametrize('shape', [(300, 40), (40, 300), (90, 90)])
def test_equals_dense_decomposition(monkeypatch, shape):
    monkeypatch.setattr(module, 'BLOCK', 64)
    rng = np.random.default_rng(0)
    factors = [rng.random((size, 6)) ** 3 for size in shape]
    dense = (rng.random(shape) < 0.1 + 0.2 * factors[0] @ factors[1].T).astype(float)
    value, vector = randomized_svd(sparse.csr_array(dense), 4, seed=1)
    _, expected, right = np.linalg.svd(dense)
    assert value == pytest.approx(expected[:4], rel=1e-3)
    assert np.allclose(vector @ vector.T, np.eye(4), atol=1e-10)
    assert abs((vector[:2] * right[:2]).sum(axis=1)) == pytest.approx(1, abs=1e-3)
    again = randomized_svd(sparse.csr_array(dense), 4, seed=1)
    assert (value == again[0]).all() and (vector == again[1]).all()


def test_channels_beyond_the_rank():
    dense = np.outer(np.ones(30), [1.0, 2, 0, 0, 2])
    value, vector = randomized_svd(sparse.csr_array(dense), 3)
    assert value == pytest.approx([30**0.5 * 3, 0, 0], abs=1e-6)
    assert abs(vector[0]) == pytest.approx([1 / 3, 2 / 3, 0, 0, 2 / 3], abs=1e-9)
