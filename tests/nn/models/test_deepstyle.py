import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData

from motor_geo.nn import FeatureProjection, TokenCrossEncoder
from motor_geo.nn.models import DeepStyle
from motor_geo.typing import RATES, Batch


def graph():
    torch.manual_seed(0)
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = 3, 5
    data['item'].x_image, data['item'].x_text = torch.randn(5, 4), torch.randn(5, 2)
    data['item'].token_id = torch.tensor([[0, 1], [2, 0], [2, 1], [1, 1], [0, 0]])
    data[RATES].edge_index = torch.tensor([[0, 1, 2], [0, 1, 2]])
    return data


@pytest.mark.parametrize('kind', ['id', 'token', 'given', 'none'])
def test_deepstyle_equals_the_formula(kind):
    data = graph()
    encoder = None
    if kind == 'token':
        encoder = TokenCrossEncoder({'image': 1, 'text': 1}, 3, 6)
    elif kind == 'none':
        encoder = FeatureProjection({'image': 4, 'text': 2}, 6)
    elif kind == 'given':
        data['item'].category = torch.tensor([1, 0, 1, 3, 0])
    model = DeepStyle(data, encoder, channels=6, reg_weight=0.3)
    category = {
        'id': torch.arange(5),
        'token': data['item'].token_id[:, 0],
        'given': data['item'].get('category'),
    }.get(kind)
    p, q = model.user_embedding, model.encode_items(data)
    item = q.clone()
    for m in ('image', 'text'):
        item = item + data['item'][f'x_{m}'] @ model.features.lins[m].weight.t()
    if category is not None:
        assert model.style.weight.size(0) == {'id': 5, 'token': 3, 'given': 4}[kind]
        item = item - model.style.weight[category]
    else:
        assert model.style is None
    out = model(data)
    torch.testing.assert_close(out.user @ out.item.t(), p @ item.t())

    batch = Batch(torch.tensor([0, 2, 0]), torch.tensor([0, 2, 0]), torch.tensor([3, 1, 4]))
    user, pos, neg = batch
    difference = (p[user] * (item[pos] - item[neg])).sum(dim=1)
    expected = {'bpr': F.softplus(-difference).sum()}
    reg = p[user].square().sum()
    for part in [q] if category is None else [q, model.style.weight[category]]:
        reg = reg + part[pos].square().sum() + part[neg].square().sum()
    expected['reg'] = 0.3 * reg / 2
    losses = model.loss(data, batch)
    torch.testing.assert_close(losses, expected)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(sum(losses.values()), parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad(sum(expected.values()), parameters))


def test_deepstyle_with_tokens_is_id_free():
    data = graph()
    model = DeepStyle(data, TokenCrossEncoder({'image': 1, 'text': 1}, 3, 6), channels=6)
    assert model.item_parameters(5) == []
    assert DeepStyle(data, channels=6).item_parameters(5) == ['item_encoder.weight', 'style.weight']


def test_deepstyle_rejects_what_it_does_not_know():
    data = graph()
    data['item'].category = torch.tensor([1, 0, 1, 3, 0])
    model = DeepStyle(data, channels=6)
    with pytest.raises(ValueError, match=r"trained with data\['item'\].category, which is missing"):
        model(graph())
    data = graph()
    del data['item'].x_image, data['item'].x_text
    with pytest.raises(ValueError, match="'DeepStyle' needs item features of at least 1 modality"):
        DeepStyle(data)


@pytest.mark.parametrize(
    'category, message',
    [
        ([0, 1, 2, 0, -1], r'must be at least 0 \(got -1..2\)'),
        ([0, 1], r'must be a number of every item, \[5\], got \[2\]'),
    ],
)
def test_deepstyle_rejects_categories(category, message):
    data = graph()
    data['item'].category = torch.tensor(category)
    with pytest.raises(ValueError, match=message):
        DeepStyle(data, channels=6)


def test_deepstyle_rejects_categories_that_it_was_not_trained_with():
    data = graph()
    data['item'].category = torch.tensor([1, 0, 1, 3, 0])
    model = DeepStyle(data, channels=6)
    model(data)
    data['item'].category = torch.tensor([1, 0, 1, 4, 0])
    with pytest.raises(ValueError, match=r'at least 0 and at most 3, as in training \(got 0..4\)'):
        model(data)
