import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from motor_geo.nn import FeatureProjection, TokenCrossEncoder
from motor_geo.nn.functional.layers import weighted_sum
from motor_geo.nn.graph import opposite_edges
from motor_geo.nn.models.grcn import GRCN
from motor_geo.typing import RATES
from tests.golden_case import GoldenCase


def build(case, **kwargs):
    data, h = case.data(), case.hyper
    kwargs = {'num_routings': h['n_routing'], 'item_confidence': 'free', **kwargs}
    model = GRCN(data, channels=h['d'], reg_weight=h['reg'], **kwargs).to(case.dtype)
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
    }
    for m in case.modalities:
        parameters[f'{m}_preference'] = model.preferences[m]
        parameters[f'{m}_linear_weight'] = model.features.lins[m].weight
        parameters[f'{m}_linear_bias'] = model.features.lins[m].bias
    case.load(parameters)
    with torch.no_grad():
        user, item = case['confidence'].split([h['M'], h['N']])
        model.user_confidence.copy_(user)
        if model.item_confidence.weight is not None:
            model.item_confidence.weight.copy_(item)
            parameters['user_confidence'] = model.user_confidence
            parameters['item_confidence'] = model.item_confidence.weight
    return model, data, parameters


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_grcn_golden(dtype):
    case = GoldenCase('grcn', dtype)
    model, data, parameters = build(case)
    losses = model.loss(data, case.batch)
    reg = case.hyper['reg']
    terms = {'bpr': ('loss_bpr', 1), 'reg_id': ('loss_reg_id', reg)}
    terms['reg_image_table'] = ('loss_reg_image_preference_all', reg)
    for m in case.modalities:
        terms[f'reg_{m}'] = (f'loss_reg_{m}_preference_batch', reg)
    case.assert_loss(losses, terms)

    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')

    # The case stacks users and items in two of its tables.
    total = torch.stack(list(losses.values())).sum()
    gradients = dict(zip(parameters, torch.autograd.grad(total, list(parameters.values()))))
    gradients['id_embedding'] = torch.cat(
        [gradients['user_embedding'], gradients['item_embedding']]
    )
    gradients['confidence'] = torch.cat(
        [gradients.pop('user_confidence'), gradients.pop('item_confidence')]
    )
    assert len(gradients) == 4 + 3 * len(case.modalities)
    for name, gradient in gradients.items():
        case.assert_gradient(gradient, name)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_grcn_attention_and_edge_weights_golden(dtype):
    case = GoldenCase('grcn', dtype)
    model, data, _ = build(case)
    seen = []
    model.attention.register_forward_hook(lambda *args: seen.append(args[-1][1]))
    graph = model.refine(data, F.normalize(model.encode_items(data)))[1]
    # Edges of the case are sorted by user, as those to users are.
    order = case['train_edges'][1].argsort(stable=True).argsort()
    case.assert_close(torch.stack(seen[0::2], dim=-1), 'attention_item_to_user')
    case.assert_close(torch.stack(seen[1::2], dim=-1)[order], 'attention_user_to_item')
    case.assert_close(graph.to_user_weight, 'edge_weight_item_to_user')
    case.assert_close(graph.to_item_weight[order], 'edge_weight_user_to_item')


def test_grcn_routing():
    case = GoldenCase('grcn')
    reference, data, _ = build(case, routing='reference')
    without, _, _ = build(case, routing='paper', num_routings=0)
    paper, _, _ = build(case, routing='paper', num_routings=1)
    for out, expected in zip(without(data), reference(data)):
        assert torch.equal(out, expected)
    out = paper(data)
    assert not torch.allclose(out.user, reference(data).user)

    # One routing by hand, for one user and one modality.
    user = int(case['train_edges'][0, 0])
    index = case['train_edges'][1][case['train_edges'][0] == user]
    x = F.normalize(F.leaky_relu(paper.features.lins['text'](data['item'].x_text)))[index]
    g = F.normalize(paper.preferences['text'])[user]
    g = F.normalize(g + torch.softmax(x @ g, dim=0) @ x, dim=0)
    expected = g + torch.softmax(x @ g, dim=0) @ x
    torch.testing.assert_close(out.user[user, -case.hyper['d'] :], expected)


def test_grcn_confidence_of_items():
    case = GoldenCase('grcn')
    num_items = case.hyper['N']
    ones, data, _ = build(case, item_confidence='free')
    nn.init.ones_(ones.item_confidence.weight)
    none, _, _ = build(case, item_confidence='none')
    for out, expected in zip(none(data), ones(data)):
        assert torch.equal(out, expected)

    model, _, _ = build(case, item_confidence='token')
    item = F.normalize(model.encode_items(data))
    free, _, _ = build(case, item_confidence='free')
    with torch.no_grad():
        free.item_confidence.weight.copy_(model.item_confidence(item))
    for out, expected in zip(model(data), free(data)):
        torch.testing.assert_close(out, expected)

    # The default keeps the promise of the item encoder.
    assert GRCN(data).item_confidence.weight is not None
    assert GRCN(data, nn.Embedding(num_items, 64)).item_confidence.weight is not None
    width = {'text': case['text_feat'].size(1)}
    assert GRCN(data, FeatureProjection(width)).item_confidence.lin is not None


def test_grcn_starts_with_few_silent_items():
    data = GoldenCase('grcn').data()
    data['item'].token_id = torch.randint(0, 64, (data['item'].num_nodes, 8))
    for seed in range(10):
        torch.manual_seed(seed)
        encoder = TokenCrossEncoder({'image': 4, 'text': 4}, codebook_size=64)
        model = GRCN(data, encoder)
        confidence = model.item_confidence(F.normalize(model.encode_items(data)))
        assert (confidence.amax(dim=-1) > 0).float().mean() > 0.9


def test_grcn_scale_of_item_vectors_does_not_matter():
    case = GoldenCase('grcn')
    model, data, _ = build(case, item_confidence='token')
    expected = model(data)
    with torch.no_grad():
        model.item_encoder.weight.mul_(8)
    for out, value in zip(model(data), expected):
        torch.testing.assert_close(out, value)


def test_grcn_node_without_edges():
    case = GoldenCase('grcn')
    model, data, _ = build(case)
    edge_index = data[RATES].edge_index
    data[RATES].edge_index = edge_index[:, (edge_index[0] != 0) & (edge_index[1] != 3)]
    parts = [F.normalize(model.encode_items(data))[3]]
    for m in case.modalities:
        parts.append(F.normalize(F.leaky_relu(model.features.lins[m](data['item'][f'x_{m}'])))[3])
    out = model(data)
    torch.testing.assert_close(out.item[3], torch.cat(parts))
    parts = [F.normalize(x)[0] for x in (model.user_embedding, *model.preferences.values())]
    torch.testing.assert_close(out.user[0], torch.cat(parts))


@pytest.mark.parametrize('modalities', [['text'], ['audio', 'image', 'text']])
def test_grcn_any_modalities(modalities):
    case = GoldenCase('grcn')
    data = case.data()
    for m in case.modalities:
        del data['item'][f'x_{m}']
    for m in modalities:
        data['item'][f'x_{m}'] = torch.rand(case.hyper['N'], 5)
    model = GRCN(data, channels=8, routing='paper', reg_weight=0.1).double()
    out = model(data)
    assert out.user.shape == (case.hyper['M'], 8 * (1 + len(modalities)))
    assert out.item.shape == (case.hyper['N'], 8 * (1 + len(modalities)))
    losses = model.loss(data, case.batch)
    expected = {'bpr', 'reg_id', *(f'reg_{m}' for m in modalities)}
    if 'image' in modalities:
        expected.add('reg_image_table')
    assert set(losses) == expected
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.table_reg = False
    assert set(model.loss(data, case.batch)) == expected - {'reg_image_table'}


def test_grcn_with_tokens():
    case = GoldenCase('grcn')
    data = case.data()
    data['item'].token_id = torch.randint(0, 8, (case.hyper['N'], 4))
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, codebook_size=8, out_channels=6)
    model = GRCN(data, encoder, channels=6, reg_weight=0.1)
    assert model.item_parameters(case.hyper['N']) == []
    sum(model.loss(data, case.batch).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    free = GRCN(data, encoder, channels=6, item_confidence='free')
    assert free.item_parameters(case.hyper['N']) == ['item_confidence.weight']

    seen = model(data)
    data['item'].num_nodes += 1
    for key in ('token_id', *(f'x_{m}' for m in case.modalities)):
        data['item'][key] = torch.cat([data['item'][key], data['item'][key][:1]])
    out = model(data)
    torch.testing.assert_close(out.user, seen.user)
    torch.testing.assert_close(out.item[:-1], seen.item)
    with pytest.raises(ValueError, match='free confidence for 30 items but the graph has 31'):
        free(data)


def test_grcn_initial_scale_and_reset():
    data = GoldenCase('grcn').data()
    data['user'].num_nodes, data['item'].num_nodes = 3000, 1000
    torch.manual_seed(0)
    model = GRCN(data, channels=32)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.reset_parameters()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    rows = {
        4032: [model.user_embedding, model.item_encoder.weight],
        4002: [model.user_confidence, model.item_confidence.weight],
        3032: [model.preferences['text']],
    }
    for height, parameters in rows.items():
        for parameter in parameters:
            std = float(parameter.detach().std())
            assert std == pytest.approx((2 / height) ** 0.5, rel=0.1)


def test_grcn_copies_and_state():
    case = GoldenCase('grcn')
    model, data, _ = build(case)
    expected = model(data)
    clone = copy.deepcopy(model)
    other, _, _ = build(case)
    other.reset_parameters()
    other.load_state_dict(model.state_dict())
    for twin in (clone, other):
        assert all(torch.equal(a, b) for a, b in zip(twin(data), expected))


def test_grcn_rejects_bad_arguments():
    data = GoldenCase('grcn').data()
    with pytest.raises(ValueError, match="'routing' must be 'reference' or 'paper'"):
        GRCN(data, routing='none')
    with pytest.raises(ValueError, match="'item_confidence' must be 'token', 'free' or 'none'"):
        GRCN(data, item_confidence='id')
    with pytest.raises(ValueError, match="'num_routings' must not be negative"):
        GRCN(data, num_routings=-1)
    for m in ('image', 'text'):
        del data['item'][f'x_{m}']
    with pytest.raises(ValueError, match="'GRCN' needs item features of at least 1 modality"):
        GRCN(data)


@pytest.mark.parametrize('num_hops', [1, 2, 3])
def test_grcn_weighted_sum(num_hops):
    case = GoldenCase('grcn')
    model, data, _ = build(case)
    graph = model.graph(data)
    order = opposite_edges(graph)
    generator = torch.Generator().manual_seed(0)
    sizes = [(case.hyper['M'], 2), (case.hyper['N'], 2), order.shape, order.shape]
    leaves = [torch.rand(size, generator=generator).double().requires_grad_() for size in sizes]
    user, item, to_user, to_item = leaves

    adj = torch.zeros(2, case.hyper['M'], case.hyper['N'], dtype=torch.float64)
    adj[0][graph.to_user.as_tensor().flip(0).unbind()] = to_user
    adj[1][graph.to_item.as_tensor().unbind()] = to_item
    x_user, x_item = user, item
    for _ in range(num_hops):
        x_user, x_item = user + adj[0] @ x_item, item + adj[1].t() @ x_user
    out = weighted_sum(*leaves, graph, num_hops)
    torch.testing.assert_close(out, (x_user, x_item))
    weight = torch.randn_like(torch.cat(out))
    for a, b in zip(
        torch.autograd.grad((torch.cat(out) * weight).sum(), leaves),
        torch.autograd.grad((torch.cat([x_user, x_item]) * weight).sum(), leaves),
    ):
        torch.testing.assert_close(a, b)


def test_grcn_edges_in_any_order():
    case = GoldenCase('grcn')
    model, data, _ = build(case)
    expected = model(data)
    edge_index = data[RATES].edge_index
    order = torch.randperm(edge_index.size(1), generator=torch.Generator().manual_seed(0))
    data[RATES].edge_index = edge_index[:, order]
    for a, b in zip(model(data), expected):
        torch.testing.assert_close(a, b)
