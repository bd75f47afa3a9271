import numpy as np
import pytest
import torch

from motor_geo.nn.models import EASE
from motor_geo.nn.models import ease as module
from motor_geo.testing.graphs import small_graph, with_edges
from motor_geo.typing import RATES


def dense(data):
    x = torch.zeros(data['user'].num_nodes, data['item'].num_nodes, dtype=torch.double)
    x[tuple(data[RATES].edge_index)] = 1
    return x


def weights(data, reg_weight):
    model = EASE(data, reg_weight)
    return torch.from_numpy(model.similarity(model.interactions(data))).double()


def test_by_hand():
    r"""Two items: each is predicted from the other by ridge regression."""
    data = with_edges(small_graph(), torch.tensor([[0, 0, 1, 2, 2, 3], [0, 1, 0, 0, 1, 1]]))
    weight = weights(data, 2.0)
    # Three users have item 0, three item 1, two both: b = 2 / (3 + 2).
    assert weight[0, 1] == pytest.approx(2 / 5) and weight[1, 0] == pytest.approx(2 / 5)
    assert weight[2:].abs().sum() == 0 and weight.diagonal().abs().sum() == 0
    model = EASE(data, 2.0)
    score = model(data)(torch.tensor([3, 0]))
    assert score[0, :3].tolist() == pytest.approx([2 / 5, 0, 0])
    assert score[1, :3].tolist() == pytest.approx([2 / 5, 2 / 5, 0])


@pytest.mark.parametrize('reg_weight', [0.5, 100.0])
def test_the_gradient_is_zero_but_for_the_diagonal(reg_weight):
    data = small_graph()
    x, weight = dense(data), weights(data, reg_weight)
    assert weight.diagonal().equal(torch.zeros(x.size(1), dtype=torch.double))
    gradient = x.t() @ (x @ weight - x) + reg_weight * weight
    rest = gradient - torch.diag(gradient.diagonal())
    assert rest.abs().max() < 1e-4 * gradient.diagonal().abs().max()


def test_equals_regressions_item_by_item():
    data, reg_weight = small_graph(), 3.0
    x, weight = dense(data).numpy(), weights(data, reg_weight)
    for item in range(0, x.shape[1], 20):
        rest = np.arange(x.shape[1]) != item
        left = x[:, rest].T @ x[:, rest] + reg_weight * np.eye(rest.sum())
        expected = np.linalg.solve(left, x[:, rest].T @ x[:, item])
        np.testing.assert_allclose(weight[rest, item].numpy(), expected, atol=1e-6)


def test_scores_are_products():
    data = small_graph()
    model, user = EASE(data, 10.0), torch.tensor([7, 0, 7])
    expected = (dense(data) @ weights(data, 10.0))[user]
    torch.testing.assert_close(model(data)(user), expected.float())


def test_what_cannot_be_is_refused(monkeypatch):
    data = small_graph()
    with pytest.raises(ValueError, match=r"^'reg_weight' must be positive and finite \(got 0\)$"):
        EASE(data, 0)
    monkeypatch.setattr(module, 'available_memory', lambda: 10_000)
    needed = EASE.num_bytes(173)
    message = f'173 items need {needed:,} bytes of memory, 10,000 are free$'
    with pytest.raises(ValueError, match=message):
        EASE(data)
    monkeypatch.setattr(module, 'available_memory', lambda: None)
    EASE(data)


def test_many_items_take_long(monkeypatch):
    monkeypatch.setattr('motor_geo.utils.cost.SPEED', 1e3 / torch.get_num_threads())
    with pytest.warns(UserWarning, match=r"^'EASE' .* 173 items, which .* 1.4 hours"):
        EASE(small_graph())
