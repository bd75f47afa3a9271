import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import HeteroData

from motor_geo.data import ItemKNN, SyntheticClusters, UserKNN
from motor_geo.nn import FeatureProjection
from motor_geo.nn.functional import rows
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.models import MODELS
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.typing import ITEM, RATES, Batch

WIDTHS = {'audio': 3, 'image': 5, 'text': 4}
#: What dictionaries of modules refuse, and names that a careless escape would make one.
NAMES = ['clip.vit-b32', 'clip#vit-b32', 'type', '<type>', 'keys', 'float', 'training', 'forward']


def make_data(widths=WIDTHS, num_items=9):
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data[ITEM].num_nodes = num_items
    for name, width in widths.items():
        data[ITEM][f'x_{name}'] = torch.randn(20, width, generator=generator)[:num_items]
    return data


def plain(features, data, name):
    lin = features.lin(name)
    return data[ITEM][f'x_{name}'] @ lin.weight.t() + lin.bias


def test_names_and_widths():
    data = make_data()
    features = ItemFeatures(data, 6, 'Model')
    assert features.names == ['audio', 'image', 'text'] and len(features) == 3
    assert features.widths == WIDTHS
    assert [(name, lin.in_features, lin.out_features) for name, lin in features] == [
        ('audio', 3, 6),
        ('image', 5, 6),
        ('text', 4, 6),
    ]
    some = ItemFeatures(data, 6, 'Model', names=['text', 'audio'])
    assert some.names == ['text', 'audio'] and list(some(data)) == ['text', 'audio']
    assert str(some) == "ItemFeatures({'text': 4, 'audio': 3}, train=False)"


def test_projection_of_all_and_of_some_items():
    data = make_data()
    features, index = ItemFeatures(data, 6, 'Model'), torch.tensor([4, 4, 0, 8])
    for name in WIDTHS:
        expected = plain(features, data, name)
        for value in (features.project(data, name), features(data)[name]):
            torch.testing.assert_close(value, expected)
        for items in (index, distinct(index)):
            value = features.project(data, name, items)
            torch.testing.assert_close(value, expected[index])
        torch.testing.assert_close(features(data, index)[name], expected[index])
        assert torch.equal(features.table(data, name), data[ITEM][f'x_{name}'])
    for x, y, name in zip(features.raw(data), features.raw(data, index), WIDTHS):
        assert torch.equal(x, data[ITEM][f'x_{name}']) and torch.equal(y, x[index])
    more = make_data(num_items=12)  # Features are those of the graph at hand.
    torch.testing.assert_close(features(more)['text'], plain(features, more, 'text'))


def test_items_of_a_batch_are_projected_once(monkeypatch):
    data = make_data()
    features, sizes = ItemFeatures(data, 6, 'Model'), []

    def project(x, weight, bias=None):
        sizes.append(x.size(0))
        return rows.project(x, weight, bias)

    monkeypatch.setattr('motor_geo.nn.models.item_features.project', project)
    out = features(data, torch.tensor([4, 4, 0, 4, 8]))
    assert sizes == [3, 3, 3] and out['text'].size() == (5, 6)


def test_maps_are_drawn_in_order():
    data = make_data()
    torch.manual_seed(0)
    expected = [nn.Linear(width, 6) for width in WIDTHS.values()]
    torch.manual_seed(0)
    features = ItemFeatures(data, 6, 'Model')
    for (_, lin), other in zip(features, expected):
        assert torch.equal(lin.weight, other.weight) and torch.equal(lin.bias, other.bias)
    torch.manual_seed(0)
    for lin in expected:
        lin.reset_parameters()
    torch.manual_seed(0)
    features.reset_parameters()
    for (_, lin), other in zip(features, expected):
        assert torch.equal(lin.weight, other.weight) and torch.equal(lin.bias, other.bias)


def test_without_bias_and_without_maps():
    data = make_data()
    features = ItemFeatures(data, 6, 'Model', bias=False)
    assert [name for name, _ in features.named_parameters()] == [
        f'lins.{name}.weight' for name in WIDTHS
    ]
    expected = F.linear(data[ITEM].x_text, features.lin('text').weight)
    torch.testing.assert_close(features(data)['text'], expected)
    features = ItemFeatures(data, None, 'Model')
    assert list(features.parameters()) == [] and list(features) == []
    assert [x.size(1) for x in features.raw(data)] == list(WIDTHS.values())


def test_trained_features():
    data = make_data()
    data[ITEM].x_text = data[ITEM].x_text.half()
    features = ItemFeatures(data, 6, 'Model', train=True)
    names = [name for name, _ in features.named_parameters()]
    assert [name for name in names if name.startswith('tables')] == [
        f'tables.{name}' for name in WIDTHS
    ]
    table = features.tables['text']
    assert table.dtype == torch.float32 and torch.equal(table, data[ITEM].x_text.float())
    value = features(data, torch.tensor([2, 2]))['text']
    value.sum().backward()
    (row,) = table.grad.any(dim=1).nonzero().tolist()
    assert row == [2]  # And the rows of other items are left alone.
    with torch.no_grad():
        table.zero_()
    features.reset_parameters()  # Does not draw what was given.
    assert not table.any() and data[ITEM].x_text.any()
    torch.testing.assert_close(
        features.project(data, 'text'), features.lin('text').bias.expand(9, -1)
    )
    with pytest.raises(
        ValueError,
        match="'Model' trained the 'audio' features of 9 items but the graph has 12: items "
        "added after training need 'train_features=False'",
    ):
        features(make_data(num_items=12))


def test_needs_modalities():
    data = make_data({'image': 2})
    message = (
        r"'Model' needs item features of at least 2 modalities \(data\['item'\].x_<modality>\), "
        r"found \['image'\]"
    )
    with pytest.raises(ValueError, match=message):
        ItemFeatures(data, 6, 'Model', at_least=2)
    assert len(ItemFeatures(data, 6, 'Model', at_least=1)) == 1


def test_plain_x_is_a_modality():
    data = make_data({'text': 2})
    data['product'].x = torch.randn(9, 3)
    features = ItemFeatures(data, 6, 'Model', node_type='product', train=True)
    assert features.widths == {'x': 3}
    torch.testing.assert_close(features(data)['x'], F.linear(data['product'].x, *lin(features)))
    data[ITEM].x = torch.randn(9, 4)
    assert ItemFeatures(data, 6, 'Model').widths == {'text': 2, 'x': 4}


def lin(features):
    return features.lin('x').weight, features.lin('x').bias


def test_missing_features():
    features = ItemFeatures(make_data(), 6, 'Model')
    with pytest.raises(ValueError, match=r"data\['item'\].x_text is missing.*\['audio', 'image'\]"):
        features(make_data({'audio': 3, 'image': 5}))


@pytest.mark.parametrize('train', [False, True])
def test_any_names(train):
    data = make_data({name: k + 1 for k, name in enumerate(NAMES)})
    features = ItemFeatures(data, 6, 'Model', train=train)
    assert features.names == sorted(NAMES)
    for name, value in features(data).items():
        assert features.lin(name).in_features == NAMES.index(name) + 1
        torch.testing.assert_close(value, plain(features, data, name))
    other = ItemFeatures(data, 6, 'Model', train=train)
    other.load_state_dict(features.state_dict())
    for clone in (other, copy.deepcopy(features)):
        for name, value in features(data).items():
            assert torch.equal(clone(data)[name], value)


@pytest.fixture(scope='module')
def data():
    r"""A graph whose modalities have names that attributes of modules have."""
    data = SyntheticClusters(num_users=40, num_items=30, num_interactions=200, seed=0).data
    image = data[ITEM].x_image
    del data[ITEM].x_image, data[ITEM].x_text
    for k, name in enumerate(NAMES):
        data[ITEM][f'x_{name}'] = image[:, : k + 3].contiguous()
    return data


@pytest.mark.parametrize('name', sorted(MODELS))
def test_any_names_in_every_backbone(name, data):
    graph = copy.copy(data)
    for weighting in ('binary', 'cosine'):
        graph = ItemKNN(k=3, weighting=weighting, cache=False)(graph)
    graph = UserKNN(k=3, cache=False)(graph)
    encoder = FeatureProjection({m: data[ITEM][f'x_{m}'].size(1) for m in NAMES}, 8)
    model = MODELS[name](graph, item_encoder=encoder, channels=8)
    user, pos = data[RATES].edge_index[:, :16]
    losses = model.loss(graph, Batch(user, pos, pos.flip(0)))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(lin.weight.grad.any() for lin in encoder.lin.values())
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for a, b in zip(model.eval()(graph), other.eval()(graph)):
            assert torch.equal(a, b)
