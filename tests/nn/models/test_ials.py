import itertools
import sys

import numpy as np
import pytest
import torch

from motor_geo.nn.models import IALS
from motor_geo.testing.graphs import NUM_ITEMS, NUM_USERS, small_graph

als = pytest.importorskip('implicit.cpu.als')


@pytest.fixture(scope='module')
def data():
    return small_graph()


def build(data, **options):
    torch.manual_seed(0)
    return IALS(data, **{'channels': 8, 'alpha': 20.0, 'reg_weight': 4.0, **options})


def iterate(model, data, count):
    return [entry['objective'] for entry in itertools.islice(model.fit(data), count)]


def objective(model, x, p, q):
    weight = np.where(x > 0, model.alpha, 1.0)
    norms = model.reg_weight * ((p**2).sum() + (q**2).sum())
    return ((weight * (x - p @ q.T) ** 2).sum() + norms) / weight.sum()


def naive(model, x, q, count):
    r"""Exact least squares, user by user and item by item."""
    weight, ridge = np.where(x > 0, model.alpha, 1.0), model.reg_weight * np.eye(q.shape[1])

    def solve(x, weight, q):
        rows = [
            np.linalg.solve((q.T * w) @ q + ridge, (q.T * w) @ row) for row, w in zip(x, weight)
        ]
        return np.stack(rows)

    for _ in range(count):
        p = solve(x, weight, q)
        q = solve(x.T, weight.T, p)
    return p, q


def test_equals_dense_least_squares(data):
    model = build(data)
    x = model.interactions(data).toarray().astype(np.float64)
    found = iterate(model, data, 60)
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(found))
    own = [value.double().numpy() for value in model(data)]
    assert objective(model, x, *own) == pytest.approx(found[-1], rel=1e-4)
    p, q = naive(model, x, build(data).item_embedding.double().numpy(), 60)
    assert objective(model, x, p, q) == pytest.approx(found[-1], rel=1e-3)
    # Where exact solutions end, the model stays.
    with torch.no_grad():
        model.user_embedding.copy_(torch.from_numpy(p))
        model.item_embedding.copy_(torch.from_numpy(q))
    iterate(model, data, 1)
    p, q = naive(model, x, q, 1)
    user, item = model(data)
    np.testing.assert_allclose(user @ item.t(), p @ q.T, atol=1e-2)


def test_equals_implicit(data):
    model = build(data)
    other = als.AlternatingLeastSquares(
        8, 4.0, alpha=20.0, iterations=5, num_threads=1, random_state=0
    )
    other.user_factors = model.user_embedding.numpy().copy()
    other.item_factors = model.item_embedding.numpy().copy()
    other.fit(model.interactions(data), show_progress=False)
    iterate(model, data, 5)
    np.testing.assert_allclose(model(data).user.numpy(), other.user_factors, atol=1e-6)
    np.testing.assert_allclose(model(data).item.numpy(), other.item_factors, atol=1e-6)


def test_threads_and_restarts_change_nothing(data):
    model, threads = build(data), torch.get_num_threads()
    iterate(model, data, 4)
    try:
        torch.set_num_threads(3)
        other = build(data)
        iterate(other, data, 2)
    finally:
        torch.set_num_threads(threads)
    again = build(data, channels=8)
    again.load_state_dict(other.state_dict())
    iterate(again, data, 2)
    assert again(data).user.equal(model(data).user) and again(data).item.equal(model(data).item)
    torch.manual_seed(1)
    assert not IALS(data, 8).item_embedding.equal(build(data).item_embedding)


def test_sizes_and_arguments(data):
    model = build(data)
    assert repr(model) == f'IALS({NUM_USERS}, {NUM_ITEMS}, 8)' and model.iterative
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match=r"^'alpha' must be at least 1, .* \(got 0.5\)$"):
        build(data, alpha=0.5)
    with pytest.raises(ValueError, match=r"^'reg_weight' must be positive and finite \(got 0\)$"):
        build(data, reg_weight=0)


def test_the_package_is_named_if_it_is_missing(data, monkeypatch):
    monkeypatch.setitem(sys.modules, 'implicit.cpu.als', None)
    with pytest.raises(ImportError, match=r"^IALS needs implicit \(extra 'als'\): pip install "):
        next(build(data).fit(data))
