import copy

import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.nn import FeatureProjection, UnseenItems
from motor_geo.nn.models import BPR, LightGCN
from motor_geo.nn.objective import DirectAULoss
from motor_geo.nn.unseen import nearest_seen, virtual_edges
from motor_geo.typing import ITEM, RATES, USER

# Items 0, 1, 2 are used by users 0, 1, 2; item 3 is like item 0, item 4 like item 2.
EDGES = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 1, 2]])
X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [2.0, 0.1], [-3.0, -3.0]])


@pytest.fixture
def data():
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = 3, 5
    data[ITEM].x_text = X
    data[RATES].edge_index = EDGES
    return data


def make(data, cls=LightGCN, **options):
    torch.manual_seed(0)
    model = cls(data, item_encoder=FeatureProjection({'text': 2}, 4), channels=4).eval()
    before = model(data)
    readout = UnseenItems(**options)
    readout.attach(model)
    after = model(data)
    assert torch.equal(after.user, before.user) and torch.equal(after.item[:3], before.item[:3])
    return model, before, after


def test_nearest_items_are_by_centered_cosine():
    near, weight = nearest_seen([X], EDGES, 1)
    assert near.tolist() == [[0], [2]] and weight.tolist() == [[1.0], [1.0]]
    near, weight = nearest_seen([X, X], EDGES, 10)  # As many as there are.
    x = torch.nn.functional.normalize(X - X[:3].mean(dim=0), dim=1)
    for row, item in enumerate((3, 4)):
        value, index = (x[item] @ x[:3].t()).sort(descending=True)
        assert near[row].tolist() == index.tolist()
        value = value.clamp(min=0) + 1e-6
        torch.testing.assert_close(weight[row], value / value.sum())


def test_users_of_the_nearest_items_come_first():
    near, weight = torch.tensor([[0, 1], [2, 1]]), torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    # Users 0 and 1 have items 0 and 1, user 2 has items 1 and 2.
    found = virtual_edges(EDGES, 3, 5, near, weight, 1).t().tolist()
    assert found == [[0, 3], [2, 4]]
    found = virtual_edges(EDGES, 3, 5, near, weight, 2).t().tolist()
    assert found == [[0, 3], [1, 3], [2, 4], [0, 4]]


def test_everything_is_off_by_default(data):
    assert not UnseenItems().changes
    for option in ({'layers': True}, {'neighbors': 0.1}, {'factor': None}, {'virtual_edges': 1}):
        assert UnseenItems(**option).changes
    _, before, after = make(data)
    assert torch.equal(after.item, before.item)


def test_factor_and_length(data):
    _, before, after = make(data, factor=2.5)
    torch.testing.assert_close(after.item[3:], 2.5 * before.item[3:])
    _, before, after = make(data, length=True, k=1)
    torch.testing.assert_close(after.item[3:].norm(dim=1), before.item[[0, 2]].norm(dim=1))
    cosine = torch.cosine_similarity(after.item[3:], before.item[3:])
    torch.testing.assert_close(cosine, torch.ones(2))


def test_share_of_neighbors(data):
    _, before, after = make(data, neighbors=0.25, k=1, factor=2.0)
    expected = 2 * (0.75 * before.item[3:] + 0.25 * before.item[[0, 2]])
    torch.testing.assert_close(after.item[3:], expected)


def test_mean_over_the_layers_that_exist(data):
    model, before, after = make(data, layers=True)
    torch.testing.assert_close(after.item[3:], 3 * before.item[3:])  # Of two hops.
    torch.testing.assert_close(after.item[3:], model.encode_items(data)[3:])
    _, before, after = make(data, BPR, layers=True)
    assert torch.equal(after.item, before.item)


def test_virtual_edges(data):
    model, before, after = make(data, virtual_edges=2, k=1)
    larger = copy.copy(data)  # Item 0 has users 0 and 1, item 2 has user 2.
    more = torch.tensor([[0, 1, 2], [3, 3, 4]])
    larger[RATES].edge_index = torch.cat([EDGES, more], dim=1)
    model.unseen.virtual_edges = 0
    expected = model(larger).item
    torch.testing.assert_close(after.item[3:], expected[3:])


def test_training_and_cosines_stay_as_they_are(data):
    model, before, _ = make(data, factor=3.0)
    assert torch.equal(model.train()(data).item, before.item)
    model.set_objective(DirectAULoss())
    copied = copy.deepcopy(model).eval()
    assert torch.equal(copied(data).item, model.eval()(data).item)


def test_items_that_come_later_are_unseen(data):
    model, _, _ = make(data, neighbors=1.0, k=1)
    larger = copy.copy(data)
    larger[ITEM].x_text = torch.cat([X, torch.tensor([[0.1, 5.0]])])
    larger[ITEM].num_nodes = 6
    item = model(larger).item
    torch.testing.assert_close(item[5], item[1])


@pytest.mark.parametrize(
    'option', [{'neighbors': 1.5}, {'virtual_edges': -1}, {'factor': 0.0}, {'k': 0}]
)
def test_values_out_of_range(option):
    with pytest.raises(ValueError, match=f"'{next(iter(option))}' must"):
        UnseenItems(**option)
